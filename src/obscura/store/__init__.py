"""Blocks, headers and transactions on disk."""
