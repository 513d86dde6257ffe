"""Bad input from peers, in virtual time: slow, silent, contradictory, out of order, and anything at all.

The stated consequences (design 3, 5, 10): malformed = points; violation = the end; unknown = ignored; silence = the end in time.
Whatever comes, the node goes on for everybody else.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from math import inf
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from obscura.connection import Reason
from obscura.ledger.networks import load_network
from obscura.limits import DISCARD_S, HANDSHAKE_S, PING_DEAD_S, PING_INTERVAL_S
from obscura.node.assembly import Settings
from obscura.node.slots import OutboundLimits
from obscura.sim.archive import MemoryArchive
from obscura.sim.kernel import Kernel
from obscura.sim.network import SimNetwork
from obscura.wire.frame import encode_raw
from obscura.wire.messages.network import GetAddr, Ping, Pong
from obscura.wire.messages.transactions import Tx
from playbook import NETWORK_ID, QUIET, Guest, Host, client, inject, messages, visit

VECTORS = Path(__file__).parent / "vectors" / "wire"
ESTABLISHED = [
    vectors
    for path in sorted(VECTORS.glob("*.json"))
    if "established" in (vectors := json.loads(path.read_text()))["phases"]
]
VALID = [encode_raw(v["type"], bytes.fromhex(each["payload"])) for v in ESTABLISHED for each in v["valid"]]
MALFORMED = [encode_raw(v["type"], bytes.fromhex(each["payload"])) for v in ESTABLISHED for each in v["malformed"]]
STRANGE = [encode_raw("novelty", b"x" * 100), encode_raw("a", b""), encode_raw("ping", bytes(8), b"oops")]


# --- Slow and silent ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_second", [1, 8])
def test_a_byte_a_second_is_not_a_handshake(per_second: int) -> None:
    host = Host()
    guest = Guest(host, client(), host.accept())
    stream = b"".join(guest.connection.flush(0.0))
    assert len(stream) > HANDSHAKE_S * per_second
    for second in range(1, int(HANDSHAKE_S) + 1):
        host.at(float(second) - 0.5)
        host.give(guest.link, stream[(second - 1) * per_second : second * per_second])
    assert guest.link in host.engine.links
    host.at(HANDSHAKE_S)
    assert host.taken(guest.link) == b""
    host.at(HANDSHAKE_S + DISCARD_S[1])
    assert host.shut == [guest.link]


def test_an_established_peer_may_be_as_slow_as_it_likes_and_is_asked_whether_it_lives() -> None:
    host = Host()
    guest = visit(host)
    guest.connection.send(Ping(6))
    for byte in b"".join(guest.connection.flush(0.0)):
        host.at(host.now + 0.05)
        host.give(guest.link, bytes((byte,)))
    guest.pump()
    assert Pong(6) in messages(guest.events)
    host.at(host.now + PING_INTERVAL_S + PING_DEAD_S + 1)
    assert "no pong" in host.kinds("peer-disconnected")[0].fields["reason"]


def test_a_peer_that_promises_much_and_sends_little_holds_what_it_sent() -> None:
    """A header that promises a block of 4 MB, then a byte now and then."""
    host = Host()
    guest = visit(host)
    inject(guest.connection, (4_000_000).to_bytes(4, "little") + b"block".ljust(12, b"\0") + bytes(4) + b"x" * 100)
    host.give(guest.link, b"".join(guest.connection.flush(0.0)))
    connection = host.engine.links[guest.link].connection
    assert connection is not None
    assert connection.buffered < 5_000
    host.at(PING_INTERVAL_S + PING_DEAD_S + 1)
    assert host.engine.links == {}


# --- Contradictory and out of order ------------------------------------------------------------------------------------


def test_a_pong_to_no_ping_and_a_ping_to_many_pings() -> None:
    host = Host()
    guest = visit(host)
    guest.send(Pong(1), Pong(2), Ping(3), Ping(3))
    assert [m for m in messages(guest.events) if isinstance(m, Pong)] == [Pong(3), Pong(3)]
    assert host.kinds("penalty") == []


def test_getaddr_is_answered_once() -> None:
    host = Host()
    guest = visit(host)
    guest.send(*[GetAddr()] * 5)
    host.at(100.0)
    guest.pump()
    assert guest.connection.is_established
    assert len([m for m in messages(guest.events) if m.TYPE == "addr"]) <= 1


def test_a_flood_is_slowed_then_dropped_then_costs_the_link_and_nobody_else() -> None:
    host = Host(rate_factor=1.0)
    friend, guest = visit(host, seed=1), visit(host, seed=2)
    for _ in range(40):
        for nonce in range(500):
            guest.connection.send(Ping(nonce))
        guest.pump()
        host.at(host.now + 0.01)
    (gone,) = host.kinds("peer-disconnected")
    assert gone.fields["peer"] == guest.link
    friend.send(Ping(5))
    assert Pong(5) in messages(friend.events)


def test_a_transaction_nobody_reacts_to_is_ignored() -> None:
    host = Host()
    guest = visit(host)
    guest.send(Tx(b"not a transaction"), Ping(1))
    assert Pong(1) in messages(guest.events)


# --- Anything -----------------------------------------------------------------------------------------------------------


def bystander_lives(frames: Iterable[bytes], seed: int, *, chain: bool, then: bytes = b"") -> list[str]:
    """An attacker with a proper channel says all this to a whole simulated node; a bystander is served as before.

    Why the attacker's link ended, if it did.
    """
    kernel = Kernel(seed)
    network = SimNetwork(kernel)
    dev = load_network("dev")
    plain = Settings(
        network_id=NETWORK_ID, is_dev=True, knobs=QUIET, outbound=OutboundLimits(full=0, blocks=0, feelers=False)
    )
    target = network.add(plain, archive=MemoryArchive(dev.ledger) if chain else None)
    attacker = network.add(plain)
    bystander = network.add(plain)
    link = attacker.connect(target.address)
    kernel.run(until=2.0)
    connection = attacker.assembly.engine.links[link].connection
    assert connection is not None
    for frame in frames:
        if connection.is_established:
            inject(connection, frame)
    if connection.is_established:
        attacker.send(link, Ping(1))
    if then:
        kernel.run(until=3.0)
        target.arrive(target.peers[0].link if target.peers else 1, then)
    kernel.run(until=60.0)
    other = bystander.connect(target.address)
    kernel.run(until=62.0)
    bystander.apply(bystander.assembly.liveness.ask(other, kernel.now))
    kernel.run(until=70.0)
    assert [told.kind for told in bystander.told if told.kind == "pong"] == ["pong"]
    assert len([told for told in target.told if told.kind == "peer-connected"]) == 2
    return [str(told.fields["reason"]) for told in target.told if told.kind == "peer-disconnected"]


FRAMES = st.sampled_from(VALID) | st.sampled_from(MALFORMED) | st.sampled_from(STRANGE) | st.binary(max_size=60)


@pytest.mark.parametrize("chain", [False, True])
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.large_base_example])
@given(frames=st.lists(FRAMES, max_size=12), seed=st.integers(0, 3))
def test_whatever_a_peer_says_the_node_goes_on(chain: bool, frames: list[bytes], seed: int) -> None:
    for reason in bystander_lives(frames, seed, chain=chain):
        assert reason.split(":")[0] in {each.value for each in Reason}


@pytest.mark.parametrize("chain", [False, True])
def test_every_valid_message_by_itself(chain: bool) -> None:
    """One link for each: what they say of the ledger is nonsense to it, none of it a reason to fall."""
    for seed, frame in enumerate(VALID):
        bystander_lives([frame, frame], seed, chain=chain)


def test_every_malformed_message_costs_points_and_five_of_them_the_link() -> None:
    assert bystander_lives(MALFORMED[:1] * 4, 1, chain=True) == []
    (reason,) = bystander_lives(MALFORMED[:1] * 5, 1, chain=True)
    assert "too many faults" in reason
    for frame in MALFORMED:
        (reason,) = bystander_lives([frame] * 10, 1, chain=False)
        assert "too many faults" in reason or reason.startswith(Reason.VIOLATION.value)


def test_garbage_into_an_open_channel() -> None:
    (reason,) = bystander_lives([], 1, chain=True, then=random.Random(1).randbytes(3_000))
    assert reason.startswith(Reason.FAULT.value)


@settings(deadline=None, max_examples=60)
@given(
    chunks=st.lists(st.binary(max_size=2_000) | st.integers(0, 4_000).map(bytes), max_size=8), wait=st.floats(0, 100)
)
def test_whatever_a_stranger_sends_it_gets_nothing_and_ends(chunks: list[bytes], wait: float) -> None:
    host = Host()
    link = host.accept("203.0.113.5")
    for chunk in chunks:
        host.give(link, chunk)
    host.at(wait)
    answer = host.taken(link)
    assert len(answer) <= 1_280, "at most one flight, to one that sent enough for NX"
    assert not answer or sum(map(len, chunks)) >= 256
    host.at(wait + HANDSHAKE_S + DISCARD_S[1])
    assert host.engine.links == {}
    assert host.engine.deadline() == inf or host.engine.deadline() > host.now
