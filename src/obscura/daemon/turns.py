"""When a node has its turns: one after everything that the loop brought at once, and one when something is due."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf


class Turns:
    """Of one node. ``turn``, what it does then, unsets ``is_planned`` and ``is_due`` and gives ``arm`` the next deadline."""

    def __init__(self, turn: Callable[[], None], now: Callable[[], float]) -> None:
        """In the loop that is to run them. ``now``: the node's clock, by which deadlines are."""
        self.is_planned = False
        self.is_due = False  # the timer went off
        self.is_over = False
        self._turn = turn
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf

    def plan(self) -> None:
        """Something is to be carried out: once what the loop has at hand is done."""
        if not self.is_planned:
            self.is_planned = True
            self._loop.call_soon(self._turn)

    def arm(self, deadline: float) -> None:
        """The next turn is at ``deadline`` at the latest."""
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
        self.is_due = True
        self._turn()
