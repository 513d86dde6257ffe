"""What callers of a node wait for: links to come up, answers to pings, room to send more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from obscura.errors import Unreachable
from obscura.node.effects import LinkId, Notify
from obscura.node.engine import Engine


class Awaited:
    """Of one node, by link."""

    def __init__(self) -> None:
        self._outcomes: dict[LinkId, asyncio.Future[str]] = {}
        self._pongs: dict[LinkId, list[asyncio.Future[float]]] = {}
        self._drained: dict[LinkId, list[asyncio.Future[None]]] = {}

    @contextmanager
    def outcome(self, link: LinkId) -> Iterator[asyncio.Future[str]]:
        """Set once the link is established or has failed: to why it failed, or nothing."""
        outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._outcomes[link] = outcome
        try:
            yield outcome
        finally:
            self._outcomes.pop(link, None)

    def pong(self, link: LinkId) -> asyncio.Future[float]:
        """Set to the seconds that the next answer took; ``Unreachable`` once the peer is gone."""
        pong: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._pongs.setdefault(link, []).append(pong)
        return pong

    def room(self, link: LinkId) -> asyncio.Future[None]:
        """Set once nothing waits for the link any more."""
        room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._drained.setdefault(link, []).append(room)
        return room

    def told(self, told: Notify) -> None:
        """Something happened, perhaps on a link. An application may tell under the same kinds, with whatever fields it likes."""
        link = told.fields.get("peer")
        if not isinstance(link, int):
            return
        if told.kind in ("peer-connected", "dial-failed"):
            outcome = self._outcomes.get(link)
            if outcome is not None and not outcome.done():
                outcome.set_result(str(told.fields.get("why", "")))
        elif told.kind == "pong" and isinstance(took_ms := told.fields.get("rtt_ms"), int | float):
            for pong in self._pongs.pop(link, []):
                if not pong.done():
                    pong.set_result(took_ms / 1000)
        elif told.kind == "peer-disconnected" and "reason" in told.fields:
            for pong in self._pongs.pop(link, []):
                if not pong.done():
                    pong.set_exception(Unreachable(f"peer {link} is gone: {told.fields['reason']}"))

    def end(self, why: str) -> None:
        """No turn follows: nobody waits any longer."""
        for outcome in self._outcomes.values():
            if not outcome.done():
                outcome.set_result(why)
        for pong in [pong for pongs in self._pongs.values() for pong in pongs if not pong.done()]:
            pong.set_exception(Unreachable(why))
        for room in [room for rooms in self._drained.values() for room in rooms if not room.done()]:
            room.set_result(None)

    def release(self, engine: Engine) -> None:
        """After a turn: tell who waits for room where there is some."""
        for link in [link for link in self._drained if not engine.waiting(link)]:
            for room in self._drained.pop(link):
                if not room.done():
                    room.set_result(None)
