"""run, stop, status."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click

from obscura.cli.frame import Command, Failure, Globals, pass_globals
from obscura.cli.output import show_fields, show_json, show_line

STOP_S = 30.0  # seconds that `stop` waits for the node's end
POLL_S = 0.05


def _assignments(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    assigned = {}
    for text in values:
        key, equals, value = text.partition("=")
        if not equals:
            raise click.BadParameter(f"{text!r} is not KEY=VALUE", context, parameter)
        assigned[key.strip()] = value.strip()
    return assigned


@click.command(cls=Command)
@click.option("--privacy", metavar="LEVEL", help="standard, medium, high or custom.")
@click.option("--listen", metavar="HOST:PORT", multiple=True, help="Accept links here; may be repeated.")
@click.option("--no-listen", is_flag=True, help="Accept no links.")
@click.option("--connect", metavar="ADDRESS", multiple=True, help="Keep a link to this peer; may be repeated.")
@click.option("--tor", metavar="WHICH", help="auto: a tor that runs here; managed: one of its own; off.")
@click.option("--i2p", metavar="WHICH", help="auto: the I2P router that runs here (SAM); off.")
@click.option(
    "--only-net", metavar="NETWORK", multiple=True, help="Use nothing but tor, i2p or clearnet; may be repeated."
)
@click.option("--proxy", metavar="IP:PORT", help="SOCKS5 proxy for clearnet and lookups, or the word tor.")
@click.option("--unlisted", is_flag=True, help="Never announce the own address.")
@click.option("--allow-unauthenticated", is_flag=True, help="Link to clearnet addresses without a key.")
@click.option("--allow-plaintext", is_flag=True, help="Accept links without the secure channel.")
@click.option("--capture", metavar="DIR", help="Record all that peers send, private transactions too, for `replay`.")
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error; also MODULE=LEVEL.")
@click.option("--log-format", metavar="FORM", help="text or json.")
@click.option("--unsafe-logs", is_flag=True, help="Log addresses, keys and transactions: for debugging only.")
@click.option(
    "--set",
    "assigned",
    metavar="KEY=VALUE",
    multiple=True,
    callback=_assignments,
    help="Any configuration key.",
)
@pass_globals
def run(globals: Globals, /, listen: tuple[str, ...], no_listen: bool, assigned: dict[str, str], **given: Any) -> int:
    """Run a node until Ctrl-C, SIGTERM or `obscura stop`.

    Prints a line for each address that it listens on as soon as it does.

    \b
    Examples:
      obscura run --network dev
      obscura run --network dev --listen 127.0.0.1:0 --connect obscura://KEY@HOST:PORT
    """
    from obscura.daemon import runtime
    from obscura.daemon.layers import placed
    from obscura.errors import ConfigError

    if listen and no_listen:
        raise click.UsageError("--listen and --no-listen exclude each other")
    # An option that is not given is None, False or (). "" is: what an unset variable gave is refused, not a proxy left out
    flags = {name.replace("_", "-"): None if value in (None, False, ()) else value for name, value in given.items()}
    flags["listen"] = listen or (() if no_listen else None)
    loaded = globals.load(flags, assigned)

    def ready(facts: Mapping[str, Any]) -> None:
        if globals.json:
            show_line(facts)
            return
        for address in facts["addresses"]:
            click.echo(address)
        sys.stdout.flush()  # what started the node may wait for it

    try:
        return runtime.run(loaded.value, ready=ready, load=lambda: globals.load(flags, assigned))
    except ConfigError as error:  # what only a node that starts finds out: doors, files
        raise placed(error, loaded.origins) from None


@click.command(cls=Command)
@pass_globals
def stop(globals: Globals) -> None:
    """Stop the running node and wait for its end."""
    import time

    folder = globals.folder()
    pid = folder.holder()
    globals.call("stop")
    deadline = time.monotonic() + STOP_S
    while pid is not None and folder.holder() == pid:
        if time.monotonic() > deadline:
            raise Failure(f"the node (pid {pid}) has not ended after {STOP_S:g} s: see its log")
        time.sleep(POLL_S)
    if globals.json:
        show_json({"stopped": True, "pid": pid})


@click.command(cls=Command)
@pass_globals
def status(globals: Globals) -> None:
    """Show how the running node is doing."""
    found = globals.call("status")
    if globals.json:
        show_json(found)
    else:
        show_fields(found)
