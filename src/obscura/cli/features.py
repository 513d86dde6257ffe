"""features."""

from __future__ import annotations

import click

from obscura.cli.frame import Command, Globals, pass_globals
from obscura.cli.output import show_json, show_rows


@click.command(cls=Command)
@pass_globals
def features(globals: Globals) -> None:
    """List the features and what becomes of them.

    Asks the running node; if none runs, prints the table of this software.
    """
    from obscura.daemon.client import NoNode
    from obscura.handshake.features import describe

    try:
        found = globals.call("features")
    except NoNode:
        found = describe()
    if globals.json:
        show_json(found)
    else:
        show_rows(found, "No features.")
