"""version."""

from __future__ import annotations

import platform
from importlib import metadata

import click

from obscura.cli.frame import Command, Globals, pass_globals
from obscura.cli.output import show_json
from obscura.limits import PROTOCOL_VERSION


@click.command(cls=Command)
@pass_globals
def version(globals: Globals) -> None:
    """Print the version."""
    try:
        installed = metadata.version("obscura-p2p")
    except metadata.PackageNotFoundError:
        installed = "not installed"
    facts = {"version": installed, "protocol": PROTOCOL_VERSION, "python": platform.python_version()}
    if globals.json:
        show_json(facts)
    else:
        click.echo(f"obscura {installed} (protocol {PROTOCOL_VERSION}, Python {facts['python']})")
