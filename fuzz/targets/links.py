"""A whole node and what an established peer sends it, message by message."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from fuzz import target
from fuzz.targets import TESTS
from fuzz.targets.chain import LEDGER, blocks, headers, transactions
from obscura.lab.link import opaque
from obscura.limits import MEMORY_BUDGET
from obscura.node.assembly import Settings
from obscura.node.slots import OutboundLimits
from obscura.sim.archive import MemoryArchive
from obscura.sim.kernel import Kernel
from obscura.sim.network import SimNetwork
from obscura.wire.catalogue import BUILT_IN

SETTINGS = Settings(network_id=bytes(32), is_dev=True, outbound=OutboundLimits(0, 0, feelers=False))
KINDS = [opaque(kind) for kind in sorted(kind.TYPE for kind in BUILT_IN)]
NUMBERS = {kind.TYPE: number for number, kind in enumerate(KINDS)}
PAUSE_S = 1.0  # between two messages
LATER_S = 200.0  # timers that a message has set are over by then


def piece(kind: str, payload: bytes) -> bytes:
    """One message: the number of its type, two bytes of length, the payload."""
    return bytes([NUMBERS[kind]]) + len(payload).to_bytes(2, "big") + payload


def talks() -> Iterator[bytes]:
    """A message of each type alone, and a block on its way."""
    for kind in NUMBERS:
        valid = json.loads((Path(TESTS) / "vectors" / "wire" / f"{kind}.json").read_text())["valid"]
        payload = bytes.fromhex(valid[min(1, len(valid) - 1)]["payload"])
        if len(payload) <= 2_000:
            yield piece(kind, payload)
    (both,) = headers()
    raw = list(blocks())
    yield piece("headers", b"\x01" + both[:80] + b"\x00") + piece("block", raw[0])
    yield b"".join(piece("tx", one) + piece("stemtx", one) for one in transactions())


@target(
    "link",
    "Whatever an established peer says, the node raises nothing, keeps within its memory, and an honest peer stays.",
    talks,
)
def link(data: bytes) -> None:
    net = SimNetwork(Kernel(1), lambda a, b: 0.01)
    node, peer, honest = (net.add(SETTINGS, archive=MemoryArchive(LEDGER)) for _ in range(3))
    number = peer.connect(node.address)
    honest.connect(node.address)
    net.kernel.run(until=2.0)
    assert len(node.peers) == 2
    while len(data) > 3:
        end = 3 + int.from_bytes(data[1:3], "big")
        message = KINDS[data[0] % len(KINDS)](data[3:end])
        data = data[end:]
        if number in peer.assembly.engine.links:
            peer.assembly.engine.send(number, message, net.kernel.now)
            peer.turn()
        net.kernel.run(until=net.kernel.now + PAUSE_S)
        assert sum(link.memory for link in node.assembly.engine.links.values()) <= MEMORY_BUDGET
    net.kernel.run(until=net.kernel.now + LATER_S)
    assert len(honest.peers) == 1
