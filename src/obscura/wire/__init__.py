"""Bytes to typed messages and back (specification, Message Format). Knows no peer, no time, no key."""
