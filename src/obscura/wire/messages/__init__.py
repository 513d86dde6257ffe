"""One class per message (specification, Message Types)."""
