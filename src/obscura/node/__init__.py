"""The reactions of a node and its links, pure: messages, time and chance in, effects out."""
