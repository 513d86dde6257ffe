"""A network that goes away and comes back is recovered without a restart (specification, *Reconnection Logic*)."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import socket
from typing import Any

import pytest

from obscura.limits import BACKOFF_FIRST_S, BACKOFF_MOST_S, PING_DEAD_S, PING_INTERVAL_S
from obscura.node.assembly import Settings
from obscura.node.backoff import Backoff
from obscura.node.face import Face
from obscura.node.io import Reach
from obscura.node.peer import Failure
from obscura.sim.kernel import Kernel
from obscura.sim.network import SimNetwork, SimNode
from obscura.transport import socks5, tcp
from obscura.wire.address import Address, Endpoint, Network
from playbook import QUIET


class Outages(SimNetwork):
    """A network that can be away: nothing arrives, nobody is reached."""

    is_away = False
    failure = Failure.OFFLINE

    def reach(self, dialler: SimNode, wanted: Reach) -> None:
        if not self.is_away:
            super().reach(dialler, wanted)
            return

        def fail() -> None:
            dialler.assembly.engine.unreachable(wanted.link, "no network", self.kernel.now, self.failure)
            dialler.turn()

        self.kernel.at(self.kernel.now + 0.01, fail)


def world(count: int, **settings: Any) -> Outages:
    net = Outages(Kernel(4))
    for _ in range(count):
        node = net.add(Settings(bytes(32), is_dev=True, knobs=QUIET, **settings))
        node.assembly.neighbours.own.set_listening([node.address])
        node.assembly.book.add_seeds([net.nodes[0].address], True, Face.CLEARNET, 0.0)
        node.turn()
    return net


def cut_everything(net: Outages) -> None:
    for node in net.nodes:
        for peer in node.peers:
            node.assembly.engine.eof(peer.link, net.kernel.now)
        node.turn()


@pytest.mark.parametrize("failure", [Failure.OFFLINE, Failure.UNREACHABLE])
def test_after_an_outage_all_links_come_back_and_no_address_was_charged(failure: Failure) -> None:
    net = world(6)
    net.kernel.run(until=300)
    before = [len(node.peers) for node in net.nodes]
    assert min(before) >= 4
    net.is_away, net.failure = True, failure
    cut_everything(net)
    net.kernel.run(until=net.kernel.now + 1_800)
    assert all(not node.peers for node in net.nodes)
    dials = [sum(told.kind == "dial-failed" for told in node.told) for node in net.nodes]
    assert max(dials) < 1_800 / 5  # it waits between its attempts
    assert sum(entry.failures for node in net.nodes for entry in node.assembly.book.entries()) == 0
    net.is_away = False
    net.kernel.run(until=net.kernel.now + 120)
    assert min(len(node.peers) for node in net.nodes) >= 4


def test_links_that_died_in_silence_are_found_out_and_made_anew() -> None:
    """No reset, no end of stream: only pings show it."""
    net = world(5)
    net.kernel.run(until=300)
    net.tamper = lambda sender, receiver, link, data: b""  # a black hole
    net.kernel.run(until=net.kernel.now + PING_INTERVAL_S + PING_DEAD_S + 60)
    assert all(not node.peers for node in net.nodes)
    net.tamper = None
    net.kernel.run(until=net.kernel.now + 300)
    assert min(len(node.peers) for node in net.nodes) >= 3


def test_manual_peers_are_tried_for_ever_with_growing_random_waits() -> None:
    net = Outages(Kernel(5))
    server = net.add(Settings(bytes(32), is_dev=True, knobs=QUIET))
    client = net.add(Settings(bytes(32), is_dev=True, knobs=QUIET, manual=(server.address,)))
    net.is_away = True
    net.kernel.run(until=12 * 3_600)  # a first dial got through before the network went
    for peer in client.peers:
        client.assembly.engine.eof(peer.link, net.kernel.now)
    client.turn()
    net.kernel.run(until=net.kernel.now + 12 * 3_600)
    tries = sum(told.kind == "dial-failed" for told in client.told)
    assert tries > 12 * 3_600 / BACKOFF_MOST_S
    net.is_away = False
    net.kernel.run(until=net.kernel.now + BACKOFF_MOST_S + 60)
    assert [peer.dialled for peer in client.peers] == [server.address]


def test_waits_are_random_grow_and_are_capped() -> None:
    rng = random.Random(1)
    rows = []
    for _ in range(200):
        backoff = Backoff()
        rows.append([backoff.next_s(rng) for _ in range(40)])
    assert all(BACKOFF_FIRST_S <= wait <= BACKOFF_MOST_S for row in rows for wait in row)
    assert len({row[0] for row in rows}) == 200
    assert sum(row[0] for row in rows) / 200 < 3 < sum(row[-1] for row in rows) / 200 / 20


@pytest.mark.parametrize(
    ("number", "is_offline"),
    [(errno.ENETUNREACH, True), (errno.ENETDOWN, True), (errno.ECONNREFUSED, False), (errno.EHOSTUNREACH, False)],
)
def test_the_sockets_tell_a_missing_network_from_a_missing_peer(
    monkeypatch: pytest.MonkeyPatch, number: int, is_offline: bool
) -> None:
    async def scene() -> tcp.Missed | None:
        async def refuse(*args: object, **options: object) -> None:
            raise OSError(number, "no")

        monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", refuse, raising=False)
        return await tcp.dial(None, Address(None, "127.0.0.1", 9_733), 1)  # type: ignore[arg-type]

    missed = asyncio.run(scene())
    assert missed is not None
    assert missed.is_offline is is_offline


@pytest.mark.parametrize("is_through", [False, True])
def test_a_time_without_descriptors_is_not_charged_to_the_addresses(
    monkeypatch: pytest.MonkeyPatch, is_through: bool
) -> None:
    """It is when many links stand that descriptors run out, so that a failure would count."""

    class NoSocket(socket.socket):
        def __init__(self, *args: object) -> None:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def through(host: str, port: int) -> socket.socket:
        return await socks5.connect(Endpoint(Network.IPV4, bytes((127, 0, 0, 1)), 9_050), host, port, timeout_s=5.0)

    async def scene() -> tcp.Missed | None:
        monkeypatch.setattr(socket, "socket", NoSocket)
        address = Address(None, "127.0.0.1", 9_733)
        return await tcp.dial(None, address, 1, through=through if is_through else None)  # type: ignore[arg-type]

    missed = asyncio.run(scene())
    assert missed is not None
    assert missed.is_offline
    assert "too many open files" in missed.why.lower()
