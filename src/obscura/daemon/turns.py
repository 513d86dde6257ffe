"""The turns of a node: one after everything that the loop brought at once, and one when something is due."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from math import inf
from typing import Any

from obscura.daemon.logs import log_fault
from obscura.errors import UserError
from obscura.node.engine import Engine

log = logging.getLogger(__name__)


class Turns:
    """Of one node."""

    def __init__(self, now: Callable[[], float], after: Callable[[], None], fail: Callable[[Exception], None]) -> None:
        """In the loop that is to run them. ``now``: the node's clock, by which deadlines are. ``after`` follows each turn.

        ``fail`` gets what the engine, or who carries its wishes out, failed with: then nothing can be relied on any more.
        """
        self.is_over = False
        self._is_planned = False
        self._is_due = False  # the timer went off
        self._now = now
        self._after = after
        self._fail = fail
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf

    def serve(self, engine: Engine, out: Mapping[type, Callable[[Any], object]]) -> None:
        """Before the first turn. ``out``: by type, who carries out what the engine wants."""
        self._engine = engine
        self._out = out

    def check(self) -> None:
        """Raises ``UserError`` after the end: what is asked for now would never be carried out."""
        if self.is_over:
            raise UserError("the node has stopped and takes nothing any more: make another one, and enter it")

    def plan(self) -> None:
        """Something is to be carried out: once what the loop has at hand is done."""
        if not self._is_planned:
            self._is_planned = True
            self._loop.call_soon(self.turn)

    def turn(self) -> None:
        """Now: what is due, and everything that the engine wants of sockets, disk and subscribers."""
        self._is_planned = False
        if self.is_over:  # a socket's last word after the end
            return
        now = self._now()
        engine, out = self._engine, self._out
        earliest = 0.0
        if self._is_due:  # what became due since has a timer that is over; asking every part twice a turn would show
            self._is_due = False
            try:
                engine.due(now)
            except Exception as fault:  # it comes again: it must not make the node deaf, nor busy with nothing else
                log_fault(log, "what was due", fault)
                earliest = now + 1.0
        try:
            for io in engine.drain(now):
                out[type(io)](io)
            self._after()
            deadline = engine.deadline()
        except Exception as fault:
            self._fail(fault)
            return
        self._arm(max(deadline, earliest))

    def _arm(self, deadline: float) -> None:
        timer = self._timer
        if timer is not None and self._timer_at <= deadline:
            return
        self._disarm()
        if deadline != inf:
            self._timer_at = deadline
            self._timer = self._loop.call_later(max(0.0, deadline - self._now()), self._on_timer)

    def end(self) -> None:
        """Nothing is done any more: the loop may live on, and must not find timers of this node."""
        self.is_over = True
        self._disarm()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        self._timer = None
        self._is_due = True
        self.turn()
