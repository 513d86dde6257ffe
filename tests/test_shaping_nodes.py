"""Shaping in whole nodes: what is said of it, what it costs, whom it ends; in the simulator and over real sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from obscura.daemon.config import Config
from obscura.daemon.methods import control_methods
from obscura.daemon.node import Node
from obscura.handshake.features import BUILT, Flags, Privacy
from obscura.node.assembly import Settings
from obscura.node.cover import peer_terms
from obscura.shaping.levels import LEVELS, CustomKnobs, Knobs, PrivacyLevel, padneg
from obscura.sim.kernel import Kernel
from obscura.sim.network import SimNetwork, SimNode
from playbook import Guest, Host, client, offer
from rotating import Pair

STANDARD, MEDIUM, HIGH = (LEVELS[PrivacyLevel(name)] for name in ("standard", "medium", "high"))


def pair(first: Knobs, second: Knobs) -> tuple[Kernel, SimNode, SimNode]:
    kernel = Kernel(5)
    network = SimNetwork(kernel)
    nodes = [network.add(Settings(network_id=bytes(32), is_dev=True, knobs=knobs)) for knobs in (first, second)]
    nodes[0].connect(nodes[1].address)
    kernel.run(until=5.0)
    return kernel, nodes[0], nodes[1]


def said(node: SimNode, kind: str) -> list[dict[str, object]]:
    return [dict(told.fields) for told in node.told if told.kind == kind]


@pytest.mark.parametrize("first", [STANDARD, MEDIUM, HIGH])
@pytest.mark.parametrize("second", [STANDARD, MEDIUM, HIGH])
def test_all_levels_talk_to_each_other_for_hours_without_a_fault(first: Knobs, second: Knobs) -> None:
    kernel, a, b = pair(first, second)
    kernel.run(until=1_500.0)
    assert len(a.peers) == len(b.peers) == 1
    assert not said(a, "penalty") + said(b, "penalty") + said(a, "privacy-reduced")


def test_the_operator_is_told_where_a_peer_asks_for_less() -> None:
    _, a, b = pair(MEDIUM, Knobs(most=16))
    (told,) = said(a, "privacy-reduced")
    assert told["what"] == ["at most 16 bytes of cover per second, 74 being needed"]
    assert not said(b, "privacy-reduced")


def test_high_does_not_keep_such_a_link() -> None:
    _, a, b = pair(HIGH, Knobs(most=16))
    assert not a.peers
    assert not b.peers
    assert any("less than this node's privacy level" in str(told["why"]) for told in said(a, "dial-failed"))


@pytest.mark.parametrize("refuses", [False, True])
def test_a_peer_that_lacks_the_bit_for_jitter_is_told_or_refused_as_one_that_asks_for_less(refuses: bool) -> None:
    host = Host(knobs=Knobs(jitter_ms=(0, 100), refuses_less=refuses))
    flags = Flags(BUILT.features, BUILT.privacy & ~Privacy.TimingJitter)
    said = msgspec.structs.replace(offer(flags=flags), padneg=padneg(MEDIUM))
    Guest(host, client(said=said), host.accept("127.0.0.1", 50_000)).pump()
    told = [dict(notify.fields) for notify in host.told if notify.kind == "privacy-reduced"]
    assert [event["what"] for event in told] == ([] if refuses else [["no jitter"]])
    assert len(host.assembly.core.peers) == (not refuses)
    (peer,) = list(host.assembly.core.peers.values()) or [None]
    assert peer is None or peer_terms(MEDIUM, peer)["conceded"] == ["no jitter"]
    assert peer is None or peer_terms(HIGH, peer)["conceded"] == [], "which has none of its own"


def test_costs_add_up_over_links_that_ended() -> None:
    kernel, a, _ = pair(MEDIUM, MEDIUM)
    kernel.run(until=600.0)
    engine = a.assembly.engine
    (link,) = engine.describe(kernel.now)
    assert link["dummy_bytes_sent"] > 20 * 1_024
    assert link["dummy_bytes_sent"] + link["padding_bytes_sent"] + link["real_bytes_sent"] < link["wire_bytes_sent"]
    a.disconnect(a.peers[0].link)
    kernel.run(until=620.0)
    assert engine.traffic.sent_before["dummy_bytes_sent"] >= link["dummy_bytes_sent"]
    assert engine.traffic.sent_before["wire_bytes_sent"] > link["wire_bytes_sent"]


def test_a_blocked_socket_does_not_make_the_schedule_spin() -> None:
    kernel, a, _ = pair(HIGH, HIGH)
    engine, link = a.assembly.engine, a.peers[0].link
    engine.writable(link, False, kernel.now)
    engine.drain(kernel.now)
    turns, now = 0, kernel.now
    while engine.deadline() <= kernel.now + 60:
        now = max(now, engine.deadline())
        engine.due(now)
        engine.drain(now)
        turns += 1
    assert turns < 200


def test_a_link_in_slots_that_ends_with_much_waiting_costs_its_side_no_points() -> None:
    """All of it at once would be more records than slots, and the honest peer discouraged for a day."""
    pair = Pair(knobs=HIGH)
    for _ in range(40):
        pair.one.send(100_000)
    pair.run(5.0)
    pair.one.node.disconnect(pair.one.link)
    pair.run(30.0)
    assert not pair.other.told("penalty")
    assert len(pair.other.told("peer-disconnected")) == 1
    assert pair.other.got == []


def test_a_link_in_slots_that_ends_gives_what_little_waits() -> None:
    pair = Pair(knobs=HIGH)
    for size in (10, 10_000, 10):
        pair.one.send(size)
    pair.one.node.disconnect(pair.one.link)
    pair.run(1.0)
    assert pair.other.got == [0, 1, 2]
    assert [told["reason"] for told in pair.other.told("peer-disconnected")] == ["closed cleanly"]


def test_a_running_node_shows_its_privacy_and_its_cost(tmp_path: Path) -> None:
    async def run() -> None:
        config = Config(network="dev", data_dir=tmp_path / "a", listen=("127.0.0.1:0?carrier=plain",))
        custom = CustomKnobs(most=9, dummy_ms=(1_000, 1_500))
        other = Config(network="dev", data_dir=tmp_path / "b", listen=(), privacy="custom", privacy_custom=custom)
        async with Node(config) as listening, Node(other) as dialling:
            peer = await dialling.connect(listening.addresses[0])
            await dialling.ping(peer)  # by then the other end is established too
            shown = control_methods(listening)["privacy.show"]()
            assert shown["level"] == "medium"
            (link,) = shown["links"]
            assert link["sends"]["most"] == 8  # of the custom level, rounded
            assert link["receives"]["dummy_ms"] == [1_024, 2_048]
            assert link["conceded"]
            status = control_methods(listening)["status"]()
            for name in ("real_bytes_sent", "padding_bytes_sent", "dummy_bytes_sent", "wire_bytes_sent"):
                assert status[name] >= shown["cost"][name] >= 0
            assert status["padding_bytes_sent"] > 500

    asyncio.run(run())
