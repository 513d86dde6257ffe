"""A node that may use tor alone, in a process of its own that notes every socket it touches; see test_tor_fail_closed.py.

    python fail_closed_process.py FOLDER SOCKS CONTROL ONION IS-RESTRICTED

Prints one JSON line: what was bound, connected to, looked up, sent to and started, from before the node to after its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import Any

_WATCHED = ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo")
_WATCHED += ("socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo", "subprocess.Popen", "os.system")
_seen: list[list[Any]] = []


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if event in _WATCHED:
        _seen.append([event, *(str(arg) for arg in args if not hasattr(arg, "fileno"))])


sys.addaudithook(_watch)

from obscura.daemon.config import Config  # noqa: E402  # what is loaded is watched too
from obscura.daemon.examination import examine  # noqa: E402
from obscura.daemon.methods import local_control  # noqa: E402
from obscura.daemon.node import Node  # noqa: E402
from obscura.daemon.ways import TorSettings  # noqa: E402
from obscura.errors import UserError  # noqa: E402
from obscura.node.resolvers import SeedSettings  # noqa: E402

KEY = "a" * 52
DIALS = (
    f"obscura://{KEY}@203.0.113.5:443?carrier=tls",
    f"obscura://{KEY}@node.example:443?carrier=tls&name=node.example",
    f"obscura://{KEY}@203.0.113.6:80?carrier=http",
    "obscura://203.0.113.7:443?carrier=tls",
    "obscura://127.0.0.9:19733",
    "obscura://[::1]:19733",
)


async def live(folder: str, socks: str, control: str, onion: str, *, is_restricted: bool) -> list[str]:
    """A whole life: start, onion service, lookups, all kinds of dials, a link that works, the end. What the dials came to."""
    config = Config(
        network="dev",
        data_dir=folder,
        tor="auto" if is_restricted else "off",
        only_net=("tor",) if is_restricted else (),
        listen=None if is_restricted else (),
        tor_daemon=TorSettings(socks=socks, control=control),
        seeds=SeedSettings(names=("seeds.example",)),
        connect=(onion,) if is_restricted else (),
    )
    said = []
    async with Node(config) as node, local_control(node):
        if is_restricted:
            while not (node.routes.show()["tor"]["published"] and node.peers()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await node.ping(node.peers()[0])
        for text in DIALS:
            try:
                async with asyncio.timeout(5 if is_restricted else 0.2):
                    await node.connect(text)
            except (UserError, TimeoutError) as error:
                said.append(str(error))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10 if is_restricted else 0.5):
                await node.discovery.ask()
        await examine(config, node)  # the doctor looks through tor too, or not at all
    return said


if __name__ == "__main__":
    dials = asyncio.run(live(*sys.argv[1:5], is_restricted=sys.argv[5] == "yes"))
    print(json.dumps({"seen": _seen, "dials": dials}))
