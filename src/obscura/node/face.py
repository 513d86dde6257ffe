"""Through which face a link runs, and what an outbound link is for."""

from __future__ import annotations

from enum import IntEnum


class Face(IntEnum):
    """Through which of the node's faces a link runs (design 5). The number is the prologue's listener kind."""

    CLEARNET = 1
    ONION = 2
    I2P = 3


class Purpose(IntEnum):
    """What an outbound link is for (design 10). Inbound links are FULL."""

    FULL = 0  # everything
    BLOCKS = 1  # blocks only: no addresses and no transactions, so that watching those does not show the link
    FEELER = 2  # ends once the peer has proved itself; tests an address, carries nothing
