"""Protocol rotation over real sockets: from carrier to carrier under load, by command, on request, and when it fails."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from operator import le
from pathlib import Path
from typing import Any

import pytest

from obscura.daemon.events import Event
from obscura.daemon.methods import control_methods
from obscura.daemon.node import Node
from obscura.errors import UserError
from obscura.wire.address import Address
from rotating import Loaded
from test_node_links import config, until

MIB = 1 << 20
LISTEN = tuple(f"127.0.0.1:0?carrier={name}" for name in ("plain", "tls", "http", "ssh"))


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """Play a scenario; whatever hangs fails in the end."""

    async def bounded() -> None:
        async with asyncio.timeout(120):
            await scenario

    asyncio.run(bounded())


class End(Loaded):
    """A node of the dev network."""

    def __init__(self, path: Path, name: str, **changes: Any) -> None:
        super().__init__(Node(config(path, name, **changes)))


@contextlib.asynccontextmanager
async def pair(path: Path, **changes: Any) -> AsyncIterator[tuple[End, End]]:
    """The first has dialled the second, which listens with every carrier."""
    one, other = End(path, "one", listen=(), **changes), End(path, "other", listen=LISTEN, **changes)
    async with other.node, one.node:
        await one.node.connect(other.node.addresses[0])
        await until(other.node.peers)
        yield one, other


async def more_arrives(end: End) -> None:
    """Wait for a few more messages."""
    count = len(end.got)
    await until(lambda: len(end.got) > count + 3)


def place(other: End, carrier: str) -> Address:
    """Where the other one listens with a carrier."""
    return next(address for address in other.node.addresses if address.carrier.name.lower() == carrier)


@pytest.mark.parametrize("sizes", [(0, 100, 400, 3_000), (MIB, 50, MIB, 9_000)])
def test_from_carrier_to_carrier_with_both_directions_loaded(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    async def scenario() -> None:
        async with pair(tmp_path) as (one, other):
            links = one.link, other.link
            is_over = False
            floods = [asyncio.create_task(end.flood(sizes, lambda: is_over)) for end in (one, other)]
            for generation, carrier in enumerate(("tls", "http", "ssh", "plain"), 1):
                await more_arrives(other)
                (moved,) = await one.call("rotate", peer=one.link, to=str(place(other, carrier)))
                assert (moved["outcome"], moved["carrier"], moved["rotations"]) == ("rotated", carrier, generation)
            is_over = True
            await asyncio.gather(*floods)
            await until(lambda: len(other.got) == one.sent and len(one.got) == other.sent)
            assert other.got == list(range(one.sent))
            assert one.got == list(range(other.sent))
            assert (one.link, other.link) == links, "the parts know it by the same number"
            await until(lambda: other.row["rotations"] == 4)
            assert one.row["session_id"] == other.row["session_id"] != one.node.peers()[0].session_id.hex()
            await until(lambda: len(one.node.engine.links) == len(other.node.engine.links) == 1)

    run(scenario())


def test_sums_of_traffic_never_go_back_while_a_link_moves_and_ends(tmp_path: Path) -> None:
    names = ("wire_bytes_sent", "real_bytes_sent", "padding_bytes_sent", "wire_bytes_received")

    async def scenario() -> None:
        async with pair(tmp_path) as (one, other):
            status = control_methods(one.node)["status"]
            cost = control_methods(one.node)["privacy.show"]
            looks: list[tuple[int, ...]] = []

            def look() -> None:
                sums = (*(status()[name] for name in names), cost()["cost"]["wire_bytes_sent"])
                assert not looks or all(map(le, looks[-1], sums)), (looks[-1], sums)
                looks.append(sums)

            one.send(MIB)
            other.send(MIB)
            await until(lambda: bool(one.got and other.got))
            for carrier in ("tls", "ssh"):
                rotated = asyncio.create_task(one.call("rotate", peer=one.link, to=str(place(other, carrier))))
                while not rotated.done():
                    look()
                    await asyncio.sleep(0)
            other.node.disconnect(other.link)
            while one.node.engine.links:
                look()
                await asyncio.sleep(0)
            look()
            assert min(looks[-1][0], looks[-1][3]) > MIB

    run(scenario())


def test_the_side_that_was_dialled_asks_and_the_other_moves(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with pair(tmp_path) as (one, other):
            (asked,) = await other.call("rotate", peer=other.link)
            assert asked["outcome"] == "asked"
            await until(lambda: one.row["rotations"] == other.row["rotations"] == 1)
            await other.call("rotate", peer=other.link)
            await one.node.ping(one.link)
            assert one.row["rotations"] == 1, "not twice within ten minutes"

    run(scenario())


def test_what_is_named_is_chosen_from(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with End(tmp_path, "other", listen=LISTEN).node as other:
            named = tuple(str(address) for address in other.addresses)
            one = End(tmp_path, "one", listen=(), connect=named[:1])
            async with one.node:
                await until(one.node.peers)
                one.node.assembly.rotation._named = tuple(other.addresses)
                (moved,) = await one.call("rotate")
                assert moved["carrier"] in ("tls", "http", "ssh"), "another one than before"
                (moved,) = await one.call("rotate", peer=one.link, carrier="http")
                assert moved["carrier"] == "http"

    run(scenario())


def test_a_move_that_fails_costs_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with pair(tmp_path) as (one, other), End(tmp_path, "stranger", listen=LISTEN).node as stranger:
            (failed,) = await one.call("rotate", peer=one.link, to="obscura://127.0.0.1:1?carrier=plain")
            assert failed["outcome"] == "failed"
            (failed,) = await one.call("rotate", peer=one.link, to=str(stranger.addresses[0]))
            assert failed["outcome"] == "failed"
            assert stranger.peers() == []
            one.send(5)
            other.send(5)
            await until(lambda: one.got == other.got == [0])
            (moved,) = await one.call("rotate", peer=one.link, to=str(place(other, "tls")))
            assert moved["outcome"] == "rotated"
            one.send(5)
            await until(lambda: other.got == [0, 1])

    run(scenario())


def test_a_link_that_ends_right_after_its_move_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with pair(tmp_path) as (one, other):
            publish = one.node.events_out.publish

            def and_end(event: Event) -> None:
                publish(event)
                if event["kind"] == "rotated":
                    one.node.disconnect(one.link)

            monkeypatch.setattr(one.node.events_out, "publish", and_end)
            (moved,) = await one.call("rotate", peer=one.link, to=str(place(other, "tls")))
            assert (moved["outcome"], moved["why"]) == ("failed", "the link moved and ended right after")

    run(scenario())


def test_mistakes_are_told_in_one_sentence(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with pair(tmp_path) as (one, other):
            for end, params, said in (
                (one, {"peer": 999}, "there is no peer 999"),
                (one, {"peer": one.link, "carrier": "smtp"}, "is none of plain, tls"),
                (one, {"peer": one.link, "carrier": "ssh"}, "give one with --to"),
                (one, {"to": "obscura://127.0.0.1:1"}, "say which peer"),
                (other, {"peer": other.link, "carrier": "ssh"}, "chooses where it moves"),
            ):
                with pytest.raises(UserError, match=said):
                    await end.call("rotate", **params)
            onion = f"obscura://{'a' * 56}.onion:80"
            with pytest.raises(UserError):
                await one.call("rotate", peer=one.link, to=onion)

    run(scenario())
