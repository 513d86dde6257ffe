"""The words of tor's control protocol and key files: pure text, bytes and numbers."""

from __future__ import annotations

import base64
import binascii
import re

from obscura.errors import AddressError
from obscura.limits import KEY_BYTES
from obscura.wire.address import Endpoint

KEY_TYPE = "ED25519-V3"
_KEY_BYTES = 64  # of an expanded ed25519 key, as tor gives it


def progress_of(status: str) -> tuple[int, str]:
    """Per cent and summary of a bootstrap status: ``NOTICE BOOTSTRAP PROGRESS=100 TAG=done SUMMARY="Done"``."""
    progress = re.search(r"PROGRESS=(\d{1,3})", status)
    summary = re.search(r'SUMMARY=("(?:[^"\\]|\\.)*")', status)
    return int(progress[1]) if progress else 0, unquoted(summary[1]) if summary else ""


def endpoint_of(text: str) -> Endpoint | None:
    """``127.0.0.1:9050`` or ``[::1]:9050``; None for anything else, names among it."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port) < 65_536:
        return None
    try:
        found = Endpoint.of(host.strip("[]"), int(port))
    except AddressError:
        return None
    return found if found is not None and len(found.host) in (4, 16) else None


def is_private_key(text: str) -> bool:
    """Whether this is a private key as tor gives and takes it."""
    kind, _, body = text.partition(":")
    try:
        return kind == KEY_TYPE and len(base64.b64decode(body, validate=True)) == _KEY_BYTES
    except binascii.Error:
        return False


def client_key(text: str) -> bytes:
    """An x25519 key in base32 as tor's own files have it, with or without ``descriptor:x25519:``. Raises ``ValueError``."""
    body = text.rpartition(":")[2].strip().upper()
    return x25519_key(base64.b32decode(body + "=" * (-len(body) % 8)))


def x25519_key(key: bytes) -> bytes:
    """The key itself. Raises ``ValueError`` for one that tor must never see.

    Security: tor 0.4.9 aborts on a key of zeros, with everything that runs over it.
    """
    if len(key) != KEY_BYTES or not any(key):
        raise ValueError("an x25519 key has 32 bytes that are not all zero")
    return key


def quoted(text: str) -> str:
    """A QuotedString of control-spec 2.1.1."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def unquoted(text: str) -> str:
    """A QuotedString of control-spec 2.1.1 with its octal escapes, or the text itself."""
    if not (len(text) >= 2 and text[0] == text[-1] == '"'):
        return text
    named = {"n": "\n", "r": "\r", "t": "\t"}

    def plain(escape: re.Match[str]) -> str:
        code = escape[1]
        return chr(int(code, 8)) if code[0].isdecimal() else named.get(code, code)

    return re.sub(r"\\([0-7]{1,3}|.)", plain, text[1:-1])
