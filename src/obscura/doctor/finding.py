"""One line of the doctor's report, and the short ways to write it."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class State(StrEnum):
    """How a thing stands."""

    FINE = "fine"
    NOTE = "note"  # nothing is broken: not checked, or worth knowing
    WRONG = "wrong"


class Finding(msgspec.Struct, frozen=True):
    """One line of the report. ``wrong`` and ``do`` (what to type, or to change) are there where there is something to do."""

    check: str
    state: State
    found: str
    wrong: str | None = None
    do: str | None = None


def fine(check: str, found: str) -> Finding:
    """It is as it should be."""
    return Finding(check, State.FINE, found)


def note(check: str, found: str, do: str | None = None) -> Finding:
    """Not checked, or worth knowing."""
    return Finding(check, State.NOTE, found, None, do)


def wrong(check: str, found: str, because: str, do: str) -> Finding:
    """``because`` says what follows from it, ``do`` what to type."""
    return Finding(check, State.WRONG, found, because, do)


def count(number: int, one: str, more: str | None = None) -> str:
    """A number of things."""
    return f"{number} {one if number == 1 else more or one + 's'}"


def span(seconds: int) -> str:
    """A time that people read."""
    return (
        f"{seconds} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7_200
        else f"{seconds / 3_600:.1f} h"
    )
