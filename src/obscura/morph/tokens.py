"""Flights as text, and what else a web session carries in its fields."""

from __future__ import annotations

import random
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode

from obscura.morph.request import Request


def encode_token(flight: bytes) -> bytes:
    """A flight as text: base64url without padding (RFC 4648, 5)."""
    return urlsafe_b64encode(flight).rstrip(b"=")


def decode_token(text: bytes) -> bytes:
    """The flight of a text that has the alphabet of ``encode_token``; b"" for a length that no text has."""
    return b"" if len(text) % 4 == 1 else urlsafe_b64decode(text + b"=" * (-len(text) % 4))


def cookie_of(request: Request, name: bytes) -> bytes:
    """The value of a cookie of a request, b"" without."""
    for key, text in request.fields:
        if key == b"cookie":
            for part in text.split(b";"):
                found, equals, value = part.strip().partition(b"=")
                if equals and found == name:
                    return value
    return b""


def websocket_key(rng: random.Random) -> bytes:
    """A fresh ``Sec-WebSocket-Key``."""
    return b64encode(rng.getrandbits(128).to_bytes(16, "big"))
