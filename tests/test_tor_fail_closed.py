"""With only-net = ["tor"] no byte leaves by another way: a hook on every socket of a process over a node's whole life."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from obscura.daemon.config import Config
from obscura.daemon.node import Node
from obscura.daemon.ways import TorSettings
from test_tor_node import onion_port, published, run
from tor_fakes import FakeSocks, FakeTor

PROGRAM = Path(__file__).parent / "fail_closed_process.py"


async def life(folder: Path, socks: str, control: str, onion: str, *, is_restricted: bool) -> dict[str, Any]:
    """What the process of a node touched."""
    words = (str(folder), socks, control, onion, "yes" if is_restricted else "no")
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, str(PROGRAM), *words), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await child.communicate()
    assert child.returncode == 0, err.decode()
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.mark.slow
def test_a_whole_life_touches_tor_and_the_own_loopback_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        cookie = tmp_path / "cookie"
        cookie.write_bytes(bytes(range(32)))
        async with FakeTor(cookie).running() as tor, FakeSocks().running() as proxy:
            tor.socks = proxy.place
            peer = Config(
                network="dev", data_dir=tmp_path / "peer", tor="auto", only_net=("tor",), max_outbound=0,
                tor_daemon=TorSettings(control=str(tor.place)),
            )  # fmt: skip
            async with Node(peer) as friend:
                await published(friend)
                (address,) = friend.addresses
                proxy.targets[f"{address.host}:{address.port}"] = ("127.0.0.1", onion_port(tor, address))
                seen = await life(tmp_path / "node", str(proxy.place), str(tor.place), str(address), is_restricted=True)
        connects = {entry[1] for entry in seen["seen"] if entry[0] == "socket.connect"}
        allowed = {str((place.host_text, place.port)) for place in (tor.place, proxy.place)}
        assert connects == allowed
        binds = [entry[1] for entry in seen["seen"] if entry[0] == "socket.bind"]
        assert len(binds) == 2  # the onion service's listener, and local control
        assert str(("127.0.0.1", 0)) in binds
        assert any("rpc.sock" in place for place in binds)
        assert {entry[0] for entry in seen["seen"]} == {"socket.connect", "socket.bind"}  # no lookup, no process
        asked = [host for host, *_ in proxy.asked]
        assert {"203.0.113.5:443", "node.example:443"} <= set(asked)  # by the exit, the name as it is
        assert any(place.endswith(":443") and place[0].isdigit() for place in set(asked) - {"203.0.113.5:443"})  # DoH
        assert not any("203.0.113.6" in place or "203.0.113.7" in place or "127." in place for place in asked)
        users = [user for _, user, _ in proxy.asked]
        assert len(set(users)) == len(users)  # nobody shares a circuit
        assert len(seen["dials"]) == 6

    run(scenario)


@pytest.mark.slow
def test_the_hook_sees_what_leaves_otherwise(tmp_path: Path) -> None:
    async def scenario() -> None:
        seen = await life(tmp_path, "127.0.0.1:1", "127.0.0.1:1", "", is_restricted=False)
        connects = {entry[1] for entry in seen["seen"] if entry[0] == "socket.connect"}
        assert str(("127.0.0.9", 19733)) in connects
        assert str(("203.0.113.5", 443)) in connects

    run(scenario)
