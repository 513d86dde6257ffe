"""address, key show, key forget."""

from __future__ import annotations

from typing import Any

import click

from obscura.cli.frame import Command, Globals, Group, pass_globals
from obscura.cli.output import printable, show_json, show_rows


@click.command(cls=Command)
@pass_globals
def address(globals: Globals) -> None:
    """Print the addresses that others reach the node by."""
    own = globals.call("addresses.own")
    if globals.json:
        show_json(own)
        return
    for item in own:
        click.echo(printable(str(item.get("address", item) if isinstance(item, dict) else item)))


@click.group(cls=Group)
def key() -> None:
    """Show own keys; show or forget those that peers have proven."""


@key.command()
@click.argument("address", required=False)
@pass_globals
def show(globals: Globals, address: str | None) -> None:
    """Show the keys of the own listening addresses, or those that are known of a peer's ADDRESS."""
    rows: list[Any] = globals.call("keys.show", address=address)
    if globals.json:
        show_json(rows)
    else:
        show_rows(rows, "This node listens nowhere, so it has no keys; `obscura key show ADDRESS` shows a peer's.")


@key.command()
@click.argument("address")
@pass_globals
def forget(globals: Globals, address: str) -> None:
    """Forget the key of an address, as when its node has been set up anew."""
    result = globals.call("keys.forget", address=address)
    if globals.json:
        show_json(result)
    else:
        click.echo(f"forgot the key of {printable(address)}")
