"""A private I2P network on this machine: one router with zero hops, or several routers in a network namespace of their own.

    python tools/i2p_network.py FOLDER            (needs i2pd: apt install i2pd)
    python tools/i2p_network.py FOLDER --routers  (needs unshare and ip too: apt install util-linux iproute2)

brings it up in seconds, prints where its SAM bridges listen, and keeps it until Ctrl-C or SIGTERM. Nothing leaves the machine.
The tests start it as ``with Router(folder) as router`` or, in a namespace, ``with I2pNetwork(folder) as network``.

Why a namespace: i2pd before 2.51 drops incoming connections from loopback and private addresses, whatever its configuration
says. It lets 198.18.0.0/15 pass (RFC 2544: benchmarks, never routed), so each router gets an address of that range on the
namespace's ``lo``. A single router has no peers and needs none of this: its destinations reach each other inside it.

Two addresses below lead to a closed port of this machine on purpose: i2pd 2.45 ends with an exception three minutes after its
start, when it wants to update its address book, if there is no address to do that from.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

START_S = 60.0  # seconds for all of it
IDENTITY_BYTES = 391  # of a router's identity at the start of its router.info: its SHA-256 is the router's name

CONFIGURATION = """\
log = file
loglevel = {loglevel}
logfile = {folder}/i2pd.log
tunconf = {folder}/tunnels.conf
ipv4 = true
ipv6 = false
nat = false
host = {host}
address4 = {host}
port = {port}
netid = 77
reservedrange = false
floodfill = {floodfill}
bandwidth = X
[ntcp2]
enabled = true
published = true
port = {port}
[ssu2]
enabled = false
[http]
enabled = false
[httpproxy]
enabled = false
[socksproxy]
enabled = false
[i2cp]
enabled = false
[bob]
enabled = false
[sam]
enabled = {has_sam}
address = 127.0.0.1
port = {sam}
[upnp]
enabled = false
[nettime]
enabled = false
[reseed]
verify = false
threshold = 0
urls = https://127.0.0.1:1/
yggurls =
[addressbook]
defaulturl = http://127.0.0.1:1/hosts.txt
subscriptions =
[exploratory]
inbound.length = 1
outbound.length = 1
inbound.quantity = 2
outbound.quantity = 2
[persist]
profiles = false
"""


class I2pMissing(RuntimeError):
    """There is no i2pd here, or no namespace for it."""


class Router:
    """One i2pd; alone, it is a whole network of zero hops. ``kill`` and ``start`` again keep its port and its keys."""

    def __init__(
        self, folder: Path, *, host: str = "127.0.0.1", sam: int | None = 0, is_floodfill: bool = True, port: int = 0
    ) -> None:
        """``sam``: port of its bridge on 127.0.0.1; 0 = any free one, None = no bridge. ``port``: of its transport, likewise."""
        if shutil.which("i2pd") is None:
            raise I2pMissing("i2pd is not installed: apt install i2pd")
        self.folder = folder
        self._has_sam = sam is not None
        self._sam = sam or _free_port()
        self._host, self._port, self._is_floodfill = host, port or _free_port(), is_floodfill
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def sam(self) -> str:
        """Where its SAM bridge listens."""
        return f"127.0.0.1:{self._sam}"

    @property
    def info(self) -> Path:
        """What it tells other routers of itself; it writes it at its first start."""
        return self.folder / "data" / "router.info"

    def __enter__(self) -> Self:
        self.start()
        try:
            _wait(lambda: self.is_ready, time.monotonic() + START_S)
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.end()

    def start(self) -> None:
        """Start the process."""
        folder = self.folder
        (folder / "data").mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "certificates").mkdir(exist_ok=True)
        (folder / "tunnels.conf").touch()
        configuration = folder / "i2pd.conf"
        configuration.write_text(
            CONFIGURATION.format(
                folder=folder,
                host=self._host,
                port=self._port,
                floodfill=str(self._is_floodfill).lower(),
                has_sam=str(self._has_sam).lower(),
                sam=self._sam,
                loglevel="warn",
            )
        )
        command = [
            "i2pd", f"--conf={configuration}", f"--datadir={folder / 'data'}", f"--certsdir={folder / 'certificates'}",
        ]  # fmt: skip
        with (folder / "stdout.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.poll() is None

    @property
    def is_ready(self) -> bool:
        """Whether the SAM bridge answers; without one, whether it runs. Raises ``RuntimeError`` if it has died."""
        if not self.is_running:
            raise RuntimeError(f"i2pd has died: {self.folder / 'stdout.log'}, {self.folder / 'i2pd.log'}")
        if not self._has_sam:
            return True
        try:
            with socket.create_connection(("127.0.0.1", self._sam), 2) as bridge:
                bridge.sendall(b"HELLO VERSION MIN=3.0 MAX=3.1\n")
                return b"RESULT=OK" in bridge.recv(256)
        except OSError:
            return False

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it, by its process id, and wait for that."""
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class I2pNetwork:
    """Several routers in the namespace in which this runs (``unshare -rn``). Entered, they are up; left, they are gone."""

    def __init__(self, folder: Path, *, floodfills: int = 5, clients: int = 2) -> None:
        if shutil.which("ip") is None:
            raise I2pMissing("ip is not installed: apt install iproute2")
        self.took_s = 0.0
        self._ends = contextlib.ExitStack()
        self._servers = [self._router(folder, number, None) for number in range(floodfills)]
        # Not floodfills: those misread the LeaseSet2 of another destination of their own.
        self.clients = [self._router(folder, floodfills + number, 7656 + number) for number in range(clients)]

    @staticmethod
    def _router(folder: Path, number: int, sam: int | None) -> Router:
        host = f"198.18.0.{number + 1}"
        return Router(folder / f"r{number}", host=host, sam=sam, is_floodfill=sam is None, port=17_000 + number)

    @property
    def routers(self) -> list[Router]:
        """All of them."""
        return [*self._servers, *self.clients]

    def __enter__(self) -> Self:
        began = time.monotonic()
        deadline = began + START_S
        try:
            self._add_addresses()
            self._introduce(deadline)
            for router in self.routers:
                router.start()
                self._ends.callback(router.end)
            _wait(lambda: all(router.is_ready for router in self.routers), deadline)
        except BaseException:
            self._ends.close()
            raise
        self.took_s = time.monotonic() - began
        return self

    def __exit__(self, *exc: object) -> None:
        self._ends.close()

    def _add_addresses(self) -> None:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        for number in range(len(self.routers)):
            subprocess.run(["ip", "addr", "replace", f"198.18.0.{number + 1}/32", "dev", "lo"], check=True)

    def _introduce(self, deadline: float) -> None:
        """Have each router make its keys, then give everybody's description to everybody: there is nobody to ask for them."""
        for router in self.routers:
            router.start()
        try:
            _wait(lambda: all(_has_content(router.info) for router in self.routers), deadline)
            time.sleep(0.2)  # the last bytes of the last one
        finally:
            for router in self.routers:
                router.end()
        for known in self.routers:
            raw = known.info.read_bytes()
            name = base64.b64encode(hashlib.sha256(raw[:IDENTITY_BYTES]).digest(), altchars=b"-~").decode()
            for router in self.routers:
                if router is not known:
                    place = router.folder / "data" / "netDb" / f"r{name[0]}"
                    place.mkdir(parents=True, exist_ok=True)
                    (place / f"routerInfo-{name}.dat").write_bytes(raw)


def in_namespace(*command: str) -> list[str]:
    """The command that runs ``command`` in a network namespace of its own, as root of it. Raises ``I2pMissing``."""
    words = ["unshare", "-rn", "--", *command]
    if shutil.which("unshare") is None:
        raise I2pMissing("unshare is not installed: apt install util-linux")
    return words


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > IDENTITY_BYTES


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _wait(is_so: Callable[[], bool], deadline: float) -> None:
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the private I2P network did not come up within {START_S:.0f} s")
        time.sleep(0.05)


def main() -> None:
    """Run the network until a signal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--routers", action="store_true", help="several routers, in a network namespace of their own")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    folder = chosen.folder.absolute()
    if chosen.routers and not chosen.inside:
        os.execvp("unshare", in_namespace(sys.executable, __file__, str(folder), "--routers", "--inside"))
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as running:
        if not chosen.routers:
            print(f"sam {running.enter_context(Router(folder)).sam}")
            print("for sessions here: inbound.length=0 outbound.length=0 i2cp.leaseSetType=1")
        else:
            network = running.enter_context(I2pNetwork(folder))
            for client in network.clients:
                print(f"sam {client.sam}, in this namespace: nsenter -t {os.getpid()} -U -n --preserve-credentials")
            print(f"up in {network.took_s:.1f} s")
        sys.stdout.flush()
        signal.pause()


if __name__ == "__main__":
    main()
