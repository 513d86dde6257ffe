"""The Wireshark dissector under the real tshark: a real session of frames in small segments, every vector, and broken frames.

Needs tshark (apt install tshark), no right to capture: the segments are written as a pcap file from what a relay on loopback saw.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from struct import pack
from typing import Any

import pytest

from obscura.daemon.chain_methods import chain_methods
from obscura.daemon.config import Config
from obscura.daemon.node import Node
from obscura.wire.catalogue import CATALOGUE
from obscura.wire.frame import encode_raw
from obscura.wire.messages.network import Ping

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "packaging" / "wireshark" / "obscura.lua"
CLIENT = ROOT / "examples" / "plain_client.py"
PORT = 19799
SEGMENT = 400  # bytes: most messages are cut, some are together
Stream = list[tuple[bool, bytes]]  # (does the client send it, bytes)


def pcap(streams: Iterable[Stream]) -> bytes:
    """Connections as Wireshark reads them: Ethernet would only be longer, so raw IPv4 (link type 101)."""
    packets = [pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 18, 101)]
    for number, stream in enumerate(streams):
        sequence = {True: 1, False: 1}
        for is_client, data in stream:
            for at in range(0, len(data), SEGMENT):
                piece = data[at : at + SEGMENT]
                ports = (40_000 + number, PORT) if is_client else (PORT, 40_000 + number)
                acknowledged = sequence[not is_client]
                tcp = pack(">HHIIBBHHH", *ports, sequence[is_client], acknowledged, 5 << 4, 0x18, 65_535, 0, 0)
                ip = pack(">BBHHHBBH4s4s", 0x45, 0, 40 + len(piece), 0, 0, 64, 6, 0, b"\x7f\0\0\1", b"\x7f\0\0\1")
                packets.append(pack("<IIII", number, len(packets), 40 + len(piece), 40 + len(piece)) + ip + tcp + piece)
                sequence[is_client] += len(piece)
    return b"".join(packets)


def dissected(file: Path, *fields: str, by_hand: bool = True) -> list[list[str]]:
    """The fields of every packet; each a list of texts, one per frame."""
    named = ["-d", f"tcp.port=={PORT},obscura"] if by_hand else []
    words = [word for field in fields for word in ("-e", field)]
    command = [
        "tshark",
        "-n",
        "-r",
        str(file),
        "-X",
        f"lua_script:{SCRIPT}",
        *named,
        "-T",
        "fields",
        "-E",
        "separator=;",
    ]
    done = subprocess.run([*command, *words], capture_output=True, timeout=120, check=True)
    assert b"Lua" not in done.stderr, done.stderr.decode()
    return [line.split(";") for line in done.stdout.decode().splitlines()]


def shown(tmp_path: Path, streams: Iterable[Stream], *fields: str, by_hand: bool = True) -> list[list[str]]:
    """Each field's texts of all frames."""
    file = tmp_path / "frames.pcap"
    file.write_bytes(pcap(streams))
    rows = dissected(file, *fields, by_hand=by_hand)
    return [[text for row in rows for text in row[at].split(",") if text] for at in range(len(fields))]


async def relayed(port: int, streams: list[Stream]) -> asyncio.Server:
    """A relay that writes down what passes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream: Stream = []
        streams.append(stream)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, is_client: bool) -> None:
            while data := await source.read(65_536):
                stream.append((is_client, data))
                sink.write(data)
            sink.close()

        await asyncio.gather(pump(reader, far_writer, True), pump(far_reader, writer, False), return_exceptions=True)

    return await asyncio.start_server(serve, "127.0.0.1", 0)


async def session(folder: Path) -> list[Stream]:
    """A node that accepts plain frames, the client without the library, and a second node that syncs from it."""
    streams: list[Stream] = []
    common: dict[str, Any] = {"network": "dev", "privacy": "standard", "allow_plaintext": True}
    serving = Node(Config(data_dir=folder / "a", listen=("127.0.0.1:0?carrier=bare",), **common))
    asking = Node(Config(data_dir=folder / "b", listen=(), **common))
    async with serving, asking:
        await chain_methods(serving)["mine"](blocks=5, fill=20_000)
        relay = await relayed(serving.addresses[0].port, streams)
        port = relay.sockets[0].getsockname()[1]
        client = await asyncio.create_subprocess_exec(sys.executable, str(CLIENT), "127.0.0.1", str(port))
        assert await client.wait() == 0
        peer = await asking.connect(f"obscura://127.0.0.1:{port}?carrier=bare")
        tips = asking.events({"tip"})
        async with asyncio.timeout(60):
            while asking.relay.blocks.tip_height < 5:
                await anext(tips)
            await asking.ping(peer)
        relay.close()
    return streams


def test_every_frame_of_a_session(tmp_path: Path) -> None:
    streams = asyncio.run(session(tmp_path))
    types, expert, agents, counts, headers = shown(
        tmp_path, streams, "obscura.type", "_ws.expert.message", "obscura.user_agent", "obscura.count", "obscura.header"
    )
    sent = [frame for stream in streams for frame in frames_of(stream)]
    assert sorted(types) == sorted(sent)
    assert set(types) >= {"version", "verack", "ping", "pong", "getheaders", "headers", "getdata", "block", "sendcmpct"}
    assert expert == []
    assert set(agents) == {"plain/1", "Obscura/1.0.0"}
    assert len(headers) >= 5
    assert "5" in counts


def frames_of(stream: Stream) -> list[str]:
    """The types in both directions, by the sizes in the headers alone."""
    found = []
    for side in (True, False):
        data = b"".join(piece for is_client, piece in stream if is_client is side)
        while len(data) >= 20:
            found.append(data[4:16].rstrip(b"\0").decode())
            data = data[20 + int.from_bytes(data[:4], "little") :]
        assert data == b""
    return found


def vectors() -> list[bytes]:
    found = []
    for file in sorted((ROOT / "tests" / "vectors" / "wire").glob("*.json")):
        if file.stem in {cls.TYPE for cls in CATALOGUE}:
            cases = json.loads(file.read_text())
            found += [encode_raw(file.stem, bytes.fromhex(case["payload"])) for case in cases["valid"]]
    return found


def test_every_vector_decodes(tmp_path: Path) -> None:
    frames = vectors()
    types, expert = shown(tmp_path, [[(True, b"".join(frames))]], "obscura.type", "_ws.expert.message")
    assert len(types) == len(frames)
    assert set(types) == {cls.TYPE for cls in CATALOGUE}
    assert expert == ["Trailing stray characters"]  # a user agent with a NUL in it, which Wireshark remarks upon itself


GOOD = encode_raw("verack", b"")
PING = encode_raw("ping", Ping(7).encode())
BROKEN = {
    "a type of other bytes": (b"\1" * 20, "No type of a frame"),
    "a size over its limit": (encode_raw("ping", bytes(9)), "Over the limit of its type"),
    "an endless frame": (b"\xff\xff\xff\xff" + PING[4:], "Over the limit of its type"),
    "a payload cut short": (encode_raw("ping", bytes(7)), "The payload does not follow its encoding"),
    "a count of more than is there": (encode_raw("inv", b"\5"), "The payload does not follow its encoding"),
    "bytes left over": (encode_raw("headers", b"\0\0"), "The payload does not follow its encoding"),
    "a wrong checksum of nothing": (GOOD[:16] + b"\0\0\0\0", "Wrong checksum"),
    "an extension": (encode_raw("chat", b"hello"), "Of an extension"),
}


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """Expert texts by connection, all in one run of tshark."""
    file = tmp_path_factory.mktemp("broken") / "frames.pcap"
    file.write_bytes(pcap([[(True, GOOD + data)] for data, _ in BROKEN.values()]))
    return dissected(file, "tcp.stream", "obscura.type", "_ws.expert.message")


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_frame_is_shown_as_such(name: str, broken: list[list[str]]) -> None:
    number = list(BROKEN).index(name)
    [row] = [row for row in broken if row[0] == str(number)]
    assert row[1].startswith("verack")
    assert BROKEN[name][1] in row[2]
    assert "Lua Error" not in row[2]


def test_it_claims_nothing_by_itself(tmp_path: Path) -> None:
    [types] = shown(tmp_path, [[(True, GOOD + PING)]], "obscura.type", by_hand=False)
    assert types == []
