"""With only-net = ["i2p"] no byte leaves by another way: a hook on every socket of a process over a node's whole life."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from obscura.daemon.node import Node
from sam_fakes import FakeSam
from test_i2p_node import config, own, ready, run

PROGRAM = Path(__file__).parent / "i2p_fail_closed_process.py"


@pytest.mark.slow
def test_a_whole_life_touches_the_router_and_local_control_alone(tmp_path: Path) -> None:
    """That the hook sees what leaves otherwise is shown in test_tor_fail_closed.py."""

    async def scenario() -> None:
        async with FakeSam(tunnels_s=0.3).running() as bridge, Node(config(tmp_path / "friend", bridge)) as friend:
            await ready(friend)
            words = (str(tmp_path / "node"), str(bridge.place), str(own(friend)))
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, str(PROGRAM), *words), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
            )
            out, err = await child.communicate()
            assert child.returncode == 0, err.decode()
        found = json.loads(out.splitlines()[-1])
        seen = found["seen"]
        place = str((bridge.place.host_text, bridge.place.port))
        assert {entry[1] for entry in seen if entry[0] == "socket.connect"} == {place}
        assert {entry[0] for entry in seen} == {"socket.connect", "socket.bind"}  # no lookup, no process
        binds = [entry[1] for entry in seen if entry[0] == "socket.bind"]
        assert len(binds) == 1  # local control; streams come from the router, nothing listens for them
        assert "rpc.sock" in binds[0]
        dials = found["dials"]
        assert len(dials) == 7
        assert sum("only-net leaves clearnet out" in said for said in dials) >= 5
        assert "no such I2P destination" in dials[-1]
        assert not any("example" in line for line in bridge.asked)  # names of clearnet are no business of the router

    run(scenario)
