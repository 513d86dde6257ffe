"""Numbers that the commands here take. A run of nothing shows nothing and would pass, so none is accepted."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable
from math import isfinite


def whole(least: int = 1) -> Callable[[str], int]:
    """For ``type=`` of an argument: a whole number that is at least ``least``."""

    def parsed(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise ArgumentTypeError(f"{text!r} is not a whole number") from None
        if number < least:
            raise ArgumentTypeError(f"{number} is too few: {least} or more")
        return number

    return parsed


def positive(text: str) -> float:
    """For ``type=`` of an argument: a finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a number") from None
    if not (isfinite(number) and number > 0):
        raise ArgumentTypeError(f"{text} is not above 0 and finite")
    return number


def share(text: str) -> float:
    """For ``type=`` of an argument: above 0 and at most 1."""
    number = positive(text)
    if number > 1:
        raise ArgumentTypeError(f"{text} is more than 1, which is all")
    return number
