"""Events of a node to whoever listens: bounded for each listener, who is told how many it lost."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Mapping
from typing import Any

from obscura.daemon.jsonrpc import one_or_many
from obscura.limits import RPC_EVENTS_QUEUED

Event = Mapping[str, Any]


class Subscription:
    """What one listener has not taken yet. ``async for event in subscription`` ends when it is closed.

    Events that find the queue full are dropped; in their place stands ``{"kind": "lost", "lost": N}``.
    """

    def __init__(self, broadcast: Broadcast, kinds: Collection[str] | None, capacity: int) -> None:
        self._broadcast = broadcast
        self._kinds = None if kinds is None else frozenset(one_or_many(kinds))
        self._capacity = capacity
        self._events: deque[Event] = deque()
        self._lost = 0
        self._closed = False
        self._changed = asyncio.Event()

    def offer(self, event: Event) -> None:
        """Queue the event if it is of a wanted kind."""
        if self._kinds is not None and event.get("kind") not in self._kinds:
            return
        if len(self._events) >= self._capacity:
            self._lost += 1
            return
        self._tell_lost()
        self._events.append(event)
        self._changed.set()

    def close(self) -> None:
        """Take no more; what is queued can still be read."""
        self._broadcast.leave(self)
        self._closed = True
        self._changed.set()

    def _tell_lost(self) -> None:
        if self._lost:
            self._events.append({"kind": "lost", "lost": self._lost})
            self._lost = 0

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            self._tell_lost()
            if self._events:
                break
            if self._closed:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._events.popleft()


class Broadcast:
    """Where a node publishes its events. Belongs to one event loop; ``publish`` never waits, never fails."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()

    def publish(self, event: Event) -> None:
        """Give an event (a dict with a ``kind``) to every listener. It must not be changed afterwards."""
        for subscription in self._subscriptions:
            subscription.offer(event)

    def subscribe(self, kinds: Collection[str] | None = None, capacity: int = RPC_EVENTS_QUEUED) -> Subscription:
        """Listen from now on, to all kinds or to ``kinds``."""
        subscription = Subscription(self, kinds, capacity)
        self._subscriptions.add(subscription)
        return subscription

    def leave(self, subscription: Subscription) -> None:
        """Publish to this listener no more."""
        self._subscriptions.discard(subscription)

    def close(self) -> None:
        """End every subscription after what it holds."""
        for subscription in list(self._subscriptions):
            subscription.close()

    def __len__(self) -> int:
        return len(self._subscriptions)
