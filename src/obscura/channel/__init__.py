"""Encryption and authentication of a link (design 6): key bytes, key agreement, sealed records, and the
secret that survives a rotation.
"""
