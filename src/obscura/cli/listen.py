"""listen."""

from __future__ import annotations

import click

from obscura.cli.frame import Command, Globals, pass_globals
from obscura.cli.output import printable, show_json


@click.command(cls=Command)
@pass_globals
def listen(globals: Globals) -> None:
    """Show where the running node listens and what a stranger sees there.

    A stranger is whoever knows neither the key nor, where joining is on, the network.
    """
    found = globals.call("listeners")
    if globals.json:
        show_json(found)
        return
    for item in found:
        click.echo(printable(str(item["address"])))
        for name, value in item.items():
            if name != "address":
                text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
                click.echo(f"  {name + ':':<14} {printable(text)}")
