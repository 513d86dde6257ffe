"""Probes a listener and the real server configured alike, and says where their answers differ.

    python tools/probes.py --carrier http [--count 10000] [--joining] [--seed 1] [--waits]

Starts both on ports of their own, records sessions of a real dialler for the replays, and sends every probe to both. Two
answers are the same if bytes (with what is fresh each time masked) and the state of the connection (open, closed, reset) are.
What differs is asked again, patiently, up to ten times: told apart is what never was the same. --waits adds connections that
say little or nothing until the servers end them (two minutes). --joining leaves NXpsk0 on: strangers do not know the
network's id. Status 1 if a probe was accepted or told the two apart. Needs nginx for http and tls, sshd for ssh, named for
dns.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from email.utils import formatdate
from pathlib import Path
from typing import Any, NamedTuple

import dns.rdata
import dns.rdataclass
import dns.rdatatype

import dns_probes
import ssh_probes
import web_probes
from amounts import whole
from dns_probes import Named
from obscura.daemon.client import Client
from obscura.daemon.dns_cover import parse_zone, sign_key, signed
from obscura.limits import TOKEN_BYTES
from obscura.morph.dns_message import text_of
from obscura.morph.dns_names import tsig_key, zone_text
from obscura.morph.dress import Dress
from obscura.morph.visitor import HttpClient
from obscura.wire.address import Address
from probe_kinds import Probe, probes
from web_servers import Nginx, masked

ROOM = {"http": 20, "tls": 16, "ssh": 6, "dns": 16}  # connections at a time; sshd drops those that start beyond ten
QUIET_S, PATIENT_S = 0.3, 1.5
TRIES = 10
CALIBRATIONS = 3
ORIGIN = "officenet.example"  # the zone of carrier dns
MODIFIED = 1_700_000_000
FILES = {
    "index.html": b"<html>" + b"hello world " * 40,
    "page.txt": bytes(range(33, 126)) * 11,
    "folder/index.html": b"<p>x</p>",
}


class Reply(NamedTuple):
    """What came, in a form that is the same each time, and how the connection stood then."""

    said: Any
    state: str


class Pair:
    """Our listener in a process of its own, a dialler, and the real server beside it."""

    def __init__(self, carrier: str, folder: Path, *, joining: bool) -> None:
        self.carrier = carrier
        self._folder = folder
        folder.chmod(0o755)
        site = folder / "site"
        for name, body in FILES.items():
            (site / name).parent.mkdir(parents=True, exist_ok=True)
            (site / name).write_bytes(body)
        self._processes: list[subprocess.Popen[str]] = []
        words = ["--set", f"cover.site={site}", *([] if joining else ["--unlisted"])]
        for name in ("trials-per-s", "trials-per-group-per-s", "trials-per-group-burst"):
            words += ["--set", f"admission.{name}=100000"]
        place = f"127.0.0.1:0?carrier={carrier}"
        if carrier == "dns":
            place += f"&name={ORIGIN}"
            words += ["--set", f"cover.zone={self._zone()}"]
        told = self._node("listener", "--listen", place, *words)
        self.address = Address.parse(told["addresses"][0])
        self.client = Client(Path(told["rpc"]))
        self.ours = self.address.port
        self.dialler = Client(Path(self._node("dialler", "--no-listen")["rpc"]))
        self.shown: dict[str, Any] = self.client.call("listeners")[0]
        self._nginx: Nginx | None = None
        self.first_under_keys: dict[int, int] = {}
        self._named: Named | None = None
        self.theirs = {"http": self._web, "tls": self._web, "ssh": self._sshd, "dns": self._bind}[carrier]()

    def _node(self, name: str, *words: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "obscura.cli", "--network", "dev", "--data-dir", str(self._folder / name)]
        command += ["run", "--json", "--set", "max-outbound=0", "--log-level", "error", *words]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._processes.append(process)
        assert process.stdout is not None
        told: dict[str, Any] = json.loads(process.stdout.readline())
        return told

    def _web(self) -> int:
        found = re.fullmatch(r"([^;]*)(.*)", self.shown["cookie"])
        assert found is not None
        paths = frozenset(path.encode() for path in self.shown["protected"])
        is_tls = self.carrier == "tls"
        self.dress = Dress(found[1].encode(), found[2].encode(), self.shown["realm"].encode(), paths, is_tls)
        keys = self._folder / "listener" / "dev" / "keys"
        pair = (next(keys.glob("tls-*.crt")), next(keys.glob("tls-*.pem"))) if is_tls else None
        self._nginx = Nginx.like(self._folder / "nginx", self._folder / "site", self.dress, pair)
        return self._nginx.port

    def _sshd(self) -> int:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = int(server.getsockname()[1])
        Path("/run/sshd").mkdir(exist_ok=True)
        keys = self._folder / "listener" / "dev" / "keys"
        hosts = [path for path in keys.iterdir() if b"OPENSSH PRIVATE KEY" in path.read_bytes()[:100]]
        lines = [
            f"Port {port}",
            "ListenAddress 127.0.0.1",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
        ]
        lines += ["UsePAM yes", "PidFile none", *(f"HostKey {path}" for path in hosts)]
        (self._folder / "sshd_config").write_text("\n".join(lines) + "\n")
        command = ["/usr/sbin/sshd", "-D", "-f", str(self._folder / "sshd_config")]
        self._processes.append(
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
        )
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return port
            time.sleep(0.05)
        raise RuntimeError("sshd does not start")

    def _zone(self) -> Path:
        """A signed zone that both show, each record followed by its signatures, as BIND keeps them."""
        made = parse_zone(zone_text(b"probes", ORIGIN, 2_026_010_101), ORIGIN)
        self.zone = signed(made, sign_key(self._folder / "zone.pem"), int(time.time()))
        lines = []
        for node in self.zone.ordered():
            for kind, rrset in node.items():
                for rdtype, data in [*((kind, one) for one in rrset.data), *((46, one) for one in rrset.signatures)]:
                    rdata = dns.rdata.from_wire(dns.rdataclass.IN, dns.rdatatype.RdataType(rdtype), data, 0, len(data))
                    word = dns.rdatatype.to_text(rdata.rdtype)
                    lines.append(f"{text_of(rrset.name)}. {rrset.ttl} IN {word} {rdata.to_text()}")
        path = self._folder / "zone"
        path.write_text("\n".join(lines) + "\n")
        return path

    def _bind(self) -> int:
        assert self.address.key is not None
        key = text_of(tsig_key(self.address.key).name)
        self._named = Named(self._folder / "named", ORIGIN, (self._folder / "zone").read_text(), key)
        return self._named.port

    def end(self) -> None:
        """Stop all, by process id."""
        if self._named is not None:
            self._named.end()
        if self._nginx is not None:
            self._nginx.end()
        for process in reversed(self._processes):
            process.terminate()
            process.wait(30)


async def record(pair: Pair, count: int) -> list[list[bytes]]:
    """What the dialler writes in so many sessions of its own, with a few messages after the opening."""
    streams: list[list[bytes]] = []

    async def passing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", pair.ours)
        mine: list[bytes] = []
        streams.append(mine)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, notes: list[bytes] | None) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(1 << 16):
                    if notes is not None:
                        notes.append(data)
                    sink.write(data)
            sink.close()

        await asyncio.gather(pump(reader, far_writer, mine), pump(far_reader, writer, None))

    server = await asyncio.start_server(passing, "127.0.0.1", 0)
    place = Address(
        pair.address.key, "127.0.0.1", server.sockets[0].getsockname()[1], pair.address.carrier, pair.address.name
    )
    for _ in range(count):
        peer = await asyncio.to_thread(pair.dialler.call, "connect", address=str(place))
        await asyncio.to_thread(pair.dialler.call, "ping", peer=peer["peer"])
        await asyncio.to_thread(pair.dialler.call, "disconnect", peer=peer["peer"])
        await asyncio.sleep(0.1)
    server.close()
    return streams


async def calibrate(pair: Pair, stream: list[bytes]) -> None:
    """How long each server's EXT_INFO is: all that comes under keys after a client's half of an exchange."""

    async def size(port: int, pieces: int) -> int:
        data, _ = await ask(port, Probe("", "", tuple(stream[:pieces])), PATIENT_S)
        last = _ssh_told(data, 0)[-1]
        return int(last.split()[0]) if last.endswith(" under keys") else 0

    for port in (pair.ours, pair.theirs):
        half = 1  # in so many pieces
        while half < len(stream) and not await size(port, half):
            half += 1
        sizes = [await size(port, half) for _ in range(CALIBRATIONS)]  # a busy machine may show a part of it
        pair.first_under_keys[port] = max(sizes)


def said_within(pair: Pair, rng: random.Random) -> list[list[bytes]]:
    """For tls: what the dialler says inside, to each protected path, with a token of nobody."""
    if pair.carrier != "tls":
        return []
    said = []
    for path in sorted(pair.dress.paths) * 3:
        client = HttpClient(rng, b"shop.example", path, fetches=False)
        client.start(0.0)
        client.send_flight(rng.randbytes(rng.randint(*TOKEN_BYTES)), 0.0)
        said.append([b"".join(client.take())])
    return said


def table_of(pair: Pair) -> list[Probe]:
    """The table of the carrier's known tricks."""
    if pair.carrier == "ssh":
        return [Probe("table", name, (data,)) for name, data, _, _ in ssh_probes.PROBES]
    if pair.carrier == "dns":
        assert pair.address.key is not None
        names = [text_of(name) for name in pair.zone.nodes if name != pair.zone.origin]
        asked = dns_probes.tables(ORIGIN, names[:6], tsig_key(pair.address.key).name)
        return [Probe("table", name, (len(wire).to_bytes(2, "big") + wire,)) for name, wire in asked.items()]
    etag = b'"%x-%x"' % (MODIFIED, len(FILES["page.txt"]))
    known = web_probes.tables(min(pair.dress.paths), b"/page.txt", etag, formatdate(MODIFIED, usegmt=True).encode())
    asked = list(known.items())
    random.Random(9).shuffle(asked)  # there are more of them than a run has room for
    return [Probe("table", name, tuple(pieces), pair.carrier == "tls") for name, pieces in asked]


def told(pair: Pair, data: bytes, port: int, *, inside: bool) -> Any:
    """An answer without what is fresh each time."""
    if pair.carrier == "ssh":
        return _ssh_told(data, pair.first_under_keys.get(port, 0))
    if pair.carrier == "dns":
        return _dns_told(data)
    if pair.carrier == "tls" and not inside and data[:1] in (b"\x15", b"\x16"):
        return _records(data)
    return re.sub(rb"(Location: https?://[^/\r\n]*?)(:%d)?/" % port, rb"\1/", masked(data)).decode("latin-1")


def _records(data: bytes) -> list[str]:
    """Type and length of each TLS record, alerts in the clear as they are."""
    shown = []
    while len(data) >= 5:
        size = int.from_bytes(data[3:5], "big")
        shown.append(data[: 5 + size].hex() if data[0] == 0x15 and size == 2 else f"{data[:3].hex()} {size}")
        data = data[5 + size :]
    return [*shown, data.hex()] if data else shown


_LEAST_UNDER_KEYS = (
    28  # bytes of a message; what EXT_INFO is padded to differs by less with the cipher that a mutant chose
)


def _ssh_told(data: bytes, first_under_keys: int) -> list[str]:
    """Codes of the messages in the clear, with their bytes where those are not fresh; then how many bytes under keys.

    Without the first message under keys, EXT_INFO: it names the algorithms of a release, and the sshd here may be a later one.
    """
    data = data.partition(b"\r\n")[2]
    shown: list[str] = []
    while len(data) >= 6:
        size = int.from_bytes(data[:4], "big")
        if size > 35_000:
            return [*shown, data.decode("latin-1")]  # a line of text instead of a packet
        code = data[5]
        shown.append(str(code) if code in (20, 31, 33) else data[5 : 4 + size - data[4]].hex())
        data = data[4 + size :]
        if code == 21:
            if not data:
                return [*shown, "nothing under keys"]  # the client did not say that it takes EXT_INFO
            rest = len(data) - first_under_keys
            return [*shown, f"{rest if abs(rest) >= _LEAST_UNDER_KEYS else 0} under keys"]
    return [*shown, data.hex()] if data else shown


def _dns_told(data: bytes) -> str:
    """Answers without the part of a server's cookie that differs, and without the time."""
    data = re.sub(rb"(\x00\x0a\x00\x18.{8}\x01\x00\x00\x00).{12}", rb"\1" + b"c" * 12, data, flags=re.DOTALL)
    now = int(time.time())
    for second in range(now - 60, now + 3):
        data = data.replace(second.to_bytes(4, "big"), b"time")
    return data.hex()


def visitor() -> ssl.SSLContext:
    """A client that believes every certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


VISITOR = visitor()


async def ask(port: int, probe: Probe, quiet_s: float) -> tuple[bytes, str]:
    """What one server answers, and the state of the connection when nothing more came for so long."""
    data, state = bytearray(), "open"
    writer = None
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=VISITOR if probe.inside else None)
        for at, piece in enumerate(probe.pieces):
            writer.write(piece)
            await writer.drain()
            if at < len(probe.pieces) - 1:
                await asyncio.sleep(0.02)
        if probe.ends and not probe.inside:
            writer.write_eof()
        while True:
            async with asyncio.timeout(quiet_s):
                got = await reader.read(1 << 16)
            if not got:
                state = "closed"
                break
            data += got
    except TimeoutError:
        pass
    except OSError:  # ssl.SSLError is one
        state = "reset"
    finally:
        if writer is not None:
            writer.transport.abort()
    return bytes(data), state


async def both(pair: Pair, probe: Probe, quiet_s: float) -> tuple[Reply, Reply]:
    """The two answers."""
    ports = (pair.ours, pair.theirs)
    answers = await asyncio.gather(*(ask(port, probe, quiet_s) for port in ports))
    ours, theirs = (
        Reply(told(pair, data, port, inside=probe.inside), state)
        for port, (data, state) in zip(ports, answers, strict=True)
    )
    return ours, theirs


async def differ(pair: Pair, probe: Probe) -> tuple[Reply, Reply] | None:
    """The last answers of a probe to which the two never said the same; ``None`` if they did."""
    mine: set[str] = set()
    real: set[str] = set()
    for _ in range(TRIES):
        ours, theirs = await both(pair, probe, PATIENT_S)
        mine.add(repr(ours))
        real.add(repr(theirs))
        if mine & real:
            return None
    return ours, theirs


LEFT_S = 60.0  # seconds until a dialler that ended is gone at the listener


async def watch(pair: Pair) -> int:
    """The most peers that the listener had at once, until cancelled."""
    most = 0
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            most = max(most, len(await asyncio.to_thread(pair.client.call, "peers")))
            await asyncio.sleep(0.25)
    return most


async def compare(pair: Pair, chosen: list[Probe]) -> dict[str, Any]:
    """All probes to both servers."""
    room = asyncio.Semaphore(ROOM[pair.carrier])
    async with asyncio.timeout(LEFT_S):
        while await asyncio.to_thread(pair.client.call, "peers"):  # noqa: ASYNC110
            await asyncio.sleep(0.1)  # the dialler whose sessions were recorded takes its leave
    watching = asyncio.create_task(watch(pair))
    await asyncio.sleep(0)

    async def first(probe: Probe) -> bool:
        async with room:
            ours, theirs = await both(pair, probe, QUIET_S)
            return ours == theirs

    same = await asyncio.gather(*map(first, chosen))
    again = [probe for probe, is_same in zip(chosen, same, strict=True) if not is_same]
    apart = []
    print(f"{pair.carrier}: {len(chosen)} probes, {len(again)} of them asked again", file=sys.stderr)
    patient = asyncio.Semaphore(ROOM[pair.carrier] // 2)

    async def second(probe: Probe) -> None:
        async with patient:
            found = await differ(pair, probe)
            if found is not None:
                ours, real = map(repr, found)
                at = max(0, next((n for n, (a, b) in enumerate(zip(ours, real, strict=False)) if a != b), 0) - 60)
                told = {"ours": ours[at : at + 240], "real": real[at : at + 240]}  # from shortly before they differ
                apart.append({"kind": probe.kind, "name": probe.name, **told})

    await asyncio.gather(*map(second, again))
    watching.cancel()
    kinds = Counter(probe.kind for probe in chosen)
    return {
        "probes": len(chosen),
        "kinds": dict(kinds),
        "accepted": await watching,
        "asked_again": len(again),
        "apart": apart,
    }


async def closing(port: int, first: bytes, every_s: float) -> tuple[str, float]:
    """How and when a server ends a connection on which ``first`` was said, one byte each ``every_s`` seconds, 0 = at once."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def say() -> None:
        with contextlib.suppress(ConnectionError):
            for at in range(len(first)):
                writer.write(first[at : at + 1])
                await asyncio.sleep(every_s)

    if not every_s:
        writer.write(first)
    trickle = asyncio.create_task(say()) if every_s else None
    state = "closed"
    try:
        async with asyncio.timeout(180):
            while await reader.read(1 << 16):
                pass
    except TimeoutError:
        state = "open after 180 s"
    except ConnectionError:
        state = "reset"
    if trickle is not None:
        trickle.cancel()
    writer.transport.abort()
    return state, time.monotonic() - began


async def waits(pair: Pair, recordings: list[list[bytes]]) -> dict[str, Any]:
    """Connections that say nothing, a part, or a byte a second: how and when each server ends them, and which differ."""
    whole = b"".join(recordings[0])
    said = {"nothing": (b"", 0.0), **{f"{part} bytes": (whole[:part], 0.0) for part in (1, 7, 21, 60)}}
    said["slowloris"] = (whole[:170], 1.0)
    jobs = [closing(port, *said[name]) for name in said for port in (pair.ours, pair.theirs)]
    ends = await asyncio.gather(*jobs)
    found = {name: (ends[2 * at], ends[2 * at + 1]) for at, name in enumerate(said)}
    apart = {
        name: [[state, round(seconds, 1)] for state, seconds in two]
        for name, two in found.items()
        if two[0][0] != two[1][0] or abs(two[0][1] - two[1][1]) > max(1.5, 0.1 * two[1][1])
    }
    return {"waits": {name: [two[1][0], round(two[1][1], 1)] for name, two in found.items()}, "waits_apart": apart}


async def run(carrier: str, count: int, *, joining: bool, seed: int, with_waits: bool) -> dict[str, Any]:
    """Everything about one carrier."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="obscura-probes-") as folder:
        pair = Pair(carrier, Path(folder), joining=joining)
        try:
            recordings = await record(pair, 5)
            if carrier == "ssh":
                await calibrate(pair, recordings[0])
            chosen = probes(carrier, count, recordings, said_within(pair, rng), table_of(pair), rng)
            waiting = asyncio.create_task(waits(pair, recordings)) if with_waits else None
            began = time.monotonic()
            found = await compare(pair, chosen)
            found["seconds"] = round(time.monotonic() - began, 1)
            return {"carrier": carrier, "joining": joining, **found, **(await waiting if waiting is not None else {})}
        finally:
            pair.end()


def main() -> int:
    """Print what was found as JSON."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--carrier", required=True, choices=sorted(ROOM))
    words.add_argument("--count", type=whole(), default=10_000)
    words.add_argument("--joining", action="store_true")
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--waits", action="store_true")
    given = words.parse_args()
    found = asyncio.run(run(given.carrier, given.count, joining=given.joining, seed=given.seed, with_waits=given.waits))
    print(json.dumps(found, indent=1))
    return 1 if found["accepted"] or found["apart"] or found.get("waits_apart") else 0


if __name__ == "__main__":
    sys.exit(main())
