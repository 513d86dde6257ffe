"""What strangers send before there are keys, and what sshd answers: one table for the tests and for the real sshd."""

from __future__ import annotations

import random

from obscura.morph.ssh_auth import none_request
from obscura.morph.ssh_names import CLIENT_PROPOSAL
from obscura.morph.ssh_packet import PacketWriter, mpint, string, u32


def packet(payload: bytes) -> bytes:
    """A packet in the clear."""
    return PacketWriter(random.Random(1)).packet(payload)


def kexinit(**lists: str) -> bytes:
    """A client's KEXINIT with some lists replaced."""
    replaced = {name: value.split(",") for name, value in lists.items()}
    return packet(CLIENT_PROPOSAL._replace(**replaced).encode(bytes(16)))


HELLO = b"SSH-2.0-x\r\n"
INVALID = b"Invalid SSH identification string.\r\n"
GEX = "diffie-hellman-group-exchange-sha256"


def unknown(sequence: int) -> bytes:
    """UNIMPLEMENTED."""
    return packet(b"\x03" + u32(sequence))


def bye(text: str) -> bytes:
    """DISCONNECT."""
    return packet(b"\x01" + u32(2) + string(text) + string(""))


# Bytes of a stranger -> what follows sshd's KEXINIT, and how it ends: None = it waits for more, False = it closes, True = with a
# reset. As the real sshd answered; ``make carriers`` asks it again.
PROBES: list[tuple[str, bytes, bytes, bool | None]] = [
    ("http", b"GET / HTTP/1.0\r\n\r\n", INVALID, True),
    ("an empty line", b"\r\n", INVALID, False),
    ("a nul", b"SSH-2.0-x\0\r\n", INVALID, True),
    ("a return inside", b"SSH-2.0-x\ry\r\n", INVALID, True),
    ("too long", b"A" * 9_000, INVALID, True),
    ("just too long", b"A" * 8_193, INVALID, False),
    ("just not too long", b"A" * 8_192, b"", None),
    ("no software", b"SSH-2.0\r\n", INVALID, False),
    ("no number", b"SSH-x-y\r\n", INVALID, False),
    ("version 1", b"SSH-1.5-x\r\n", b"Protocol major versions differ.\r\n", False),
    ("version 3", b"SSH-3.0-x\r\n", b"Protocol major versions differ.\r\n", False),
    ("version 1.99", b"SSH-1.99-x\r\n", b"", None),
    ("only a line feed", b"SSH-2.0-x y\n", b"", None),
    ("half a line", b"SSH-2.0-", b"", None),
    ("a large length and half a block", HELLO + b"\xff" * 7, b"", None),
    ("a large length", HELLO + b"\xff" * 40, b"", False),
    ("a large length and more", HELLO + b"\xff" * 9_000, b"", True),
    ("no length", HELLO + bytes(40), b"", False),
    ("no multiple", HELLO + u32(13) + b"\5\2" + bytes(60), b"", False),
    ("little padding", HELLO + u32(12) + b"\3\2" + bytes(60), bye("Corrupted padlen 3 on input."), False),
    ("only padding", HELLO + u32(12) + b"\x0b\2" + bytes(60), b"", False),
    ("ignore and debug", HELLO + packet(b"\2" + string("x")) + packet(b"\4\0" + string("") * 2), b"", None),
    ("disconnect", HELLO + packet(b"\1" + u32(11) + string("bye") * 2), b"", False),
    ("a service at once", HELLO + packet(b"\5" + string("ssh-userauth")), unknown(0), None),
    ("a user at once", HELLO + packet(none_request("git")), b"", False),
    ("channel data at once", HELLO + packet(b"\x5e" + bytes(8)), b"", False),
    ("message 0", HELLO + packet(b"\0"), bye("Invalid ssh2 packet type: 0"), False),
    ("message 200", HELLO + packet(b"\xc8"), bye("Invalid ssh2 packet type: 200"), False),
    ("keys at once", HELLO + packet(b"\x15"), unknown(0), None),
    ("two KEXINIT", HELLO + kexinit() * 2, unknown(1), None),
    ("no common exchange", HELLO + kexinit(kex="foo"), b"", False),
    ("no common key", HELLO + kexinit(host_keys="foo"), b"", False),
    ("no common cipher", HELLO + kexinit(encryption_up="foo"), b"", False),
    ("no common compression", HELLO + kexinit(compression_down="foo"), b"", False),
    ("half a KEXINIT", HELLO + packet(b"\x14" + bytes(20)), b"", False),
    ("no point", HELLO + kexinit() + packet(b"\x1e" + string(bytes(31))), b"", False),
    ("the zero point", HELLO + kexinit() + packet(b"\x1e" + string(bytes(32))), b"", False),
    ("another step", HELLO + kexinit() + packet(b"\x22" + bytes(12)), unknown(1), None),
    ("a group of 1,024 bits", HELLO + kexinit(kex=GEX) + packet(b"\x22" + u32(512) + u32(1_024) * 2), b"", False),
    (
        "a group the wrong way round",
        HELLO + kexinit(kex=GEX) + packet(b"\x22" + u32(4_096) + u32(2_048) + u32(8_192)),
        b"",
        False,
    ),
    ("the value 1", HELLO + kexinit(kex="diffie-hellman-group14-sha256") + packet(b"\x1e" + mpint(1)), b"", False),
    (
        "a negative value",
        HELLO + kexinit(kex="diffie-hellman-group14-sha256") + packet(b"\x1e" + string(b"\xff")),
        b"",
        False,
    ),
]
