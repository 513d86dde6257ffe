"""What a prober may send to a name server: messages by name. And a real one (BIND) to send them to."""

from __future__ import annotations

import base64
import random
import shutil
import socket
import subprocess
import time
from pathlib import Path
from struct import pack

import dns.edns
import dns.message
import dns.update

ID = 0x1234
RECORD_TYPES = (
    "A",
    "NS",
    "SOA",
    "MX",
    "TXT",
    "AAAA",
    "CNAME",
    "DS",
    "DNSKEY",
    "NSEC",
    "RRSIG",
    "NSEC3",
    "SRV",
    "AXFR",
    "ANY",
)


def question(name: str, kind: str = "A", **more: object) -> bytes:
    """A query as dnspython writes it."""
    made = dns.message.make_query(name, kind, **more)  # type: ignore[arg-type]
    made.id = ID
    return made.to_wire()


def head(flags: int, *counts: int) -> bytes:
    """The header of a message."""
    return pack("!6H", ID, flags, *counts)


def signed(
    base: bytes,
    name: bytes,
    *,
    algorithm: bytes = b"\x0bhmac-sha256\0",
    mac: bytes = b"m" * 32,
    rdclass: int = 255,
    ttl: int = 0,
    fudge: int = 300,
    original: int = ID,
    error: int = 0,
    other: bytes = b"",
    at: int | None = None,
    tail: bytes = b"",
) -> bytes:
    """A message with a TSIG that is wrong in a chosen way."""
    now = int(time.time()) if at is None else at
    data = algorithm + pack("!HIHH", now >> 32, now & 0xFFFFFFFF, fudge, len(mac)) + mac
    data += pack("!HHH", original, error, len(other)) + other + tail
    count = int.from_bytes(base[10:12], "big") + 1
    return base[:10] + pack("!H", count) + base[12:] + name + pack("!HHIH", 250, rdclass, ttl, len(data)) + data


def tables(origin: str, names: list[str], key: bytes) -> dict[str, bytes]:
    """All probes of a zone with these names; ``key`` is the wire form of a TSIG key's name that the server knows."""
    probes: dict[str, bytes] = {}
    soa = question(origin, "SOA")
    bare, opt = soa[12:], b"\0\0\x29\x04\xd0\0\0\0\0"
    for name in [
        origin,
        *names,
        f"absent.{origin}",
        f"0.{origin}",
        f"x.y.{origin}",
        f"x.{names[0]}",
        "example.com",
        ".",
    ]:
        for kind in RECORD_TYPES:
            probes[f"{name}/{kind}"] = question(name, kind)
            probes[f"{name}/{kind}/do"] = question(name, kind, want_dnssec=True)
    for name in (
        "version.bind",
        "x.version.bind",
        "id.server",
        "hostname.bind",
        "authors.bind",
        "VERSION.BIND",
        "bind",
    ):
        for kind in ("TXT", "SOA", "NS", "ANY", "A", "AXFR", "RRSIG"):
            probes[f"CH {name}/{kind}"] = question(name, kind, rdclass="CH")
            probes[f"CH {name}/{kind}/do"] = question(name, kind, rdclass="CH", want_dnssec=True)
    for opcode in range(16):
        flags = opcode << 11 | 0x110
        for label, counts, rest in (
            ("bare", (0, 0, 0, 0), b""),
            ("one", (1, 0, 0, 0), bare),
            ("two", (2, 0, 0, 0), bare + bare),
            ("cut", (1, 0, 0, 0), bare[:-1]),
            ("counted", (1, 0, 0, 9), bare),
            ("answers", (1, 65_535, 65_535, 65_535), bare),
            ("opt", (1, 0, 0, 1), bare + opt + b"\0\0"),
            ("opt alone", (0, 0, 0, 1), opt + b"\0\0"),
            ("two opts", (1, 0, 0, 2), bare + (opt + b"\0\0") * 2),
            ("version 1", (1, 0, 0, 1), bare + opt[:6] + b"\1" + opt[7:] + b"\0\0"),
            ("flags", (1, 0, 0, 1), bare + opt[:7] + b"\xff\xff\0\0"),
            ("foreign", (1, 0, 0, 0), question("example.com", "SOA")[12:]),
            ("below", (1, 0, 0, 0), question(names[0], "SOA")[12:]),
            ("A", (1, 0, 0, 0), question(origin)[12:]),
            ("record", (1, 1, 0, 0), bare + b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4abcd"),
            ("record cut", (1, 1, 0, 0), bare + b"\xc0\x0c\0\1\0\1\0\0\0\1\0\3abc"),
            ("behind", (1, 0, 0, 0), bare + b"x"),
        ):
            wire = head(flags, *counts) + rest
            probes[f"opcode {opcode} {label}"] = wire
            if label in ("one", "foreign", "A", "bare"):
                probes[f"opcode {opcode} {label} signed"] = signed(wire, key)
    for rdclass in (0, 2, 3, 4, 5, 7, 253, 254, 255, 256, 65_535):
        for opcode in (0, 1, 4, 5):
            wire = head(opcode << 11, 1, 0, 0, 0) + bare[:-2] + pack("!H", rdclass)
            probes[f"class {rdclass} opcode {opcode}"] = wire
            probes[f"class {rdclass} opcode {opcode} signed"] = signed(wire, key)
    for kind in [*range(270), 65_280]:
        probes[f"type {kind}"] = head(0x100, 1, 0, 0, 0) + bare[:-4] + pack("!HH", kind, 1)
    for code in [*range(3, 18), 65_001]:
        for value in (
            b"",
            b"\1",
            b"abcdefg",
            b"abcdefgh",
            b"\0\1\x20\0\1\2\3\4",
            b"\0\1\x18\0\1\2\3",
            b"a" * 40,
            b"a" * 41,
        ):
            option = [dns.edns.GenericOption(code, value)]
            for name in (origin, "example.com"):
                probes[f"option {code} {value!r} {name}"] = question(name, "SOA", use_edns=0, options=option)
    _signatures(probes, origin, key)
    _names(probes)
    _questions(probes, origin, names[0], key)
    _changed(probes, origin, key)
    return probes


def _signatures(probes: dict[str, bytes], origin: str, key: bytes) -> None:
    """TSIGs of all kinds on a transfer and on an update."""
    update = dns.update.UpdateMessage(origin)
    update.add("a", 300, "A", "10.0.0.1")
    update.id = ID
    ways: dict[str, dict[str, object]] = {
        f"mac {size}": {"mac": b"m" * size} for size in (0, 1, 9, 10, 15, 16, 31, 33, 64)
    }
    ways |= {
        "plain": {},
        "class": {"rdclass": 1},
        "ttl": {"ttl": 5},
        "original": {"original": 7},
        "error": {"error": 16},
        "other": {"other": b"abcdef"},
        "tail": {"tail": b"x"},
        "early": {"at": 0},
        "pointer": {"algorithm": b"\xc0\x0c"},
        "upper": {"algorithm": b"\x0bHMAC-SHA256\0"},
        "algorithm": {"algorithm": b"\3Foo\0"},
        "sha1": {"algorithm": b"\x09hmac-sha1\0", "mac": b"m" * 20},
        "md5": {"algorithm": b"\x08hmac-md5\x07sig-alg\x03reg\x03int\0", "mac": b"m" * 16},
        "gss": {"algorithm": b"\x08gss-tsig\0"},
    }
    for label, base in (("transfer", question(origin, "AXFR")), ("update", update.to_wire())):
        probes[f"{label} unsigned"] = base
        for way, more in ways.items():
            for whose, name in (
                ("known", key),
                ("upper", key.upper()),
                ("unknown", b"\3aBc\0"),
                ("pointed", b"\xc0\x0c"),
            ):
                probes[f"{label} {way} {whose}"] = signed(base, name, **more)  # type: ignore[arg-type]


def _names(probes: dict[str, bytes]) -> None:
    """Names that are none, and what is no question at all."""
    for label, name in (
        ("itself", b"\xc0\x0c"),
        ("forward", b"\xc0\x20"),
        ("kind", b"\x41a\0"),
        ("long", (b"\x3f" + b"a" * 63) * 4 + b"\0"),
        ("deep", b"\x01a" * 128 + b"\0"),
        ("deepest", b"\x01a" * 127 + b"\0"),
        ("open", b"\x05abc"),
    ):
        probes[f"name {label}"] = head(0x100, 1, 0, 0, 0) + name + b"\0\1\0\1"
    probes["an answer"] = head(0x8180, 1, 0, 0, 0) + b"\0\0\1\0\1"
    for size in (0, 1, 2, 11):
        probes[f"{size} bytes"] = bytes(size)


def _questions(probes: dict[str, bytes], origin: str, below: str, key: bytes) -> None:
    """Several questions: of one name or of two, of one class or of two, alike or not, whole or not."""
    apex, upper = question(origin)[12:-4], question(origin.upper())[12:-4]
    soa, rrsig, chaos = b"\0\6\0\1", b"\0\x2e\0\1", b"\0\1\0\3"
    ways = {
        "two types": (apex + soa, b"\xc0\x0c" + rrsig),
        "other first": (apex + rrsig, b"\xc0\x0c" + soa),
        "three types": (apex + soa, b"\xc0\x0c" + rrsig, apex + b"\0\1\0\1"),
        "twice": (apex + soa, apex + soa),
        "two and one again": (apex + soa, apex + rrsig, apex + soa),
        "two names": (apex + soa, question(below, "SOA")[12:]),
        "two types and a name": (apex + soa, apex + rrsig, question(below, "SOA")[12:]),
        "two letters": (apex + soa, upper + rrsig),
        "two classes": (apex + soa, apex + chaos),
        "two types and a class": (apex + soa, apex + rrsig, apex + chaos),
        "chaos": (apex + b"\0\6\0\3", apex + chaos),
        "no class": (apex + soa, apex + b"\0\1\0\xfe"),
        "no class twice": (apex + b"\0\6\0\xff", apex + b"\0\1\0\xff"),
        "cut": (apex + soa, apex + b"\0\1\0"),
        "cut name": (apex + soa, apex[:-2]),
        "transfer": (apex + soa, apex + b"\0\xfc\0\1"),
        "transfer first": (apex + b"\0\xfc\0\1", apex + soa),
        "TKEY": (apex + soa, apex + b"\0\xf9\0\1"),
        "elsewhere": (question("example.com", "SOA")[12:], b"\xc0\x0c" + rrsig),
    }
    for count in (80, 81, 300):  # around what fits into an answer over UDP
        ways[f"{count} types"] = (apex + soa, *(b"\xc0\x0c" + pack("!HH", kind, 1) for kind in range(300, 299 + count)))
    for opcode in (0, 1, 4, 5, 6):
        for label, said in ways.items():
            for more in (0, 3):
                wire = head(opcode << 11 | 0x100, len(said) + more, 0, 0, 0) + b"".join(said)
                probes[f"questions {opcode} {label} {more}"] = wire
                if not more:
                    probes[f"questions {opcode} {label} signed"] = signed(wire, key)
                    opt = b"\0\0\x29\x04\xd0\0\0\x80\0\0\0"
                    probes[f"questions {opcode} {label} opt"] = wire[:10] + b"\0\1" + wire[12:] + opt


def _changed(probes: dict[str, bytes], origin: str, key: bytes) -> None:
    """Messages cut everywhere; with bits of their header and question changed; random ones."""
    rng = random.Random(4)
    whole = [
        question(origin, "SOA", want_dnssec=True, options=[dns.edns.GenericOption(10, b"abcdefgh")]),
        signed(question(origin, "AXFR"), key),
    ]
    for number, wire in enumerate(whole):
        for size in range(len(wire)):
            probes[f"cut {number} {size}"] = wire[:size]
        for bit in range(16, 8 * len(wire), 3):
            changed = bytearray(wire)
            changed[bit // 8] ^= 1 << bit % 8
            probes[f"bit {number} {bit}"] = bytes(changed)
    for number in range(300):
        wire = rng.randbytes(rng.choice((12, 20, 40, 100, 500, 4_000, 16_000)))
        probes[f"random {number}"] = head(0, 0, 0, 0, 0)[:2] + bytes((wire[2] & 0x7F,)) + wire[3:]


class Named:
    """A real BIND with one zone, on a free port of loopback, until ``end``."""

    def __init__(self, folder: Path, origin: str, zone: str, key: str, more: str = "") -> None:
        """``zone``: text of its file; ``key``: the name of a TSIG key that may transfer and update; ``more``: about the zone."""
        folder.mkdir(mode=0o755)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (folder / "zone").write_text(zone)
        self.secret = random.SystemRandom().randbytes(32)
        secret = base64.b64encode(self.secret).decode()
        (folder / "named.conf").write_text(
            f'key "{key}" {{ algorithm hmac-sha256; secret "{secret}"; }};\ncontrols {{ }};\n'
            f'options {{ directory "{folder}"; pid-file "pid"; session-keyfile "session"; dnssec-validation no;\n'
            f"  listen-on port {self.port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; recursion no; notify no;\n"
            f'  version none; hostname none; minimal-responses yes; allow-transfer {{ key "{key}"; }}; }};\n'
            f'zone "{origin}" {{ type primary; file "zone"; allow-update {{ key "{key}"; }}; {more} }};\n'
        )
        command = [shutil.which("named", path="/usr/sbin:/usr/bin:/sbin:/bin") or "named", "-g", "-c", "named.conf"]
        self._log = (folder / "log").open("wb")
        self._process = subprocess.Popen(command, cwd=folder, stderr=self._log)
        for _ in range(200):
            if b"running" in (folder / "log").read_bytes():
                return
            time.sleep(0.1)
        raise RuntimeError((folder / "log").read_text())

    def end(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.wait(20)
        self._log.close()
