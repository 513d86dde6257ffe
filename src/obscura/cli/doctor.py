"""doctor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from obscura.cli.frame import Command, Globals, pass_globals
from obscura.cli.output import printable, show_json

if TYPE_CHECKING:
    from obscura.daemon.layers import Loaded

_MARKS = {"fine": "+", "note": "-", "wrong": "!"}


@click.command(cls=Command)
@pass_globals
def doctor(globals: Globals) -> int:
    """Look for what is wrong, and say what to type.

    Looks at the running node's clock, disk, listeners, slots, tor and onion service, or, without one, at what a node of
    this configuration would meet. Connects to nothing but own ports, tor and the proxy.

    Exit status 1 if something is wrong.

    \b
    Examples:
      obscura doctor
      obscura doctor --json | jq '.[] | select(.state == "wrong")'
    """
    found = _findings(globals)
    if globals.json:
        show_json(found)
    else:
        _show(found)
    return 1 if any(finding["state"] == "wrong" for finding in found) else 0


def _findings(globals: Globals) -> list[dict[str, Any]]:
    from obscura.daemon.client import NoNode
    from obscura.errors import ConfigError

    try:
        loaded = globals.load()
        try:
            found: list[dict[str, Any]] = globals.call("doctor")
        except NoNode:
            found = _without_a_node(loaded, globals.start())
    except ConfigError as error:
        wrong = {"check": "configuration", "state": "wrong", "found": str(error), "wrong": "no node starts with it"}
        return [{**wrong, "do": "correct it, then: obscura config check"}]
    return found + _of_the_file(loaded, globals)


def _without_a_node(loaded: Loaded[Any], start: str) -> list[dict[str, Any]]:
    import asyncio

    import msgspec

    from obscura.daemon.examination import examine
    from obscura.doctor.findings import judge

    return [msgspec.to_builtins(finding) for finding in judge(asyncio.run(examine(loaded.value, start=start)))]


def _of_the_file(loaded: Loaded[Any], globals: Globals) -> list[dict[str, Any]]:
    """A configuration file that others may read although it holds secrets: the node does not know its file."""
    import msgspec

    from obscura.daemon.config import find_file
    from obscura.doctor.configuration import exposed_file

    path = find_file(globals.config)
    tor = loaded.value.tor_daemon
    has_secrets = tor.password is not None or bool(tor.client_keys)
    if path is None or not has_secrets:
        return []
    finding = exposed_file(str(path), path.stat().st_mode & 0o777)
    return [] if finding is None else [msgspec.to_builtins(finding)]


def _show(found: list[dict[str, Any]]) -> None:
    width = max(len(finding["check"]) for finding in found)
    for finding in found:
        click.echo(f"{_MARKS[finding['state']]} {finding['check']:{width}}  {printable(finding['found'])}")
        indent = " " * (width + 4)
        if finding["wrong"]:
            click.echo(f"{indent}wrong: {printable(finding['wrong'])}")
        if finding["do"]:
            click.echo(f"{indent}do: {printable(finding['do'])}")
    wrong = sum(finding["state"] == "wrong" for finding in found)
    click.echo("nothing is wrong" if not wrong else f"{wrong} wrong")
