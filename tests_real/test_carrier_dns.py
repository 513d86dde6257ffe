"""Carrier dns beside the real BIND 9.18, and before tools that know DNS. Fails without them: nothing is passed by.

apt install bind9 bind9-dnsutils knot-dnsutils nmap tshark
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import dns.dnssec
import dns.message
import dns.name
import dns.query
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import pytest

from carriers import Wire
from dns_probes import Named, question, tables
from obscura.daemon.config import Config
from obscura.daemon.dns_cover import parse_zone, sign_key, signed
from obscura.daemon.node import Node
from obscura.errors import Unreachable
from obscura.morph.carrier import Finished, Ready
from obscura.morph.dns import UPDATE_FLAGS, DnsClient
from obscura.morph.dns_message import (
    HEADER,
    IN,
    NOTIFY,
    QUERY,
    QUESTION_TAIL,
    RRSIG,
    SOA,
    UPDATE,
    Message,
    name_of,
    text_of,
)
from obscura.morph.dns_names import tsig_key, zone_text
from obscura.morph.dns_payload import SIGNATURE, Payload, style_of
from obscura.morph.dns_reading import read
from obscura.morph.dns_tsig import Key, sign
from obscura.morph.dns_zone import Zone
from obscura.wire.address import Address

ORIGIN = "officenet.example"
KEY = bytes(range(32))


def master_file(zone: Zone) -> str:
    """A zone as a file, each record followed by its signature: the order in which BIND keeps them."""
    lines = []
    for node in zone.ordered():
        for kind, rrset in node.items():
            for rdtype, data in [*((kind, one) for one in rrset.data), *((46, one) for one in rrset.signatures)]:
                rdata = dns.rdata.from_wire(dns.rdataclass.IN, dns.rdatatype.RdataType(rdtype), data, 0, len(data))
                lines.append(
                    f"{text_of(rrset.name)}. {rrset.ttl} IN {dns.rdatatype.to_text(rdata.rdtype)} {rdata.to_text()}"
                )
    return "\n".join(lines) + "\n"


class Beside:
    """A node's listener in a process of its own, and a BIND with the same zone."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o755)
        zone = parse_zone(zone_text(b"seed", ORIGIN, 2_026_010_101), ORIGIN)
        self.zone = signed(zone, sign_key(folder / "key.pem"), int(time.time()))
        text = master_file(self.zone)
        (folder / "zone").write_text(text)
        command = [sys.executable, "-m", "obscura.cli", "--network", "dev", "--data-dir", str(folder / "node"), "run"]
        command += ["--json", "--set", f"cover.zone={folder / 'zone'}", "--set", "max-outbound=0"]
        command += ["--listen", f"127.0.0.1:0?carrier=dns&name={ORIGIN}"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.address = Address.parse(json.loads(self.process.stdout.readline())["addresses"][0])
        assert self.address.key is not None
        self.key = tsig_key(self.address.key).name
        self.named = Named(folder / "named", ORIGIN, text, text_of(self.key))
        self.ports = self.address.port, self.named.port

    def end(self) -> None:
        self.named.end()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) == 0


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beside]:
    made = Beside(tmp_path_factory.mktemp("dns"))
    yield made
    made.end()


def ask(port: int, wire: bytes, size: int | None = None) -> tuple[str, bytes]:
    """One message over TCP, and then no more: how the connection ends, and what came. ``size``: of it, where more follow."""
    out = b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        try:
            sock.sendall((len(wire) if size is None else size).to_bytes(2, "big") + wire)
            sock.shutdown(socket.SHUT_WR)
            while data := sock.recv(65_536):
                out += data
        except OSError:
            return "reset", out
    return "end", out


def datagram(port: int, wire: bytes) -> bytes:
    """One message over UDP; b"" for no answer in a second, asked three times."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", port))
        sock.settimeout(1)
        for _ in range(3):
            sock.send(wire)
            try:
                return sock.recv(65_536)
            except TimeoutError:
                continue
    return b""


def masked(wire: bytes) -> bytes:
    """Without the 12 bytes of a server's cookie that differ, and without the time."""
    wire = re.sub(rb"(\x00\x0a\x00\x18.{8}\x01\x00\x00\x00).{12}", rb"\1" + b"c" * 12, wire, flags=re.DOTALL)
    now = int(time.time())
    for second in range(now - 60, now + 3):
        wire = wire.replace(second.to_bytes(4, "big"), b"time")
    return wire


def test_probes_are_answered_as_by_bind_byte_for_byte(beside: Beside) -> None:
    names = [text_of(name) for name in beside.zone.nodes if name != beside.zone.origin]
    probes = tables(ORIGIN, names[:6], beside.key)
    assert len(probes) > 2_000
    differ = {}
    for name, wire in probes.items():
        ours, real = (ask(port, wire) for port in beside.ports)
        if (ours[0], masked(ours[1])) != (real[0], masked(real[1])):
            differ[name] = wire.hex(), ours, real
    unknown = {name for name in differ if not name.startswith("random")}
    assert not unknown, "\n".join(f"{name}: {differ[name]}" for name in sorted(unknown)[:20])
    assert len(differ) <= 3, differ  # random bytes that make a record of a type with a form of its own


def test_much_at_once_is_answered_as_by_bind_to_the_last_word(beside: Beside) -> None:
    """More than is looked at in one turn, and then the end of the own side: everything is answered, in order."""
    asked = name_of(ORIGIN) + QUESTION_TAIL.pack(SOA, IN)
    small = b"\0" + struct.pack("!HHIH", 9_999, 1, 0, 0)
    count = (0xFFFF - HEADER.size - len(asked)) // len(small)
    large = [HEADER.pack(7, op << 11, 1, 0, count, 0) + asked + small * count for op in (QUERY, NOTIFY, UPDATE)]
    queries = [HEADER.pack(number, 0, 1, 0, 0, 0) + asked for number in range(1_000)]
    for wires in (queries, large, [*large, *queries[:20], *large]):
        sent = b"".join(len(wire).to_bytes(2, "big") + wire for wire in wires)
        ours, real = (ask(port, sent[2:], len(wires[0])) for port in beside.ports)
        assert ours == real
        assert ours[0] == "end"
    wire = HEADER.pack(7, UPDATE << 11, 1, 0, 5_000, 0) + asked + small * 5_000
    ours_by_udp, real_by_udp = (datagram(port, wire) for port in beside.ports)
    assert ours_by_udp == real_by_udp != b""


def told_apart(beside: Beside, wire: bytes, hidden: set[int]) -> dict[tuple[int, int], object]:
    """By byte and bit, what is answered otherwise than by BIND if that bit is changed; bytes that are ``hidden`` are not."""
    differ = {}
    for at in (at for at in range(len(wire)) if at not in hidden):
        for bit in range(8):
            flipped = wire[:at] + bytes([wire[at] ^ 1 << bit]) + wire[at + 1 :]
            ours, real = (ask(port, flipped) for port in beside.ports)
            if (ours[0], masked(ours[1])) != (real[0], masked(real[1])):
                differ[at, bit] = ours, real
    return differ


def test_each_bit_of_a_links_first_query_counts_as_much_as_to_bind(beside: Beside) -> None:
    client = DnsClient(random.Random(1), name_of(ORIGIN), Key(beside.key, b"wrong"), KEY)
    client.start(0.0)
    assert not told_apart(beside, client.take()[0][2:], set())


def test_each_bit_of_an_update_counts_as_much_as_to_bind(beside: Beside) -> None:
    """A signed update as a link sends it, with every bit changed that is no signature's: in all records, of every length."""
    rng = random.Random(1)
    style = style_of(beside.zone.soa.signatures[0])
    head = HEADER.pack(0x1234, UPDATE_FLAGS, 1, 0, 0, 0) + name_of(ORIGIN) + QUESTION_TAIL.pack(SOA, IN)
    for size in (100, 600, 1_000):
        records, count = Payload(name_of(ORIGIN), style, rng).update(rng.randbytes(size), 0)
        bare = head[:8] + count.to_bytes(2, "big") + head[10:] + records
        wire = sign(bare, Key(beside.key, b"wrong"), int(time.time()))[0]
        message = Message.begun(wire)
        read(message)
        hidden = {at for one in message.authority if one.type == RRSIG for at in range(one.end - SIGNATURE, one.end)}
        assert len(wire) - len(hidden) > 150
        assert not told_apart(beside, wire, hidden)


def test_after_each_kind_of_message_rubbish_ends_a_connection_alike(beside: Beside) -> None:
    """BIND resets, but closes where it does not read: behind anything but queries, if more had come with it."""
    zone, apex = name_of(ORIGIN), QUESTION_TAIL.pack(SOA, IN)
    cookieless = b"\0\0\x29\x04\xd0\0\0\0\0\0\4\0\x0a\0\0"
    said = {
        f"opcode {opcode}, {label}": HEADER.pack(7, opcode << 11, *counts) + rest
        for opcode in range(16)
        for label, counts, rest in (
            ("one", (1, 0, 0, 0), zone + apex),
            ("none", (0, 0, 0, 0), b""),
            ("cut", (1, 0, 0, 0), zone + apex[:-1]),
            ("version 1", (1, 0, 0, 1), zone + apex + cookieless[:6] + b"\1\0\0\0\0"),
            ("a wrong option", (1, 0, 0, 1), zone + apex + cookieless),
        )
    }
    said["signed query"] = sign(said["opcode 0, one"], Key(beside.key, b"wrong"), int(time.time()))[0]
    said["signed update"] = sign(said["opcode 5, one"], Key(beside.key, b"wrong"), int(time.time()))[0]

    def ends(port: int, wire: bytes, pause_s: float) -> tuple[str, bytes]:
        wire = len(wire).to_bytes(2, "big") + wire
        rubbish = b"\0\2ab"
        out = b""
        with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
            sock.sendall(wire if pause_s else wire + rubbish)
            if pause_s:
                time.sleep(pause_s)
                with contextlib.suppress(OSError):  # it is over already
                    sock.sendall(rubbish)
            try:
                while data := sock.recv(65_536):
                    out += data
            except ConnectionResetError:
                return "reset", masked(out)
        return "closed", masked(out)

    differ = {}
    for name, wire in said.items():
        for pause_s in (0.0, 0.05):
            found = [ends(port, wire, pause_s) for port in beside.ports]
            if found[0] != found[1]:
                differ[name, pause_s] = found
    assert not differ


def test_datagrams_are_answered_as_by_bind(beside: Beside) -> None:
    names = [text_of(name) for name in beside.zone.nodes if name != beside.zone.origin]
    probes = tables(ORIGIN, names[:2], beside.key)
    chosen = {
        name: wire for name, wire in probes.items() if name[:4] in (ORIGIN[:4], "CH v", "opti", "abse", "tran", "ques")
    }
    chosen |= {name: wire for name, wire in probes.items() if name in ("2 bytes", "an answer")}
    differ = {}
    for name, wire in chosen.items():
        ours, real = (masked(datagram(port, wire)) for port in beside.ports)
        if ours != real:
            differ[name] = ours, real
    assert not differ


def test_idle_half_sent_and_trickling_connections_end_alike(beside: Beside) -> None:
    asked = question(ORIGIN, "SOA")
    asked = len(asked).to_bytes(2, "big") + asked

    def close(port: int, first: bytes, trickle: bytes, ends: bool) -> tuple[str, int, int]:
        with socket.create_connection(("127.0.0.1", port)) as sock:
            began, count, sent = time.monotonic(), 0, 0
            sock.sendall(first)
            if ends:
                sock.shutdown(socket.SHUT_WR)
            while time.monotonic() - began < 60:
                sock.settimeout(3)
                try:
                    data = sock.recv(65_536)
                    if not data:
                        return "end", round((time.monotonic() - began) / 5), count
                    count += len(data)
                except TimeoutError:
                    sock.sendall(trickle[sent : sent + 1])
                    sent += 1
                except OSError:
                    return "reset", round((time.monotonic() - began) / 5), count
        return "open", 0, count

    ways = {
        "idle": (b"", b"", False),
        "half": (asked[:20], b"", False),
        "asked": (asked, b"", False),
        "asked and half": (asked * 3 + asked[:9], b"", False),
        "trickle": (b"", asked, False),
        "trickle behind": (asked, asked, False),
        "ended": (b"", b"", True),
        "asked and ended": (asked * 20, b"", True),
        "half and ended": (asked[:20], b"", True),
        "rubbish": (asked * 2 + b"\0\2ab" + asked, b"", False),
    }
    results: dict[tuple[str, int], object] = {}

    def run(name: str, which: int) -> None:
        results[name, which] = close(beside.ports[which], *ways[name])

    threads = [threading.Thread(target=run, args=(name, which)) for name in ways for which in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in ways:
        assert results[name, 0] == results[name, 1], name


@pytest.mark.parametrize(
    "command",
    [
        "dig +tcp @127.0.0.1 -p PORT ORIGIN SOA",
        "dig @127.0.0.1 -p PORT ORIGIN MX +dnssec",
        "dig @127.0.0.1 -p PORT ORIGIN NS +nssearch",
        "dig @127.0.0.1 -p PORT absent.ORIGIN +dnssec +multiline",
        "dig @127.0.0.1 -p PORT example.com",
        "dig @127.0.0.1 -p PORT ORIGIN AXFR",
        "dig @127.0.0.1 -p PORT -y hmac-sha256:KEYNAME:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA ORIGIN AXFR",
        "dig @127.0.0.1 -p PORT -y hmac-sha256:other:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA ORIGIN AXFR",
        "dig @127.0.0.1 -p PORT version.bind TXT CH",
        "dig @127.0.0.1 -p PORT ORIGIN ANY +nocookie",
        "dig +tcp @127.0.0.1 -p PORT +keepopen ORIGIN A ORIGIN MX ORIGIN TXT",
        "kdig +tcp @127.0.0.1 -p PORT ORIGIN DNSKEY +dnssec",
        "kdig @127.0.0.1 -p PORT ORIGIN AXFR",
        "nmap -Pn -sV --version-all -p PORT 127.0.0.1",
    ],
)
def test_known_programs_say_the_same_of_both(beside: Beside, command: str) -> None:
    said = []
    for port in beside.ports:
        text = command.replace("PORT", str(port)).replace("ORIGIN", ORIGIN).replace("KEYNAME", text_of(beside.key))
        done = subprocess.run(text.split(), capture_output=True, text=True, timeout=200, check=False)
        shown = re.sub(rf"\b{port}\b", "PORT", done.stdout + done.stderr)
        shown = re.sub(r"COOKIE: [0-9a-f]+", "COOKIE", shown)
        shown = re.sub(
            r"(?m)^;; (Query time|Time|WHEN|From|Received).*$|id: \d+|tsig.*\d{10}.*|in [0-9.]+ (ms|seconds).*",
            "",
            shown,
        )
        shown = re.sub(r"(?m)^(Starting Nmap|Nmap done|Host is up).*$|TSIG.*", "", shown)
        said.append((done.returncode, shown))
    assert said[0] == said[1]


def test_a_resolver_validates_the_zone(beside: Beside) -> None:
    port = beside.ports[0]
    origin = dns.name.from_text(ORIGIN)

    def look(kind: str) -> list[object]:
        return dns.query.tcp(dns.message.make_query(ORIGIN, kind, want_dnssec=True), "127.0.0.1", port=port).answer

    keys = look("DNSKEY")
    for kind in ("SOA", "NS", "MX", "TXT", "DNSKEY", "NSEC"):
        records, signatures = look(kind)
        dns.dnssec.validate(records, signatures, {origin: keys[0]})  # type: ignore[arg-type]


def test_our_client_goes_as_far_with_bind_as_any_that_lacks_the_secret(beside: Beside) -> None:
    client = DnsClient(
        random.Random(1), name_of(ORIGIN), tsig_key(beside.address.key or b""), beside.address.key or b""
    )
    with socket.create_connection(("127.0.0.1", beside.named.port), timeout=10) as sock:
        client.start(0.0)
        sock.sendall(b"".join(client.take()))
        events = client.receive(sock.recv(65_536), 0.0)
        assert isinstance(events[0], Ready)
        client.send_flight(b"f" * 300, 0.0)
        sock.sendall(b"".join(client.take()))
        answer = sock.recv(65_536)
        assert dns.message.from_wire(answer[2 : 2 + answer[1]], keyring=False, ignore_trailing=True).rcode() == 9
        assert client.receive(answer, 0.0) == [Finished()]


def test_a_bind_that_knows_the_secret_takes_our_updates(tmp_path: Path) -> None:
    """What NOERROR says to who watches a link: BIND refuses an update with a signature of any name but the zone's own."""
    tmp_path.chmod(0o755)
    named = Named(
        tmp_path / "named", ORIGIN, zone_text(b"seed", ORIGIN, 7), "k", "dnssec-policy default; inline-signing no;"
    )
    try:
        for _ in range(100):  # until it has signed the zone
            soa = ask(named.port, question(ORIGIN, "SOA", want_dnssec=True))[1]
            answer = dns.message.from_wire(soa[2:]).answer
            if len(answer) > 1:
                break
            time.sleep(0.1)
        style = style_of(next(iter(answer[1])).to_wire() or b"")
        key, rng = Key(name_of("k"), named.secret), random.Random(1)
        for size in (300, 5_000, Payload(name_of(ORIGIN), style, rng).room):
            records, count = Payload(name_of(ORIGIN), style, rng).update(rng.randbytes(size), 0)
            head = HEADER.pack(7, UPDATE_FLAGS, 1, 0, count, 0) + name_of(ORIGIN) + QUESTION_TAIL.pack(SOA, IN)
            said = ask(named.port, sign(head + records, key, int(time.time()))[0])[1]
            assert dns.message.from_wire(said[2:], keyring=False).rcode() == 0
    finally:
        named.end()


def test_a_node_does_not_take_bind_for_a_peer_and_links_to_the_node_beside_it(beside: Beside, tmp_path: Path) -> None:
    place = beside.address

    async def go() -> None:
        async with Node(Config(network="dev", data_dir=tmp_path, max_outbound=0, listen=())) as node:
            with pytest.raises(Unreachable):
                await node.connect(Address(place.key, "127.0.0.1", beside.named.port, place.carrier, ORIGIN))
            peer = await node.connect(place)
            assert await node.ping(peer) < 10

    asyncio.run(asyncio.wait_for(go(), 60))


# --- tshark ---------------------------------------------------------------------------------------------------------------


class Capture:
    """A TCP connection as raw IPv4 packets in a pcap file, port 53."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 101))
        self._next = {True: 1_000, False: 5_000}
        self._at = 0

    def write(self, from_client: bool, data: bytes, flags: int = 0x18) -> None:
        for start in range(0, max(1, len(data)), 1_400):
            piece = data[start : start + 1_400]
            ports = (40_000, 53) if from_client else (53, 40_000)
            tcp = struct.pack(
                "!HHIIBBHHH", *ports, self._next[from_client], self._next[not from_client], 0x50, flags, 65_535, 0, 0
            )
            ends = (b"\x0a\0\0\1", b"\x0a\0\0\2") if from_client else (b"\x0a\0\0\2", b"\x0a\0\0\1")
            ip = struct.pack("!BBHHHBBH", 0x45, 0, 40 + len(piece), 0, 0x4000, 64, 6, 0) + ends[0] + ends[1]
            packet = ip + tcp + piece
            self._at += 1
            self._file.write(struct.pack("<IIII", 1, self._at, len(packet), len(packet)) + packet)
            self._next[from_client] += len(piece) + (flags == 2 or flags == 0x12)

    def close(self) -> None:
        self._file.close()


def tshark(path: Path, *more: str) -> list[list[str]]:
    command = ["tshark", "-2", "-r", str(path), "-o", "tcp.analyze_sequence_numbers:FALSE", *more]
    return [
        line.split("\t")
        for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    ]


def test_tshark_pairs_everything_and_finds_nothing_wrong(tmp_path: Path) -> None:
    from carriers import MAKERS

    rng = random.Random(2)
    capture = Capture(tmp_path / "session.pcap")
    capture.write(True, b"", 2)
    capture.write(False, b"", 0x12)
    capture.write(True, b"", 0x10)
    wire = Wire(MAKERS["dns"])
    for turn in range(40):
        if wire.client.is_open:
            wire.client.carrier.send(rng.randbytes(rng.choice((24, 400, 1_400, 60_000))), wire.now)
            wire.server.carrier.send(rng.randbytes(rng.choice((24, 400, 1_400, 60_000))), wire.now)
        if turn == 39:
            wire.now = wire.server.carrier.deadline()
            wire.due(wire.server)
        for end in (wire.client, wire.server) * 3:
            before = len(wire.tapped[end.client])
            wire.collect(end)
            if new := bytes(wire.tapped[end.client][before:]):
                capture.write(end.client, new)
            while wire.deliver(wire.other(end)):
                pass
            wire.due(end)
    capture.close()
    path = tmp_path / "session.pcap"
    assert len(wire.server.data) > 100_000
    warned = tshark(path, "-Y", "_ws.expert.severity >= 6291456", "-T", "fields", "-e", "_ws.expert.message")
    assert {text for line in warned for text in ",".join(line).split(",")} <= {"No dissector for algorithm:hmac-sha256"}
    assert tshark(path, "-Y", "_ws.malformed", "-T", "fields", "-e", "frame.number") == []
    shown = tshark(path, "-Y", "dns", "-T", "json", "--no-duplicate-keys", "-J", "dns")
    layers = json.loads("".join("\t".join(line) for line in shown))
    messages: list[dict[str, object]] = []
    for frame in layers:
        found = frame["_source"]["layers"]["dns"]
        messages += found if isinstance(found, list) else [found]
    answers = [one for one in messages if one["dns.flags_tree"]["dns.flags.response"] in ("1", True)]  # type: ignore[index]
    requests = [one for one in messages if one not in answers]
    assert len(requests) >= 40
    assert all("dns.response_in" in one for one in requests)
    assert all("dns.response_to" in one for one in answers)
