"""Sockets, and what lies between them and a peer."""
