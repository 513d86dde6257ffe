"""replay."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from obscura.cli.frame import Command, Globals, Number, pass_globals
from obscura.cli.output import printable, show_fields, show_json
from obscura.errors import ConfigError, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from obscura.node.recording import AnyRecord

HINT = "--partial replays what is whole"


@click.command(cls=Command)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--until", "until_s", type=Number(0), metavar="SECONDS", help="Stop at this time of the capture.")
@click.option("--partial", is_flag=True, help="Of a capture that was cut, replay what is whole.")
@pass_globals
def replay(globals: Globals, /, folder: Path, until_s: float | None, partial: bool) -> int:
    """Run a capture through the core again.

    DIR is what `obscura run --capture DIR` recorded. Needs no node, no keys and no network. Status 0: it came to
    what the recorded node had; 1: it did not, or the file is damaged.

    \b
    Examples:
      obscura replay /tmp/capture
      obscura replay /tmp/capture --until 30 --json
    """
    from math import inf

    from obscura.ledger.networks import load_network
    from obscura.node.recording import Begin
    from obscura.sim.replay import load

    path = folder / "capture" if folder.is_dir() else folder
    first = next(_records(path, partial), None)
    named = first.network if isinstance(first, Begin) else "dev"
    try:
        network = load_network(globals.network or named)
    except ConfigError as error:
        if globals.network:
            raise
        raise UserError(
            f"{path}: {error}. The file of the network goes with --network; a chain that an application brought is known to that "
            "alone, which has load and play of obscura.sim.replay"
        ) from None
    run = load(_records(path, partial), network)
    run.play(_records(path, partial), inf if until_s is None else until_s)
    if run.end is None and until_s is None and not partial:
        raise UserError(
            f"{path}: lacks its last record, as if the node runs or was killed: nothing to compare with; {HINT}"
        )
    found = run.report()
    if globals.json:
        show_json(found)
    else:
        differs = found.pop("differs")
        penalties = found.pop("penalties")
        show_fields(found)
        for fault in penalties:
            click.echo(f"penalty: peer {fault['peer']}, {fault['points']} points: {printable(fault['why'])}")
        for difference in differs:
            click.echo(f"differs: {printable(difference)}")
    return 1 if found.get("differs") or (not globals.json and differs) else 0


def _records(path: Path, partial: bool) -> Iterator[AnyRecord]:
    """The records of a file. Raises ``UserError``."""
    from obscura.node.recording import Cut, unpack

    try:
        with path.open("rb") as file:
            yield from unpack(file.read, str(path))
    except Cut as cut:
        if not partial:
            raise UserError(f"{cut}; {HINT}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
