"""A second implementation of the channel and the frames, written from docs/protocol.md alone.

It shares no code with the package, so what both agree on is what the text says. Nothing here is careful with
time, memory or side channels: it is a yardstick for tests, not a node.
"""
