"""The laboratory's edge: processes in a network of their own, captures, and the tools that judge them."""
