"""dashboard."""

from __future__ import annotations

import click

from obscura.cli.frame import Command, Globals, pass_globals
from obscura.cli.output import show_json


@click.command(cls=Command)
@pass_globals
def dashboard(globals: Globals) -> None:
    """Print an address that opens the running node's dashboard.

    It logs one browser in, once, within two minutes. The node has to run with

    \b
      obscura run --set rpc-http=127.0.0.1:8470 --set dashboard=true
    """
    found = globals.call("dashboard.open")
    address = f"{found['url']}#code={found['code']}"
    if globals.json:
        show_json({"address": address, **found})
        return
    click.echo(address)
    click.echo(
        f"(opens once, within {found['code_s']:.0f} s; later use rpc.cookie in {globals.folder().path})", err=True
    )
