"""What a node answers about the addresses that it knows and the ones that it bans."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from obscura.errors import UserError
from obscura.limits import BOOK_CELLS
from obscura.node.bans import Ban
from obscura.node.book import Entry
from obscura.node.face import Face
from obscura.wire.address import key_text

if TYPE_CHECKING:
    from obscura.daemon.node import Node

AtLeastNone = Annotated[int, Meta(ge=0)]
MAX_LISTED = 100_000  # a full book has fewer


def peer_methods(node: Node) -> dict[str, Callable[..., Any]]:
    """Method names and functions; their docstrings are the help that ``rpc.methods`` shows."""

    def addresses_list(
        table: str | None = None, face: str | None = None, contains: str = "", limit: AtLeastNone = MAX_LISTED
    ) -> list[dict[str, Any]]:
        """The address book: of one table (new, tried), one face, with a text in the address; newest first."""
        if table not in (None, "new", "tried"):
            raise UserError(f"table {table!r} is neither new nor tried")
        faces = [each.name.lower() for each in Face]
        if face not in (None, *faces):
            raise UserError(f"face {face!r} is none of {', '.join(faces)}")
        rows = [_described(entry, time.time()) for entry in node.assembly.book.entries()]
        rows = [
            row
            for row in rows
            if table in (None, row["table"]) and face in (None, row["face"]) and contains in row["address"]
        ]
        rows.sort(key=lambda row: row["last_success_s"] if row["last_success_s"] is not None else inf)
        return rows[:limit]

    def addresses_info() -> dict[str, Any]:
        """How full the address book is, and who the anchors of the next start are."""
        near = node.assembly.neighbours
        new, tried = near.book.sizes
        return {
            "new": new,
            "tried": tried,
            "verified_keys": sum(entry.keys.verified is not None for entry in near.book.entries()),
            "anchors": [f"{endpoint}" for endpoint, _ in near.slots.anchors],
            "discouraged_hosts": near.reputation.discouraged,
            "grouped_by": "asmap" if node.config.asmap else "prefix",
        }

    def addresses_buckets() -> dict[str, Any]:
        """Taken cells of each bucket of the address book's two tables, and how many cells a bucket has."""
        new, tried = node.assembly.book.occupancy()
        return {"cells": BOOK_CELLS, "new": new, "tried": tried}

    def bans_add(subject: str, for_s: Annotated[float, Meta(gt=0)] | None = None) -> dict[str, Any]:
        """Ban a host, a network (a prefix) or an autonomous system, for some seconds or for ever; its links end."""
        near = node.assembly.neighbours
        ban = near.bans.add(subject, inf if for_s is None else for_s)
        node.apply(near.bans.enforce(node.now()))
        return _shown(ban)

    def bans_list() -> list[dict[str, Any]]:
        """The bans in force."""
        return [_shown(ban) for ban in node.assembly.neighbours.bans.in_force()]

    def bans_remove(subject: str) -> bool:
        """Lift a ban."""
        if not node.assembly.neighbours.bans.remove(subject):
            raise UserError(f"{subject} is not banned: `obscura ban list` shows what is")
        return True

    return {
        "addresses.list": addresses_list,
        "addresses.info": addresses_info,
        "addresses.buckets": addresses_buckets,
        "bans.add": bans_add,
        "bans.list": bans_list,
        "bans.remove": bans_remove,
    }


def _described(entry: Entry, unix: float) -> dict[str, Any]:
    keys = entry.keys
    return {
        "address": f"{entry.endpoint}",
        "carrier": entry.carrier.name.lower(),
        "table": "tried" if entry.is_tried else "new",
        "face": entry.face.name.lower(),
        "key": "hard"
        if keys.is_hard
        else "verified"
        if keys.verified is not None
        else "told"
        if keys.is_known
        else None,
        "verified_key": key_text(keys.verified) if keys.verified is not None else None,
        "candidates": [key_text(candidate.key) for candidate in keys.candidates],
        "seen_s": round(unix - entry.seen),
        "last_attempt_s": round(unix - entry.attempted) if entry.attempted else None,
        "last_success_s": round(unix - entry.succeeded) if entry.succeeded else None,
        "failures": entry.failures,
        "feelers_only": entry.feelers_only,
    }


def _shown(ban: Ban) -> dict[str, Any]:
    return {"subject": ban.subject, "ends_s": None if ban.until == inf else max(0, round(ban.until - time.time()))}
