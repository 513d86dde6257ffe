"""addresses, ban."""

from __future__ import annotations

import re

import click

from obscura.cli.frame import Command, Globals, Group, pass_globals
from obscura.cli.output import show_fields, show_json, show_rows

COLUMNS = ("address", "carrier", "table", "face", "key", "seen_s", "last_success_s", "failures")  # --json has all
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


@click.command(cls=Command)
@click.argument("contains", default="")
@click.option("--table", type=click.Choice(["new", "tried"]), help="Only what others told, or only what answered us.")
@click.option("--face", type=click.Choice(["clearnet", "onion", "i2p"]), help="Only what was learnt through this face.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="How many at most.")
@click.option("--info", is_flag=True, help="How full the book is, instead.")
@pass_globals
def addresses(globals: Globals, contains: str, table: str | None, face: str | None, limit: int, info: bool) -> None:
    """List the addresses of other nodes that the node knows.

    \b
    Examples:
      obscura addresses --table tried
      obscura addresses 203.0.113. --json
    """
    if info:
        found = globals.call("addresses.info")
        (show_json if globals.json else show_fields)(found)
        return
    rows = globals.call("addresses.list", table=table, face=face, contains=contains, limit=limit)
    if globals.json:
        show_json(rows)
    else:
        show_rows(rows, "No such addresses; a node learns them from its peers.", COLUMNS)


@click.group(cls=Group)
def ban() -> None:
    """Ban hosts, networks and autonomous systems."""


def _seconds(context: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    found = re.fullmatch(r"(0*[1-9][0-9]{0,8})([smhdw])", text)
    if found is None:
        raise click.BadParameter("a number and one of s, m, h, d, w, such as 24h", context, parameter)
    return float(int(found[1]) * _UNITS[found[2]])


@ban.command("add")
@click.argument("subject", metavar="ADDRESS|GROUP|asN")
@click.option("--for", "for_s", callback=_seconds, metavar="TIME", help="How long, such as 24h; without it for ever.")
@pass_globals
def add(globals: Globals, subject: str, for_s: float | None) -> None:
    """Refuse all links with a host, a network or an autonomous system.

    Links that stand are ended. A ban is never by port.

    \b
    Examples:
      obscura ban add 203.0.113.5 --for 24h
      obscura ban add 203.0.0.0/16
      obscura ban add as64500
    """
    made = globals.call("bans.add", subject=subject, for_s=for_s)
    if globals.json:
        show_json(made)
    else:
        click.echo(f"banned {made['subject']}" + ("" if made["ends_s"] is None else f" for {made['ends_s']} s"))


@ban.command("list")
@pass_globals
def list_(globals: Globals) -> None:
    """List the bans in force."""
    rows = globals.call("bans.list")
    if globals.json:
        show_json(rows)
    else:
        show_rows(rows, "Nobody is banned.")


@ban.command("remove")
@click.argument("subject", metavar="ADDRESS|GROUP|asN")
@pass_globals
def remove(globals: Globals, subject: str) -> None:
    """Lift a ban."""
    result = globals.call("bans.remove", subject=subject)
    if globals.json:
        show_json(result)
    else:
        click.echo(f"{subject} is no longer banned")
