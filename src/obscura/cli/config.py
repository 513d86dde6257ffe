"""config show, config check, config init, config reload."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from obscura.cli.frame import Failure, Globals, Group, pass_globals
from obscura.cli.output import printable, show_json

HIDDEN = "(set, not shown)"


@click.group(cls=Group)
def config() -> None:
    """Show, check and begin configurations."""


@config.command()
@click.option("--origin", is_flag=True, help="Say where each value comes from.")
@pass_globals
def show(globals: Globals, origin: bool) -> None:
    """Print the configuration that a node would run with, as TOML, without passwords and secret keys."""
    from obscura.daemon.config import Config, value_at
    from obscura.daemon.layers import is_secret, leaves, to_toml

    loaded = globals.load()
    tree: dict[str, Any] = {}
    section: tuple[str, ...] = ()
    for key, field in leaves(Config):
        value, source = value_at(loaded.value, key), loaded.origins[".".join(key)]
        is_hidden = bool(value) and is_secret(field.type)
        if globals.json:
            inner = tree
            for name in key[:-1]:
                inner = inner.setdefault(name, {})
            value = HIDDEN if is_hidden else value
            inner[key[-1]] = {"value": value, "origin": source} if origin else value
            continue
        if key[:-1] != section:
            section = key[:-1]
            click.echo(f"\n[{'.'.join(section)}]")
        if is_hidden:
            line = f"# {key[-1]} = {HIDDEN}"
        else:
            line = f"# {key[-1]} =" if value is None else f"{key[-1]} = {to_toml(value)}"
        click.echo(printable(f"{line}  # {source}" if origin else line))
    if globals.json:
        show_json(tree)


@config.command()
@click.argument("file", required=False)
@pass_globals
def check(globals: Globals, file: str | None) -> None:
    """Check a configuration: FILE alone, or what a node would run with."""
    from obscura.daemon.config import Config, find_file
    from obscura.daemon.layers import from_toml, is_secret, leaves, merge, placed
    from obscura.daemon.listening import by_port
    from obscura.errors import ConfigError

    path = find_file(globals.config) if file is None else Path(file)
    loaded = globals.load() if file is None else merge(Config, from_toml(Config, Path(file)))
    try:
        name = loaded.value.network_name
        by_port(loaded.value.listen or (), loaded.value)
    except ConfigError as error:
        raise placed(error, loaded.origins) from None
    secrets = [".".join(key) for key, field in leaves(Config) if is_secret(field.type)]
    if path and path.stat().st_mode & 0o004 and any(loaded.origins[key].startswith(f"{path}:") for key in secrets):
        told = f"warning: {path} holds a secret, and every user of this machine may read it; 0600 or 0640 is its mode"
        click.echo(printable(told), err=True)
    if globals.json:
        show_json({"file": path, "valid": True, "network": name})
    else:
        click.echo(f"{printable(str(path or 'the configuration'))} is valid (network {name})")


@config.command()
@pass_globals
def reload(globals: Globals) -> None:
    """Have the running node read its configuration again, as SIGHUP does; its links stay."""
    found = globals.call("config.reload")
    if globals.json:
        show_json(found)
        return
    for what, keys in (("changed", found["changed"]), ("needs a restart", found["needs_restart"])):
        click.echo(f"{what}: {', '.join(keys) or 'nothing'}")


@config.command()
@click.argument("file", required=False)
@pass_globals
def init(globals: Globals, file: str | None) -> None:
    """Write a file with every key, its meaning and its default, to FILE, - or where a node looks for it."""
    from obscura.daemon.config import template, user_file
    from obscura.daemon.datadir import write_new
    from obscura.daemon.layers import expanded

    if file == "-":
        click.echo(template(), nl=False)
        return
    named = globals.config if file is None else file
    path = user_file() if named is None else expanded(named)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # 0600 is the user's own; another file may be for a service with a user of its own
        write_new(path, template(), 0o600 if file is None else 0o666)
    except OSError as error:
        if isinstance(error, FileExistsError) and error.filename == str(path):
            raise Failure(f"{path} exists already: edit it, or name another file") from None
        raise Failure(f"{path} cannot be written: {error.strerror}") from None
    if globals.json:
        show_json({"file": path})
    else:
        click.echo(f"wrote {printable(str(path))}")
