"""rpc, events."""

from __future__ import annotations

import json
from typing import Any

import click

from obscura.cli.frame import Command, Globals, pass_globals
from obscura.cli.output import show_json, show_line


def _params(context: click.Context, parameter: click.Parameter, text: str | None) -> Any:
    if text is None:
        return {}
    try:
        params = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"not JSON: {error}", context, parameter) from None
    if not isinstance(params, list | dict):
        raise click.BadParameter('a list such as [1] or an object such as {"peer": 1}', context, parameter)
    return params


@click.command(cls=Command)
@click.argument("method")
@click.argument("params", required=False, callback=_params)
@pass_globals
def rpc(globals: Globals, method: str, params: Any) -> None:
    """Call a method of the running node.

    Prints its result as JSON.

    \b
    Examples:
      obscura rpc rpc.methods
      obscura rpc schema            the OpenRPC document, as rpc.discover
      obscura rpc ping '{"peer": 1}'
    """
    method = "rpc.discover" if method == "schema" else method
    if isinstance(params, list):
        show_json(globals.call(method, *params))
    else:
        show_json(globals.call(method, **params))


@click.command(cls=Command)
@click.option("--kind", "kinds", multiple=True, help="Only events of this kind; may be repeated.")
@pass_globals
def events(globals: Globals, kinds: tuple[str, ...]) -> None:
    """Follow what the running node does, as JSON lines.

    A line {"kind": "lost", "lost": N} stands where N events came faster than they were read.
    """
    with globals.client() as client:
        for event in client.events(kinds or None):
            show_line(event)
