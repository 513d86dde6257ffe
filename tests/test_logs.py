"""The log: what is cut out of it, levels by module, JSON lines, and a run whose whole log is searched for what occurred in it."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from obscura.daemon import logs
from obscura.daemon.config import Config
from obscura.daemon.fronts import fronts
from obscura.daemon.node import Node
from obscura.errors import ConfigError, Unreachable
from obscura.ledger.mining import filler_transaction
from obscura.wire.address import key_text

IDENTIFYING = [
    "192.0.2.7",
    "192.0.2.7:9733",
    "203.0.113.0/24",
    "[2001:db8::1]:9733",
    "2001:db8::1",
    "fe80::1",
    "::ffff:192.0.2.7",
    "obscura://jnks3pixrzhm7swjkymashelk5xzi65nekk4ziwcmdgsuduvpila@127.0.0.1:45597?carrier=tls",
    "jnks3pixrzhm7swjkymashelk5xzi65nekk4ziwcmdgsuduvpila",
    "expyuzz4wqqyqhjn7qjk2u7f4b6pz3w3t5s2n5v3k2b5d5r3q7y6xaid.onion:9733",
    "ukeu3k5oycgaauneqgtnvselmt4yemvoilkln7jpvamvfx7dnkdq.b32.i2p",
    "node.example.org:9733",
    "e7f8566399d09febe611aa87a524cef7ff9a3c322ba4dfa4aeb2bd4a2858d3f7",
    "E7F8566399D09FEB",
    "yYp4vUKbq0Y9c7vQ6mNfQ1r5hZxW3tLd8aSgEoJkPi2",
]
HARMLESS = [
    "height 812345",
    "carrier tls, version 1.2.3",
    "70 % of 4194304 bytes in 0.25 s",
    "obscura.daemon.http_server",
    "at 12 %",
    "/etc/obscura/obscura.toml:12: unknown key",
]


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Put back what a test does to the loggers of this process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logs.set_levels("info")
    logging.getLogger("obscura").setLevel(logging.NOTSET)


class Lines:
    """What went to standard error so far."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._held = ""

    def getvalue(self) -> str:
        self._held += self._capsys.readouterr().err
        return self._held


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Lines:
    return Lines(capsys)


@pytest.mark.parametrize("text", IDENTIFYING)
@pytest.mark.parametrize("frame", ["{}", "no link to {}: refused", "({})", "peer={}", "'{}'"])
def test_what_identifies_is_cut_out(text: str, frame: str) -> None:
    found = logs.redacted(frame.format(text))
    assert text not in found
    assert text.partition(":")[0][:12] not in found or text.startswith(("::", "obscura"))
    assert found.count("[") >= 1


@pytest.mark.parametrize("text", HARMLESS)
def test_what_does_not_stays(text: str) -> None:
    assert logs.redacted(text) == text


def test_a_fault_with_its_trace_is_cut_as_well(lines: Lines) -> None:
    logs.begin("info", "text", is_unsafe=False)
    try:
        raise KeyError(f"{IDENTIFYING[0]} {Path.home()}/secret")
    except KeyError:
        logging.getLogger("obscura.daemon.x").exception("no link to %s", IDENTIFYING[1])
    assert "KeyError" in lines.getvalue()
    assert "192.0.2.7" not in lines.getvalue()
    assert "~/secret" in lines.getvalue()


@pytest.mark.parametrize("home", [None, "/"])
def test_a_user_without_a_home_has_a_log_too(lines: Lines, monkeypatch: pytest.MonkeyPatch, home: str | None) -> None:
    def found(path: type[Path] = Path) -> Path:
        if home is None:
            raise RuntimeError("Could not determine home directory.")
        return Path(home)

    monkeypatch.setattr(Path, "home", found)
    logs.begin("info", "text", is_unsafe=False)
    logging.getLogger("obscura.daemon.x").warning("/var/lib is 3/4 full")
    assert "/var/lib is 3/4 full" in lines.getvalue()


def test_json_lines(lines: Lines) -> None:
    logs.begin("info", "json", is_unsafe=False)
    logging.getLogger("obscura.daemon.x").warning('quoted "%s"\nsecond line', "192.0.2.7:1")
    logs.tell({"kind": "tip", "height": 7, "id": "ab" * 32}, is_unsafe=False)
    first, second = map(json.loads, lines.getvalue().splitlines())
    assert (first["level"], first["module"]) == ("warning", "daemon.x")
    assert first["message"] == 'quoted "[address]"\nsecond line'
    assert second["fields"] == {"kind": "tip", "height": 7}


def test_levels_by_module(lines: Lines) -> None:
    logs.begin("warning,daemon.tor=debug,store=error", "text", is_unsafe=False)
    for name in ("daemon.tor", "daemon.tor_process", "store.sqlite", "daemon.node"):
        for level in logs.LEVELS.values():
            logging.getLogger(f"obscura.{name}").log(level, "said")
    said = [(line.split()[2], line.split()[1]) for line in lines.getvalue().splitlines()]
    assert said == [
        *[("daemon.tor:", level) for level in ("debug", "info", "warning", "error")],
        *[("daemon.tor_process:", level) for level in ("warning", "error")],
        ("store.sqlite:", "error"),
        *[("daemon.node:", level) for level in ("warning", "error")],
    ]
    logs.set_levels("error")
    assert not logging.getLogger("obscura.daemon.tor").isEnabledFor(logging.WARNING)
    with pytest.raises(ConfigError, match="log-level: 'loud' is neither a level"):
        Config(network="dev", log_level="info,loud")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "info,",
        "daemon.tor=",
        "=info",
        "Daemon=info",
        "a..b=info",
        "info;debug",
        "x=y=info",
        "tro=info",
        "daemon.tro.x=info",
    ],
)
def test_what_is_no_level(text: str) -> None:
    with pytest.raises(ConfigError, match="log-level: "):
        logs.levels(text)


def test_unsafe_logs_say_all_and_say_so(lines: Lines) -> None:
    logs.begin("debug", "text", is_unsafe=True)
    logs.tell({"kind": "transaction", "id": "ab" * 32, "own": True}, is_unsafe=True)
    logging.getLogger("obscura.x").info("to 192.0.2.7")
    assert "unsafe-logs is on" in lines.getvalue().splitlines()[0]
    assert "ab" * 32 in lines.getvalue()
    assert "192.0.2.7" in lines.getvalue()


def test_a_transaction_is_no_event_of_the_log(lines: Lines) -> None:
    logs.begin("debug", "text", is_unsafe=False)
    logs.tell({"kind": "transaction", "id": "ab" * 32, "bytes": 700, "own": True}, is_unsafe=False)
    logs.tell({"kind": "of-the-future", "secret": "x"}, is_unsafe=False)
    assert lines.getvalue() == ""


def test_the_whole_log_of_an_eventful_run_names_nobody(tmp_path: Path, lines: Lines) -> None:
    logs.begin("debug", "text", is_unsafe=False)
    secrets: set[str] = set()

    async def scene() -> None:
        plain: dict[str, Any] = {"network": "dev", "listen": ("127.0.0.1:0",), "max_outbound": 0}
        mine = Config(data_dir=tmp_path / "a", rpc_http="127.0.0.1:0", **plain)
        async with (
            Node(mine) as node,
            fronts(node),
            Node(Config(data_dir=tmp_path / "b", **plain)) as peer,
            fronts(peer),
        ):
            link = await peer.connect(node.addresses[0])
            raw = filler_transaction(random.Random(3))
            secrets.add(peer.broadcast(raw, "direct").id[::-1].hex())
            with pytest.raises(Unreachable):
                await node.connect("obscura://127.0.0.1:1")
            node.apply(
                node.assembly.core.penalise(
                    next(iter(node.assembly.core.peers)), 20, "a fault of 192.0.2.7", node.now()
                )
            )
            logging.getLogger("obscura.daemon.x").error("foreign code said %s", peer.addresses[0])
            secrets.update(address.host + f":{address.port}" for address in (*node.addresses, *peer.addresses))
            secrets.update(key_text(address.key) for address in (*node.addresses, *peer.addresses) if address.key)
            secrets.update((link.session_id.hex(), node.data_dir.rpc_cookie.read_text(), "127.0.0.1", "192.0.2.7"))
            peer.disconnect(link)
            while node.peers():  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    asyncio.run(scene())
    text = lines.getvalue()
    for kind in ("peer-connected", "penalty", "dial-failed", "peer-disconnected", "foreign code said [address]"):
        assert kind in text
    assert [secret for secret in secrets if secret in text] == []
