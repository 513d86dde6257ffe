"""The second interpreter: the same core under a virtual clock."""
