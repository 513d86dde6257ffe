"""peers, connect, disconnect, ping."""

from __future__ import annotations

import click

from obscura.cli.frame import Command, Globals, pass_globals
from obscura.cli.output import show_fields, show_json, show_rows

COLUMNS = ("peer", "address", "inbound", "carrier", "pattern", "user_agent", "connected_s")  # --json has all


@click.command(cls=Command)
@pass_globals
def peers(globals: Globals) -> None:
    """List the peers of the running node."""
    rows = globals.call("peers")
    if globals.json:
        show_json(rows)
    else:
        show_rows(rows, "No peers yet; `obscura connect ADDRESS` makes a link.", COLUMNS)


@click.command(cls=Command)
@click.argument("address")
@pass_globals
def connect(globals: Globals, address: str) -> None:
    """Make a link to a peer.

    \b
    Example:
      obscura connect obscura://KEY@127.0.0.1:19733
    """
    made = globals.call("connect", address=address)
    if globals.json:
        show_json(made)
    else:
        show_fields(made)


@click.command(cls=Command)
@click.argument("peer", type=int)
@pass_globals
def disconnect(globals: Globals, peer: int) -> None:
    """End the link to a peer.

    PEER is its number in `obscura peers`.
    """
    result = globals.call("disconnect", peer=peer)
    if globals.json:
        show_json(result)
    else:
        click.echo(f"disconnected peer {peer}")


@click.command(cls=Command)
@click.argument("peer", type=int)
@click.option("--count", default=1, show_default=True, type=click.IntRange(1), help="How many pings.")
@click.option("--interval", default=1.0, show_default=True, type=click.FloatRange(0), help="Seconds between them.")
@pass_globals
def ping(globals: Globals, peer: int, count: int, interval: float) -> None:
    """Measure the round trip to a peer.

    PEER is its number in `obscura peers`.
    """
    import time

    times = []
    with globals.client() as client:
        for number in range(count):
            if number:
                time.sleep(interval)
            times.append(client.call("ping", peer=peer)["rtt_ms"])
            if not globals.json:
                click.echo(f"peer {peer}: {times[-1]:.3f} ms")
    if globals.json:
        show_json({"peer": peer, "rtt_ms": times})
