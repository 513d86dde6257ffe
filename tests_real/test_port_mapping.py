"""A node behind a real router: miniupnpd in a network namespace speaks PCP and NAT-PMP, and its NAT carries a real link.

Needs root, iproute2, nftables and miniupnpd (apt install ...) and fails without them. Three namespaces: the
node at home, its router, and somebody outside. The public addresses exist in them alone; nothing leaves.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from obscura.daemon.client import Client

OUTSIDE = "8.8.4.4"  # the router's public address; documentation ranges would be refused as not public
PORT = 29_700
TABLES = """table inet filter {
  chain miniupnpd { }
  chain forward { type filter hook forward priority 0; policy accept; jump miniupnpd; }
  chain prerouting_miniupnpd { }
  chain postrouting_miniupnpd { }
  chain prerouting { type nat hook prerouting priority -100; policy accept; jump prerouting_miniupnpd; }
  chain postrouting { type nat hook postrouting priority 100; policy accept; jump postrouting_miniupnpd; }
}
"""
SETTINGS = """ext_ifname=wan
listening_ip=lan
enable_natpmp=yes
enable_upnp=no
secure_mode=yes
upnp_table_name=filter
upnp_nat_table_name=filter
upnp_forward_chain=miniupnpd
upnp_nat_chain=prerouting_miniupnpd
upnp_nat_postrouting_chain=postrouting_miniupnpd
uuid=00000000-0000-0000-0000-000000000000
allow 1024-65535 192.168.77.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
"""
VISITOR = """
import asyncio, sys
from obscura.daemon.config import Config
from obscura.daemon.node import Node
from obscura.node.resolvers import SeedSettings
async def main():
    quiet = Config(data_dir=sys.argv[1], listen=(), max_outbound=0, seeds=SeedSettings(enabled=False))
    async with Node(quiet) as node:
        peer = await node.connect(sys.argv[2])
        print(await node.ping(peer))
asyncio.run(main())
"""


def run(*words: str, **options: Any) -> str:
    done: Any = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, **options)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return str(done.stdout)


class Home:
    """Three namespaces and a router between two of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        mark = f"obscura{os.getpid()}"
        self.node, self.router, self.away = f"{mark}n", f"{mark}r", f"{mark}a"
        self.processes: list[subprocess.Popen[Any]] = []

    def build(self) -> None:
        for name in (self.node, self.router, self.away):
            run("ip", "netns", "add", name)
        run(
            "ip", "link", "add", "lan", "netns", self.router, "type", "veth", "peer", "name", "eth0", "netns", self.node
        )
        run(
            "ip", "link", "add", "wan", "netns", self.router, "type", "veth", "peer", "name", "eth0", "netns", self.away
        )
        for name, link, place in (
            (self.router, "lan", "192.168.77.1/24"), (self.node, "eth0", "192.168.77.2/24"),
            (self.router, "wan", f"{OUTSIDE}/24"), (self.away, "eth0", "8.8.4.5/24"),
        ):  # fmt: skip
            run("ip", "-n", name, "addr", "add", place, "dev", link)
            run("ip", "-n", name, "link", "set", link, "up")
            run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", self.node, "route", "add", "default", "via", "192.168.77.1")
        run("ip", "netns", "exec", self.router, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        run("ip", "netns", "exec", self.router, "nft", "-f", "-", input=TABLES)
        (self.folder / "miniupnpd.conf").write_text(SETTINGS)

    def start(self, where: str, *words: str, **options: Any) -> subprocess.Popen[Any]:
        process = subprocess.Popen(["ip", "netns", "exec", where, *words], **options)
        self.processes.append(process)
        return process

    def start_router(self) -> None:
        conf, pid = str(self.folder / "miniupnpd.conf"), str(self.folder / "miniupnpd.pid")
        log = (self.folder / "miniupnpd.log").open("w")
        self.start(self.router, "miniupnpd", "-d", "-f", conf, "-P", pid, stdout=log, stderr=log)
        until = time.monotonic() + 20
        while "5351" not in (self.folder / "miniupnpd.log").read_text() and time.monotonic() < until:
            time.sleep(0.1)
        log.close()

    def rules(self) -> str:
        return run("ip", "netns", "exec", self.router, "nft", "list", "chain", "inet", "filter", "prerouting_miniupnpd")

    def end(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(20)
        for name in (self.node, self.router, self.away):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    built = Home(tmp_path)
    with contextlib.ExitStack() as ends:
        ends.callback(built.end)
        built.build()
        yield built


def start_node(home: Home, folder: Path, *more: str) -> tuple[subprocess.Popen[Any], Path]:
    """A node at home, and its control socket."""
    words = ["--data-dir", str(folder), "run", "--json", "--set", f"listen=0.0.0.0:{PORT}?carrier=tls"]
    words += ["--set", "max-outbound=0", "--set", "seeds.enabled=false", *more]
    node = home.start(home.node, sys.executable, "-m", "obscura.cli", *words, stdout=subprocess.PIPE)
    assert node.stdout is not None
    return node, Path(json.loads(node.stdout.readline())["rpc"])


def mapped_as(rpc: Path) -> str:
    """The address that the router gave, as the node tells it."""
    with Client(rpc) as client:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            for told in client.call("addresses.own"):
                if OUTSIDE in told:
                    return str(told)
            time.sleep(0.1)
    raise AssertionError("the router mapped nothing")


def test_a_node_behind_a_real_router_is_reached_from_outside(home: Home, tmp_path: Path) -> None:
    home.start_router()
    node, rpc = start_node(home, tmp_path / "node", "--set", "port-mapping=auto")
    told = mapped_as(rpc)
    assert f"dnat ip to 192.168.77.2:{PORT}" in home.rules()
    ping = run("ip", "netns", "exec", home.away, sys.executable, "-c", VISITOR, str(tmp_path / "away"), told)
    assert float(ping) > 0
    node.terminate()
    assert node.wait(20) == 0
    assert "dnat" not in home.rules()  # the mapping went with the node


def test_a_node_that_was_killed_gets_its_mapping_back(home: Home, tmp_path: Path) -> None:
    home.start_router()
    node, rpc = start_node(home, tmp_path / "node", "--set", "port-mapping=auto")
    before = mapped_as(rpc)
    node.kill()
    node.wait(20)
    assert "dnat" in home.rules()  # until its time is over; its nonce is gone
    node, rpc = start_node(home, tmp_path / "node", "--set", "port-mapping=auto")
    assert mapped_as(rpc) == before
    node.terminate()
    assert node.wait(20) == 0
    assert "dnat" not in home.rules()


def test_nothing_is_asked_of_the_router_by_default(home: Home, tmp_path: Path) -> None:
    home.start_router()
    node, _ = start_node(home, tmp_path / "node")
    time.sleep(1)
    node.terminate()
    assert node.wait(20) == 0
    assert "request received" not in (tmp_path / "miniupnpd.log").read_text()
