"""token add, token list, token remove."""

from __future__ import annotations

import click

from obscura.cli.frame import Globals, Group, pass_globals
from obscura.cli.output import printable, show_json, show_rows


@click.group(cls=Group)
def token() -> None:
    """Make and end tokens for the RPC over HTTP.

    Each has a scope; a node that runs heeds changes at once.
    """


@token.command()
@click.argument("name")
@click.option(
    "--scope", type=click.Choice(["read", "write", "admin"]), default="read", show_default=True, help="What it may do."
)
@pass_globals
def add(globals: Globals, name: str, scope: str) -> None:
    """Make a token and print it, this once: what is stored is its hash."""
    from obscura.daemon.scope import Scope
    from obscura.daemon.tokens import TokenFile

    secret = TokenFile(globals.folder().rpc_tokens).add(name, Scope.of(scope))
    if globals.json:
        show_json({"name": name, "scope": scope, "secret": secret})
    else:
        click.echo(secret)


@token.command(name="list")
@pass_globals
def list_(globals: Globals) -> None:
    """List the tokens by name."""
    from obscura.daemon.tokens import TokenFile

    rows = [
        {"name": kept.name, "scope": kept.scope, "created": kept.created}
        for kept in TokenFile(globals.folder().rpc_tokens).stored()
    ]
    if globals.json:
        show_json(rows)
    else:
        show_rows(rows, "there are no tokens: `obscura token add NAME` makes one")


@token.command()
@click.argument("name")
@pass_globals
def remove(globals: Globals, name: str) -> None:
    """End a token; connections that use it end with it."""
    from obscura.daemon.tokens import TokenFile

    TokenFile(globals.folder().rpc_tokens).remove(name)
    if globals.json:
        show_json({"removed": name})
    else:
        click.echo(f"removed {printable(name)}")
