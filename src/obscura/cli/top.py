"""top: the essentials of a running node, refreshed in a terminal."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import click
from rich.cells import set_cell_size

from obscura.cli.frame import Command, Globals, Number, pass_globals
from obscura.cli.output import printable, show_json, show_line

SENT = ("real_bytes_sent", "padding_bytes_sent", "dummy_bytes_sent", "wire_bytes_sent")
COLUMNS = ("peer", "address", "network", "carrier", "slot", "program", "since", "ping", "sent", "received")
WIDTHS = (5, 26, 8, 7, 8, 18, 8, 7, 8, 8)
CLEAR, HOME, REST = "\x1b[2J", "\x1b[H", "\x1b[0J"
OWN_SCREEN, OLD_SCREEN = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


class Seen(NamedTuple):
    """One look at the node. ``at`` in seconds of the monotonic clock."""

    at: float
    status: Mapping[str, Any]
    peers: list[dict[str, Any]]


class Rates(NamedTuple):
    """Bytes per second between two looks; ``rest`` are seals and carriers."""

    real: float
    cover: float
    rest: float
    received: float


def rates(before: Seen | None, now: Seen) -> Rates | None:
    """Nothing for the first look, nor across a restart of the node."""
    if before is None or now.at <= before.at or now.status["uptime_s"] < before.status["uptime_s"]:
        return None
    real, padding, dummies, wire = (max(0, now.status[name] - before.status[name]) for name in SENT)
    known = {peer["peer"]: peer["wire_bytes_received"] for peer in before.peers}
    received = sum(
        max(0, peer["wire_bytes_received"] - known[peer["peer"]]) for peer in now.peers if peer["peer"] in known
    )
    cover = padding + dummies
    seconds = now.at - before.at
    return Rates(*(count / seconds for count in (real, cover, max(0, wire - real - cover), received)))


def size(count: float) -> str:
    """Bytes as people read them.

    >>> size(1_234_567)
    '1.2 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.1f} {unit}" if 0 < count < 9.95 and unit != "B" else f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def span(seconds: float) -> str:
    """A length of time as people read it.

    >>> span(3_700)
    '1h01m'
    """
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days}d{hours:02}h" if days else f"{hours}h{minutes:02}m" if hours else f"{minutes}m{left:02}s"


def frame(now: Seen, flow: Rates | None, width: int, height: int | None = None) -> list[str]:
    """The lines of the screen, none wider than ``width``, no more than ``height`` (None = all).

    In cells of the terminal: a peer's name of characters that are two wide would wrap its line, and push the rest off the screen.
    """
    status = now.status
    count = status["peers"]
    behind = f" of {status['headers']}" if status["headers"] > status["height"] else ""
    moving = (  # what is received first: so 80 columns cut words, and no number
        f"received {size(flow.received)}/s; "
        f"sent {size(flow.real)}/s real, {size(flow.cover)}/s cover, {size(flow.rest)}/s seals and carriers"
        if flow
        else "measuring"
    )
    wire, real = status["wire_bytes_sent"], status["real_bytes_sent"]
    cost = f"{wire / real:.1f} bytes for each real one" if real else "nothing real yet"
    lines = [
        f"obscura {status['version']}  {status['network']}  privacy {status['privacy']}  up {span(status['uptime_s'])}",
        f"chain    height {status['height']}{behind}  tip {status['tip'][:24]}…",
        f"mempool  {status['mempool_transactions']} transactions, {size(status['mempool_bytes'])}",
        f"traffic  {moving}",
        f"in all   sent {size(wire)}, {cost}",
        f"peers    {count['outbound']} out, {count['inbound']} in; {status['known_addresses']} addresses known",
        "",
    ]
    rows = [_row(COLUMNS), *(_row(_cells(peer)) for peer in now.peers)] if now.peers else ["no peers yet"]
    if height is not None and len(lines) + len(rows) > height:
        left = max(1, height - len(lines) - 1)
        rows = [*rows[:left], f"… and {len(rows) - left} more: `obscura peers`"]
    return [set_cell_size(printable(line), width).rstrip() for line in (*lines, *rows)][:height]


def _cells(peer: Mapping[str, Any]) -> tuple[str, ...]:
    slot = "manual" if peer["manual"] else "inbound" if peer["inbound"] else peer["purpose"]
    ping = peer["best_ping_ms"]
    return (
        str(peer["peer"]),
        peer["address"].partition("@")[2] or peer["address"],
        peer["face"],
        peer["carrier"],
        slot,
        peer["user_agent"],
        span(peer["connected_s"]),
        "-" if ping is None else f"{ping:.0f} ms",
        size(peer["wire_bytes_sent"]),
        size(peer["wire_bytes_received"]),
    )


def _row(cells: tuple[str, ...]) -> str:
    return " ".join(set_cell_size(printable(cell), width) for cell, width in zip(cells, WIDTHS, strict=True)).rstrip()


@click.command(cls=Command)
@click.option("--once", is_flag=True, help="Look twice, one interval apart, print and end.")
@click.option("--interval", type=Number(0.2, 3600), default=2.0, show_default=True, help="Seconds between looks.")
@pass_globals
def top(globals: Globals, once: bool, interval: float) -> None:
    """Watch the running node in the terminal.

    q or Ctrl-C ends it. Into a pipe, and with --json, every look is printed below the one before.
    """
    is_screen = sys.stdin.isatty() and sys.stdout.isatty() and not (once or globals.json)
    with globals.client() as client, _screen() if is_screen else contextlib.nullcontext(0):
        before: Seen | None = None
        while True:
            now = Seen(time.monotonic(), client.call("status"), client.call("peers"))
            flow = rates(before, now)
            if is_screen:
                _paint(now, flow)
            elif before is not None and globals.json:
                told = {"status": now.status, "peers": now.peers, "rates": flow._asdict() if flow else None}
                show_json(told) if once else show_line(told)
            elif before is not None:
                click.echo("\n".join([*frame(now, flow, width=1000), ""]))
            if (once and before is not None) or not _waited(interval, is_screen, now, flow):
                return
            before = now


def _waited(interval: float, is_screen: bool, now: Seen, flow: Rates | None) -> bool:
    """Wait for the next look; False when q was typed. A window of another size is painted anew at once."""
    if not is_screen:
        time.sleep(interval)
        return True
    until = time.monotonic() + interval
    shown = _size()
    while (left := until - time.monotonic()) > 0:
        if select.select([sys.stdin], [], [], min(left, 0.2))[0]:
            typed = os.read(sys.stdin.fileno(), 64)
            if not typed or b"q" in typed.lower():
                return False
        if _size() != shown:
            shown = _size()
            _paint(now, flow)
    return True


def _size() -> os.terminal_size:
    """Of the terminal itself: an environment that says COLUMNS stays as it was when the window does not."""
    size = os.get_terminal_size(sys.stdout.fileno())
    return size if all(size) else os.terminal_size((80, 24))


def _paint(now: Seen, flow: Rates | None) -> None:
    width, height = _size()
    lines = frame(now, flow, width, max(1, height - 1))
    sys.stdout.write(HOME + "".join(f"{line}\x1b[K\r\n" for line in lines) + REST)
    sys.stdout.flush()


@contextlib.contextmanager
def _screen() -> Iterator[int]:
    """A screen of its own that hands over each key at once; the terminal is as it was afterwards."""
    import termios
    import tty

    keys = sys.stdin.fileno()
    was = termios.tcgetattr(keys)
    try:
        tty.setcbreak(keys)
        sys.stdout.write(OWN_SCREEN + CLEAR)
        yield keys
    finally:
        termios.tcsetattr(keys, termios.TCSADRAIN, was)
        sys.stdout.write(OLD_SCREEN)
        sys.stdout.flush()
