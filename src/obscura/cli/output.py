"""Printing: JSON for programs, tab-separated columns into a pipe, tables for a terminal.

Nothing that a peer chose reaches a terminal unescaped: no control characters, no reordering marks, no markup.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click


def printable(text: str) -> str:
    r"""The text with every character that does not print as ``\x1b``, ``\u202e`` and the like.

    >>> print(printable("a\x1b[2J\u202eb"))
    a\x1b[2J\u202eb
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def show_json(value: object) -> None:
    """One JSON text, ASCII only, in one line unless a person reads it."""
    click.echo(json.dumps(value, indent=2 if sys.stdout.isatty() else None, default=str))


def show_line(value: Mapping[str, Any]) -> None:
    """One JSON object as a line of a stream, sent at once."""
    sys.stdout.write(json.dumps(value, default=str) + "\n")
    sys.stdout.flush()


def show_fields(fields: Mapping[str, Any]) -> None:
    """One line per field, nested ones by dotted names."""
    flat = dict(_flat(fields, ""))
    width = max((len(name) for name in flat), default=0)
    for name, value in flat.items():
        click.echo(f"{printable(name):{width}}  {_text(value)}")


def _flat(fields: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, Any]]:
    for name, value in fields.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def show_rows(rows: list[dict[str, Any]], nothing: str, columns: Sequence[str] = ()) -> None:
    """A table of ``columns``, else of every field of the rows; ``nothing`` says what having no row means."""
    if not rows:
        click.echo(nothing, err=not sys.stdout.isatty())
        return
    columns = columns or list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_text(row.get(name)) for name in columns] for row in rows]
    if sys.stdout.isatty():
        _show_table(columns, cells)
    else:
        for line in ([printable(name) for name in columns], *cells):
            click.echo("\t".join(line))


def _show_table(columns: Sequence[str], cells: list[list[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="")
    for name in columns:
        table.add_column(Text(printable(name.replace("_", " "))), overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))  # Text, so that brackets in a name are no markup
    Console().print(table)


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value) or "-"
    if isinstance(value, dict):
        return json.dumps(value)
    return printable(str(value))


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int, str], None]]:
    """A bar on a terminal, nothing elsewhere: gets what is done, out of how much, and a word about it."""
    if not sys.stderr.isatty():
        yield lambda done, total, word: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[word]}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None, word="")
        yield lambda done, total, word: bar.update(task, completed=done, total=total, word=word)
