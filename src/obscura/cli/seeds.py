"""seeds: show, ask, keygen, sign."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from obscura.cli.frame import Failure, Globals, Group, global_options, pass_globals
from obscura.cli.output import printable, show_fields, show_json, show_rows

_PROVIDERS = ("provider", "operator", "host", "addresses", "asked", "outcome")


class _Seeds(Group):
    """A group that is a command of its own where no other follows, with the global options behind it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += global_options(hidden=True)


@click.group(cls=_Seeds, invoke_without_command=True)
@click.pass_context
def seeds(context: click.Context) -> None:
    """Show whom the node asks for its first peers; sign lists of them.

    Without a subcommand: what the running node did, or what a node with this configuration would ask.

    \b
    Examples:
      obscura seeds
      obscura seeds ask
      obscura seeds keygen seed.key
      obscura seeds sign --key seed.key --name seeds.example.org --file seeds.txt
    """
    if context.invoked_subcommand is None:
        globals = context.find_root().ensure_object(Globals)
        _print(globals, _told(globals, "seeds.show") or _planned(globals).show(0.0))


@seeds.command()
@pass_globals
def ask(globals: Globals) -> None:
    """Ask now, through the running node if there is one, and show what came back."""
    _print(globals, _told(globals, "seeds.ask") or _asked(globals))


@seeds.command()
@click.argument("file", type=click.Path(path_type=Path))
@pass_globals
def keygen(globals: Globals, file: Path) -> None:
    """Make the key that a network's lists of seeds are signed with.

    FILE gets the secret key (mode 0600, never overwritten); what is printed goes into the network's file as seed-key.
    """
    from obscura.daemon.seed_key import make

    public = make(file)
    if globals.json:
        show_json({"file": str(file), "seed-key": public})
    else:
        click.echo(f'seed-key = "{public}"')


@seeds.command()
@click.argument("addresses", nargs=-1)
@click.option("--key", "key_file", required=True, type=click.Path(path_type=Path), help="Secret key of `seeds keygen`.")
@click.option("--name", required=True, help="DNS name that the records are published under.")
@click.option("--file", "list_file", type=click.File(), help="More addresses, one per line; - is standard input.")
@click.option("--days", default=30, show_default=True, type=click.IntRange(1), help="How long nodes take the list.")
@click.option(
    "--sequence",
    type=click.IntRange(1),
    help="Number of the list, above all before; default: the time.",
)
@click.option(
    "--ttl",
    default=3_600,
    show_default=True,
    type=click.IntRange(0),
    help="Seconds that DNS may keep it.",
)
@pass_globals
def sign(
    globals: Globals,
    addresses: tuple[str, ...],
    key_file: Path,
    name: str,
    list_file: Iterable[str] | None,
    days: int,
    sequence: int | None,
    ttl: int,
) -> None:
    """Sign a list of seeds; prints its TXT records as lines of a zone file.

    ADDRESSES are obscura:// addresses. The list is for the network of --network and for --name only.
    """
    from obscura.daemon.seed_key import sign_list

    network = _network(globals)
    try:
        lines = [line.strip() for line in list_file or ()]
    except UnicodeDecodeError:
        raise Failure("the list of --file is not UTF-8 text: it has one address per line") from None
    wanted = [*addresses, *(line for line in lines if line and not line.startswith("#"))]
    signed = sign_list(network.id, name, key_file, wanted, days, sequence)
    if network.seed_key not in (None, signed.public):
        raise Failure(f"{key_file} is not the key of the network {network.name}: its nodes would refuse the list")
    if globals.json:
        show_json({"name": name, "sequence": signed.sequence, "expires": signed.expires, "records": signed.records})
        return
    for line in signed.zone_lines(ttl):
        click.echo(line)


def _network(globals: Globals) -> Any:
    from obscura.ledger.networks import load_network

    return load_network(globals.load().value.network)


def _told(globals: Globals, method: str) -> dict[str, Any] | None:
    """What the running node says; None if none runs."""
    from obscura.daemon.client import NoNode

    try:
        said: dict[str, Any] = globals.call(method)
    except NoNode:
        return None
    return said


def _planned(globals: Globals) -> Any:
    from obscura.daemon.discovery import without_node

    return without_node(globals.load().value)


def _asked(globals: Globals) -> dict[str, Any]:
    import asyncio
    import random

    from obscura.daemon.discovery import ask_once

    if not globals.load().value.plan.may_ask_directly:
        raise Failure(
            "this would ask directly, but tor, a proxy or I2P alone is configured: start the node, which asks through it"
        )
    wanted = _planned(globals)
    asyncio.run(ask_once(wanted, random.SystemRandom()))
    said: dict[str, Any] = wanted.show(0.0)
    return said


def _print(globals: Globals, said: dict[str, Any]) -> None:
    if globals.json:
        show_json(said)
        return
    show_fields({key: value for key, value in said.items() if key not in ("providers", "answers", "found")})
    click.echo()
    show_rows(said["providers"], "Nobody is asked.", _PROVIDERS)
    click.echo()
    show_rows(said["found"], "No seeds were found yet.")
    if said["enabled"] and not said["names"]:
        click.echo(printable("This network names no place in the DNS: set seeds.names, or seed-names in its file."))
