"""features."""

from __future__ import annotations

from typing import Any

import click

from obscura.cli.frame import Command, Globals, pass_globals
from obscura.cli.output import show_fields, show_json, show_rows


@click.command(cls=Command)
@pass_globals
def features(globals: Globals) -> None:
    """List the features and what becomes of them.

    Asks the running node; if none runs, prints the table of this software.
    """
    from obscura.daemon.client import NoNode

    try:
        found: Any = globals.call("features")
    except NoNode:
        found = built_in()
    if globals.json:
        show_json(found)
    elif isinstance(found, dict):
        _show_node(found)
    else:
        show_rows(found, "none")


def built_in() -> list[dict[str, object]]:
    """The table of this software: word, bit, name, class, whether it is built, meaning."""
    from obscura.handshake.features import TABLE, Feature

    return [
        {
            "name": row.flag.name,
            "word": "features" if isinstance(row.flag, Feature) else "privacy",
            "bit": f"{row.flag.value:#x}",
            "class": row.kind.value,
            "built": row.built,
            "meaning": row.meaning,
        }
        for row in TABLE
    ]


def _show_node(found: dict[str, Any]) -> None:
    tables = {name: value for name, value in found.items() if isinstance(value, list) and value}
    tables = {name: rows for name, rows in tables.items() if all(isinstance(row, dict) for row in rows)}
    show_fields({name: value for name, value in found.items() if name not in tables})
    for rows in tables.values():
        show_rows(rows, "none")
