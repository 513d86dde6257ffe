"""The site behind a web listener, as far as a carrier knows it: a port, whose sockets are the daemon's."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Ticket(ABC):
    """One request that is with the site behind. Nothing here blocks."""

    @property
    @abstractmethod
    def failure(self) -> int:
        """502 or 504 once it failed before a head came; else 0."""

    @abstractmethod
    def take(self) -> bytes:
        """What has come since; b"" if nothing has."""

    @property
    @abstractmethod
    def is_over(self) -> bool:
        """Whether ``take`` will give nothing any more."""

    @abstractmethod
    def drop(self) -> None:
        """Nobody wants the answer any more."""


class Upstream(ABC):
    """The site behind."""

    @abstractmethod
    def ask(self, request: bytes) -> Ticket:
        """Send a whole request over a connection of its own."""
