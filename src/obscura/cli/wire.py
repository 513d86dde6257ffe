"""wire decode, wire encode."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import BinaryIO

import click

from obscura.cli.frame import Failure, Globals, Group, pass_globals
from obscura.cli.output import show_json, show_line
from obscura.errors import UserError


@click.group(cls=Group)
def wire() -> None:
    """Turn frames into JSON and back."""


@wire.command()
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--hex", "form", flag_value="hex", help="The input is hex, with white space anywhere.")
@click.option("--raw", "form", flag_value="raw", help="The input is bytes.")
def decode(file: BinaryIO, form: str | None) -> None:
    """Print one JSON object for each frame of FILE, or of standard input.

    Hex is recognised by itself. After the frames before it, a violation ends in an error and status 1.

    \b
    Example:
      echo 0000000076657261636b0000000000005df6e0e2 | obscura wire decode
    """
    from obscura.errors import Violation
    from obscura.wire.jsonform import decode_stream, from_hex, looks_hex

    data = file.read()
    if form == "hex" or (form is None and looks_hex(data)):
        data = from_hex(data)
    try:
        for frame in decode_stream(data):
            show_line(frame)
    except Violation as fault:
        raise Failure(f"the next frame breaks the protocol: {fault}") from None


@wire.command()
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--hex", "form", flag_value="hex", help="Write hex, a line for each frame.")
@click.option("--raw", "form", flag_value="raw", help="Write bytes, even to a terminal.")
@pass_globals
def encode(globals: Globals, /, file: BinaryIO, form: str | None) -> None:
    """Write the frames of JSON objects, one per line of FILE or of standard input."""
    frames = _frames(file)
    if globals.json:
        show_json({"frames": [frame.hex() for frame in frames]})
        return
    as_hex = form == "hex" or (form is None and sys.stdout.isatty())
    for frame in frames:
        click.echo(frame.hex() if as_hex else frame, nl=as_hex)


def _frames(file: BinaryIO) -> Iterator[bytes]:
    from obscura.wire.jsonform import encode_object

    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            yield encode_object(json.loads(line))
        except UserError as error:
            raise Failure(f"line {number}: {error}") from None
        except (ValueError, RecursionError) as error:
            raise Failure(f"line {number} is not JSON: {error}") from None
