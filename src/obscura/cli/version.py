"""version."""

from __future__ import annotations

import platform

import click

from obscura import __version__
from obscura.cli.frame import Command, Globals, pass_globals
from obscura.cli.output import show_json
from obscura.limits import PROTOCOL_VERSION


@click.command(cls=Command)
@pass_globals
def version(globals: Globals) -> None:
    """Print the version."""
    facts = {"version": __version__, "protocol": PROTOCOL_VERSION, "python": platform.python_version()}
    if globals.json:
        show_json(facts)
    else:
        click.echo(f"obscura {__version__} (protocol {PROTOCOL_VERSION}, Python {facts['python']})")
