"""A whole life of ``obscura run`` in a network namespace that has loopback only; see test_tor_namespace.py.

    unshare -rn python namespace_process.py FOLDER NETWORK     (the one that may be used: tor, i2p; all = any)

The kernel counts each packet for which there is no way out (OutNoRoutes): whatever tried to leave. Prints the count as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import socket
import struct
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from obscura.daemon.async_client import AsyncClient
from obscura.errors import ObscuraError
from sam_fakes import FakeSam
from tor_fakes import FakeSocks, FakeTor

_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
DIALS = (
    f"obscura://{'a' * 52}@203.0.113.5:443?carrier=tls",
    f"obscura://{'a' * 52}@[2001:db8::1]:443?carrier=tls",
    f"obscura://{'a' * 52}@node.example:443?carrier=tls",
)


def no_routes() -> int:
    """Packets that found no way out of this namespace so far."""
    names, values = (line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Ip:"))
    six = dict(line.split() for line in Path("/proc/net/snmp6").read_text().splitlines())
    return int(values[names.index("OutNoRoutes")]) + int(six["Ip6OutNoRoutes"])


async def live(folder: Path, network: str) -> list[str]:
    """Start a node, have it dial and ask everybody it can think of, stop it; what the dials came to."""
    cookie = folder / "cookie"
    cookie.write_bytes(bytes(range(32)))
    async with (
        FakeSocks().running() as proxy,
        FakeTor(cookie, socks=proxy.place).running() as tor,
        FakeSam(tunnels_s=0.3).running() as bridge,
    ):
        words = {
            "tor": ["--tor", "auto", "--only-net", "tor", "--set", f"tor-daemon.control={tor.place}"],
            "i2p": ["--i2p", "auto", "--only-net", "i2p", "--set", f"i2p-router.sam={bridge.place}"],
            "all": [],
        }[network]
        node = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "obscura.cli", "--network", "dev", "--data-dir", str(folder), "run", "--json"),
            *("--set", "seeds.names=seeds.example", *words),
            stdout=asyncio.subprocess.PIPE,
        )
        assert node.stdout is not None
        facts: dict[str, Any] = json.loads(await node.stdout.readline())
        said = []
        async with AsyncClient(Path(facts["rpc"])) as client:
            if network == "tor":
                await tor.until(lambda: bool(tor.onions))
            while network == "i2p" and not (await client.call("status"))["ways"]["i2p"]["published"]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            for text in DIALS:
                try:
                    await client.call("connect", address=text)
                except ObscuraError as error:
                    said.append(str(error))
            with contextlib.suppress(ObscuraError):
                await client.call("seeds.ask")
        node.terminate()
        assert await node.wait() == 0
        return said


def main() -> None:
    """Loopback up, one life, the count."""
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", _IFF_UP))
    before = no_routes()
    dials = asyncio.run(live(Path(sys.argv[1]), sys.argv[2]))
    sys.stdout.write(json.dumps({"left": no_routes() - before, "dials": dials}) + "\n")


if __name__ == "__main__":
    main()
