"""peers, connect, disconnect, rotate, ping."""

from __future__ import annotations

import click

from obscura.cli.frame import Command, Globals, Number, pass_globals
from obscura.cli.output import show_fields, show_json, show_rows

# --json has all.
COLUMNS = ("peer", "address", "inbound", "carrier", "pattern", "user_agent", "rotations", "connected_s")


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
@click.argument("peer", type=int, required=False)
@click.option("--to", metavar="ADDRESS", help="Another address of the same peer.")
@click.option("--carrier", help="The carrier to move to, of those that the peer is known to have.")
@pass_globals
def rotate(globals: Globals, peer: int | None, to: str | None, carrier: str | None) -> int:
    """Move links to new connections, under load and without a gap.

    PEER is its number in `obscura peers`; without it all links that this node made are moved. What a peer is known to
    have beside its present address is chosen from at random. A peer that made its link itself is asked to move it, and
    may decline. If a move fails, the link goes on as it was.

    \b
    Examples:
      obscura rotate
      obscura rotate 3 --carrier ssh
      obscura rotate 3 --to 'obscura://KEY@127.0.0.1:4443?carrier=tls'
    """
    rows = globals.call("rotate", peer=peer, to=to, carrier=carrier)
    if globals.json:
        show_json(rows)
    else:
        shown = ("peer", "outcome", "address", "carrier", "rotations", "why")
        rows_shown = [{key: row.get(key) for key in shown} for row in rows]
        show_rows(rows_shown, "No links that this node made; `obscura peers` lists all.", shown)
    return int(any(row["outcome"] == "failed" for row in rows))


@click.command(cls=Command)
@click.argument("peer", type=int)
@click.option("--count", default=1, show_default=True, type=click.IntRange(1), help="How many pings.")
@click.option("--interval", default=1.0, show_default=True, type=Number(0), help="Seconds between them.")
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
