"""The MACs of SSH's packets: HMAC (RFC 6668), and UMAC (RFC 4418; draft-miller-secsh-umac-01; OpenSSH's PROTOCOL) of GNU Nettle.

OpenSSH prefers UMAC wherever the cipher brings no MAC of its own, and no Python library has it. Nettle is on nearly every Linux
system, below GnuTLS. Where it is not, UMAC is not among ``MACS``, and ``lacks_umac`` says so.
"""

from __future__ import annotations

import ctypes
import hmac
from collections.abc import Callable
from struct import Struct
from typing import Final, NamedTuple

_U32: Final = Struct(">I")
_U64: Final = Struct(">Q")
LIBRARY: Final = "libnettle.so.8"  # Nettle 3.6 to 3.10; a later one has another interface
_UMAC_KEY_BYTES: Final = 16
_CONTEXT_WORDS: Final = 1_024  # of 8 bytes: three times what Nettle's largest context takes

Tag = Callable[[int, bytes], bytes]  # of a sequence number and a packet


class Mac(NamedTuple):
    """``tag_bytes``: behind each packet. ``of_ciphertext``: of what is on the wire (``-etm@openssh.com``), not of the plaintext.
    ``keyed``: makes the function for one key of ``key_bytes``.
    """

    key_bytes: int
    tag_bytes: int
    of_ciphertext: bool
    keyed: Callable[[bytes], Tag]


class _Umac:
    """One key. The nonce is the sequence number alone, which never comes again under a key: keys change long before."""

    def __init__(self, nettle: ctypes.CDLL, tag_bytes: int, key: bytes) -> None:
        start = f"nettle_umac{8 * tag_bytes}_"
        self._set_nonce, self._update = nettle[f"{start}set_nonce"], nettle[f"{start}update"]
        self._digest = nettle[f"{start}digest"]
        self._context = (ctypes.c_uint64 * _CONTEXT_WORDS)()
        self._tag_bytes = ctypes.c_size_t(tag_bytes)
        self._tag = ctypes.create_string_buffer(tag_bytes)
        nettle[f"{start}set_key"](self._context, key)

    def __call__(self, sequence: int, packet: bytes) -> bytes:
        self._set_nonce(self._context, ctypes.c_size_t(8), _U64.pack(sequence))
        self._update(self._context, ctypes.c_size_t(len(packet)), packet)
        self._digest(self._context, self._tag_bytes, self._tag)
        return self._tag.raw


def _hmac(digest: str) -> Callable[[bytes], Tag]:
    return lambda key: lambda sequence, packet: hmac.digest(key, _U32.pack(sequence) + packet, digest)


def umacs(library: str = LIBRARY) -> dict[str, Mac]:
    """What Nettle has; nothing where it is not there."""
    try:
        nettle = ctypes.CDLL(library)
        for size in (8, 16):
            _Umac(nettle, size, bytes(_UMAC_KEY_BYTES))
    except (OSError, AttributeError):
        return {}

    def row(tag_bytes: int, of_ciphertext: bool) -> Mac:
        return Mac(_UMAC_KEY_BYTES, tag_bytes, of_ciphertext, lambda key: _Umac(nettle, tag_bytes, key))

    return {
        "umac-64-etm@openssh.com": row(8, True),
        "umac-128-etm@openssh.com": row(16, True),
        "umac-64@openssh.com": row(8, False),
        "umac-128@openssh.com": row(16, False),
    }


MACS: Final[dict[str, Mac]] = {
    "hmac-sha2-256-etm@openssh.com": Mac(32, 32, True, _hmac("sha256")),
    "hmac-sha2-512-etm@openssh.com": Mac(64, 64, True, _hmac("sha512")),
    "hmac-sha1-etm@openssh.com": Mac(20, 20, True, _hmac("sha1")),
    "hmac-sha2-256": Mac(32, 32, False, _hmac("sha256")),
    "hmac-sha2-512": Mac(64, 64, False, _hmac("sha512")),
    "hmac-sha1": Mac(20, 20, False, _hmac("sha1")),
} | umacs()


def lacks_umac() -> bool:
    """Whether a prober who insists on UMAC learns that this is no sshd."""
    return "umac-64-etm@openssh.com" not in MACS
