"""The log of a process: levels by module, text or JSON lines, and nothing in it that identifies anybody.

Addresses, keys, ids and secrets are cut out of every line, also where the text of a fault brings them, unless ``unsafe-logs``
is set. What a node does is logged from its events, by the fields of each kind that identify nobody.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import AsyncIterable, Mapping
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import msgspec

from obscura.daemon.events import Event
from obscura.errors import ConfigError, ExtensionFault

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_ROOT = "obscura"
log = logging.getLogger(__name__)
told = logging.getLogger(f"{_ROOT}.events")

_HIDDEN = (
    (re.compile(r"obscura://[^\s'\"]+"), "[address]"),
    (re.compile(r"\b[a-z2-7]{16,56}\.onion(:\d+)?", re.ASCII), "[address]"),
    (re.compile(r"\b[A-Za-z0-9~.-]+\.i2p(:\d+)?", re.ASCII), "[address]"),
    (re.compile(r"\[[0-9a-fA-F:.%]*:[0-9a-fA-F:.%a-z]*\](:\d+)?"), "[address]"),
    (
        re.compile(r"(?<![\w:.])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}(?:\d{1,3}(?:\.\d{1,3}){3})?(?![\w:])"),
        "[address]",
    ),
    (re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?:/\d+)?(?::\d+)?(?![\w.]*\d)"), "[address]"),
    # "toml" is no domain: it is a line of a configuration, which an error has to name
    (re.compile(r"\b(?:[A-Za-z0-9_-]+\.)+(?!toml:)[A-Za-z]{2,}:\d+\b"), "[address]"),
    (re.compile(r"\b[a-z2-7]{52}\b"), "[key]"),
    (re.compile(r"\b(?:0x)?[0-9a-fA-F]{16,}\b"), "[id]"),
    (re.compile(r"(?<![\w-])[A-Za-z0-9_~+=-]{40,}"), "[secret]"),
)

# Fields of an event that identify nobody; an event without a row is not logged. ``transaction`` has none: its time and size
# beside the moment at which its sender pressed a button are enough.
SAFE: Mapping[str, tuple[int, tuple[str, ...]]] = {
    "peer-connected": (logging.DEBUG, ("peer", "inbound")),
    "peer-disconnected": (logging.DEBUG, ("peer",)),
    "dial-failed": (logging.DEBUG, ("peer",)),
    "penalty": (logging.INFO, ("peer", "points")),
    "discouraged": (logging.INFO, ("peer",)),
    "tip": (logging.INFO, ("height",)),
    "reorganisation": (logging.WARNING, ("fork_height", "disconnected", "connected")),
    "stale-tip": (logging.WARNING, ()),
    "privacy-reduced": (logging.WARNING, ("peer", "what")),
    "seeds-found": (logging.INFO, ("addresses", "signed")),
}


def redacted(text: str) -> str:
    """The text without what could identify somebody.

    >>> redacted("no link to 192.0.2.7:9733: refused")
    'no link to [address]: refused'
    """
    for pattern, shown in _HIDDEN:
        text = pattern.sub(shown, text)
    return text


def levels(text: str) -> dict[str, int]:
    """Levels by logger of a text such as ``info,daemon.tor=debug``; the one without a module is for all others.

    Raises ``ConfigError``.
    """
    found = {_ROOT: logging.INFO}
    for part in text.split(","):
        module, equals, level = part.strip().rpartition("=")
        if level not in LEVELS or (equals and not re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)*", module)):
            raise ConfigError(
                f"log-level: {part.strip()!r} is neither a level ({', '.join(LEVELS)}) nor MODULE=LEVEL, such as daemon.tor=debug"
            )
        name = module.removeprefix(f"{_ROOT}.") if module != _ROOT else ""
        logger = f"{_ROOT}.{name}" if name else _ROOT
        if not _is_logger(logger):
            raise ConfigError(
                f"log-level: there is no module {module!r}; lines of the log name theirs, such as daemon.tor"
            )
        found[logger] = LEVELS[level]
    return found


def _is_logger(name: str) -> bool:
    """Whether a module of the package, or its events, log under this name."""
    try:
        return name == told.name or find_spec(name) is not None
    except ModuleNotFoundError:  # of the package that it would be in
        return False


def _home() -> str | None:
    """The directory whose name says whose it is; None where there is none (services, containers), or it is the root."""
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return str(home) if home != Path(home.anchor) else None


def from_home(path: str) -> str:
    """The path with ``~`` for the user's home, if it lies there."""
    home = _home()
    return f"~{path[len(home) :]}" if home is not None and path.startswith(f"{home}/") else path


def log_fault(to: logging.Logger, where: str, fault: Exception) -> None:
    """Log a defect by its kind and place; its text may hold what a peer sent, unless it is an ``ExtensionFault``."""
    frames = "".join(traceback.format_tb(fault.__traceback__))
    what = f"{type(fault).__name__}: {fault}" if isinstance(fault, ExtensionFault) else type(fault).__name__
    to.error("fault in %s: %s\n%s", where, what, frames)


class Lines(logging.Formatter):
    """One record as a line of text, or of JSON; redacted unless ``is_unsafe``."""

    def __init__(self, *, as_json: bool, is_unsafe: bool) -> None:
        super().__init__()
        self._as_json = as_json
        self._is_unsafe = is_unsafe
        self._home = _home()

    def format(self, record: logging.LogRecord) -> str:
        """The line, or lines where a fault brings its trace."""
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += "\n" + "".join(traceback.format_exception(record.exc_info[1]))
        if not self._is_unsafe:
            text = redacted(text.replace(self._home, "~") if self._home else text)
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        module = record.name.removeprefix(f"{_ROOT}.")
        if not self._as_json:
            return f"{when} {record.levelname.lower()} {module}: {text}"
        line: dict[str, object] = {"time": when, "level": record.levelname.lower(), "module": module, "message": text}
        fields = getattr(record, "fields", None)
        if fields is not None:
            line["fields"] = fields
        return msgspec.json.encode(line).decode()


def begin(level: str, form: str, *, is_unsafe: bool) -> None:
    """Send this process' log to standard error. A second call replaces what the first one set."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines(as_json=form == "json", is_unsafe=is_unsafe))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    set_levels(level)
    if is_unsafe:
        log.warning(
            "unsafe-logs is on: addresses, keys and transactions are written here; whoever reads this log knows whom this node "
            "speaks with and what it sent"
        )


def set_levels(text: str) -> None:
    """Levels by module from now on, in place of those before. Raises ``ConfigError``."""
    wanted = levels(text)
    for name in list(logging.root.manager.loggerDict):
        if name == _ROOT or name.startswith(f"{_ROOT}."):
            logging.getLogger(name).setLevel(logging.NOTSET)
    for name, level in wanted.items():
        logging.getLogger(name).setLevel(level)


async def follow(events: AsyncIterable[Event], *, is_unsafe: bool) -> None:
    """Log events until there are no more."""
    async for event in events:
        tell(event, is_unsafe=is_unsafe)


def tell(event: Event, *, is_unsafe: bool) -> None:
    """Log one event: its safe fields, or all of them."""
    kind = str(event["kind"])
    if is_unsafe:
        level, names = SAFE.get(kind, (logging.DEBUG, ()))[0], [name for name in event if name != "kind"]
    elif kind in SAFE:
        level, names = SAFE[kind][0], list(SAFE[kind][1])
    else:
        return
    fields = {name: event[name] for name in names if name in event}
    shown = "".join(f" {name}={value}" for name, value in fields.items())
    told.log(level, "%s%s", kind, shown, extra={"fields": {"kind": kind, **fields}})
