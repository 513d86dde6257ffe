"""Reading the configuration again: what changes, what is said to need a restart, and that links stand all the while."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from obscura.daemon import logs, runtime
from obscura.daemon.config import Config, load
from obscura.daemon.layers import Loaded, leaves
from obscura.daemon.node import Node
from obscura.daemon.reload import LIVE, WAYS, reload, reload_and_log, reload_methods
from obscura.errors import UserError
from obscura.ledger.chain import Chain
from obscura.ledger.port import Ledger
from obscura.store.sqlite import Store
from test_node_process import Start, ask, run_words, start, until

__all__ = ["start"]


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Levels as they were before a test set them."""
    yield
    logs.set_levels("info")
    logging.getLogger("obscura").setLevel(logging.NOTSET)


def play(folder: Path, scene: Callable[[Node, Callable[[str], Any]], Awaitable[None]]) -> None:
    """A node of a file, and what reads that file anew with other lines in it."""
    file = folder / "obscura.toml"
    begin = f'network = "dev"\ndata-dir = "{folder}/a"\nlisten = ["127.0.0.1:0"]\nmax-outbound = 0\n'

    def written(lines: str) -> Any:
        file.write_text(begin + lines)
        return lambda: load(file, environ={"HOME": str(folder)})

    async def run() -> None:
        async with asyncio.timeout(60), Node(written("")().value) as node:
            await scene(node, written)

    asyncio.run(run())


def test_live_keys_are_keys() -> None:
    assert LIVE.keys() | WAYS <= {".".join(key) for key, _ in leaves(Config)}


def test_what_can_change_does_and_links_stay(tmp_path: Path) -> None:
    async def scene(node: Node, written: Callable[[str], Any]) -> None:
        one, two = (
            Config(network="dev", data_dir=tmp_path / name, listen=("127.0.0.1:0",), max_outbound=0) for name in "bc"
        )
        async with Node(one) as first, Node(two) as second:
            await first.connect(node.addresses[0])
            session = node.peers()[0].session_id
            told = reload(
                node, written(f'connect = ["{second.addresses[0]}"]\nmax-inbound = 1\nlog-level = "error"\n')().value
            )
            assert told == {"changed": ["log-level", "connect", "max-inbound"], "needs_restart": []}
            while len(node.peers()) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert session in [peer.session_id for peer in node.peers()]
            assert not logging.getLogger("obscura.x").isEnabledFor(logging.WARNING)
            late = Config(network="dev", data_dir=tmp_path / "d", listen=(), max_outbound=0)
            assert reload(node, written('privacy = "high"\n')().value)["changed"] == [
                "log-level",
                "connect",
                "max-inbound",
            ]
            assert len(node.peers()) == 2  # a link that is no longer asked for stands until it ends
            async with Node(late) as third:
                await third.connect(node.addresses[0])
            assert (node.config.privacy, node.config.max_inbound, node.config.connect) == ("medium", 125, ())

    play(tmp_path, scene)


def test_what_cannot_change_is_said_every_time_until_the_restart(tmp_path: Path) -> None:
    async def scene(node: Node, written: Callable[[str], Any]) -> None:
        for _ in range(2):
            told = reload(node, written('privacy = "high"\n[tor-daemon]\nsocks = "127.0.0.1:9999"\n')().value)
            assert told == {"changed": [], "needs_restart": ["privacy", "tor-daemon.socks"]}
        assert reload(node, written("")().value) == {"changed": [], "needs_restart": []}

    play(tmp_path, scene)


@pytest.mark.parametrize("way", ['proxy = "127.0.0.1:9"', 'tor = "auto"\nonly-net = ["tor"]'])
def test_new_peers_are_not_dialled_by_a_way_that_the_new_file_closes(tmp_path: Path, way: str) -> None:
    async def scene(node: Node, written: Callable[[str], Any]) -> None:
        async with Node(
            Config(network="dev", data_dir=tmp_path / "b", listen=("127.0.0.1:0",), max_outbound=0)
        ) as other:
            peer = f'connect = ["{other.addresses[0]}"]\n'
            told = reload(node, written(f"{peer}max-inbound = 7\n{way}\n")().value)
            assert told["changed"] == ["max-inbound"]
            assert "connect" in told["needs_restart"]
            assert node.config.connect == ()
            assert reload(node, written(peer)().value)["changed"] == ["connect", "max-inbound"]
            while not node.peers():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert reload(node, written(way + "\n")().value)["changed"] == ["connect"]  # fewer peers can always be

    play(tmp_path, scene)


def test_a_broken_file_leaves_everything_as_it_was(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scene(node: Node, written: Callable[[str], Any]) -> None:
        logs.set_levels("info")
        before = node.config
        for broken in ("max-inbound = -1\n", "nonsense = 1\n", "[", 'connect = ["x"]\n', 'rpc-http = "0.0.0.0:1"\n'):
            caplog.clear()
            reload_and_log(node, written(f'log-level = "error"\n{broken}'))
            assert "is not taken, everything stays as it was" in caplog.text
            assert node.config is before
        caplog.clear()
        reload_and_log(node, written('max-inbound = 7\nprivacy = "high"\n'))
        assert "changed: max-inbound" in caplog.text
        assert "needs a restart: privacy" in caplog.text

    play(tmp_path, scene)


def test_a_node_of_a_program_has_no_file(tmp_path: Path) -> None:
    async def scene(node: Node, written: Callable[[str], Any]) -> None:
        with pytest.raises(UserError, match="not started from a configuration file"):
            reload_methods(node, None)["config.reload"]()

    play(tmp_path, scene)


def test_sighup_and_the_command_reload_a_process(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "obscura.toml"
    file.write_text("max-inbound = 5\n")
    node = start("--config", str(file), *run_words(tmp_path / "a"))
    facts = node.facts()
    other = start(*run_words(tmp_path / "b", "--connect", facts["addresses"][0], "--no-listen"))
    other.facts()
    (link,) = until(lambda: ask(tmp_path / "a", "peers"))
    file.write_text("max-inbound = 6\nrate-factor = 2.0\n")
    node.popen.send_signal(signal.SIGHUP)
    words = ("--config", str(file), "--network", "dev", "--data-dir", str(tmp_path / "a"), "config", "reload", "--json")

    def again() -> Any:
        process = start(*words)
        return json.loads(process.line())

    assert until(lambda: again() == {"changed": [], "needs_restart": ["rate-factor"]})
    file.write_text("max-inbound = 7\n")
    assert again() == {"changed": ["max-inbound"], "needs_restart": []}
    file.write_text("max-inbound = x\n")
    assert "not TOML" in start(*words).end()[1]
    (same,) = ask(tmp_path / "a", "peers")
    assert same["session_id"] == link["session_id"]
    status, err = node.end(signal.SIGTERM)
    assert status == 0
    assert "needs a restart: rate-factor" in err


def test_sighup_in_the_middle_of_the_start_is_heeded_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Config(network="dev", data_dir=tmp_path, listen=("127.0.0.1:0",), max_outbound=0, max_inbound=5)
    wanted = Loaded(msgspec.structs.replace(begin, max_inbound=6), {})
    faults: list[dict[str, Any]] = []
    slots: list[int] = []
    node, load_chain = Node(begin), Store.load_chain

    async def scene() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: faults.append(context))

        def slow(store: Store, ledger: Ledger) -> Chain:
            os.kill(os.getpid(), signal.SIGHUP)
            for _ in range(10):  # turns of the loop, which hears of it
                asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result()
            return load_chain(store, ledger)

        def ready(told: Mapping[str, Any]) -> None:
            slots.extend((node.config.max_inbound, node.assembly.neighbours.inbound._max))
            node.stop()

        monkeypatch.setattr(Store, "load_chain", slow)
        assert await runtime._serve(node, ready, lambda: wanted) == 0

    asyncio.run(scene())
    assert (slots, faults) == ([6, 6], [])
