"""A whole private Tor network on loopback: directory authorities, relays (all of them exits) and clients, on free ports.

    python tools/tor_network.py FOLDER       (needs tor: apt install tor)

brings it up in about 20 seconds, prints where its clients listen, and keeps it until Ctrl-C or SIGTERM. Nothing leaves the
machine. The tests start it as ``with TorNetwork(folder) as network``.

What makes it quick and steady: the first vote comes after a short interval, to which the start is aligned, so that the first
consensus holds every relay; later votes are seldom, since a testing network derives the time period of onion services from the
interval and would change their blinded keys every few minutes. Clients start once every cache is complete.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

START_S = 180.0  # seconds for all of it
# Seconds; votes happen at multiples of it; the second where the machine was too slow for the first.
FIRST_VOTE_S = (20, 40)

COMMON = """\
TestingTorNetwork 1
ClientRejectInternalAddresses 0
ClientDNSRejectInternalAddresses 0
EnforceDistinctSubnets 0
AssumeReachable 1
PathsNeededToBuildCircuits 0.67
LearnCircuitBuildTimeout 0
CircuitBuildTimeout 10
ShutdownWaitLength 0
SafeLogging 0
DoSCircuitCreationEnabled 0
DoSConnectionEnabled 0
DoSRefuseSingleHopClientRendezvous 0
AvoidDiskWrites 1
KISTSchedRunInterval 1 msec
"""
# The summary of exit policies leaves private ranges out: without *:* clients see no exit. Bound to loopback, nothing leaves.
RELAY = """\
Address 127.0.0.1
SocksPort 0
ExitRelay 1
ExitPolicyRejectPrivate 0
ExitPolicy accept *:*
OutboundBindAddress 127.0.0.1
ServerDNSDetectHijacking 0
ServerDNSAllowBrokenConfig 1
"""
AUTHORITY = """\
AuthoritativeDirectory 1
V3AuthoritativeDirectory 1
ContactInfo test@example.invalid
TestingV3AuthInitialVoteDelay 2
TestingV3AuthInitialDistDelay 2
V3AuthVotingInterval 300
V3AuthVoteDelay 2
V3AuthDistDelay 2
V3AuthNIntervalsValid 6
TestingDirAuthVoteExit *
TestingDirAuthVoteGuard *
TestingDirAuthVoteHSDir *
TestingMinExitFlagThreshold 0
AuthDirMaxServersPerAddr 0
TestingAuthDirTimeToLearnReachability 0
"""


class TorMissing(RuntimeError):
    """There is no tor here."""


class _TooSlow(Exception):
    """The first consensus came before every relay was known."""


class Tor:
    """One tor process. ``kill`` and ``start`` again keep its ports and its keys."""

    def __init__(self, folder: Path, torrc: str) -> None:
        self.folder = folder
        self.torrc = torrc
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process; what it says goes to ``stdout.log``."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = self.folder / "torrc"
        file.write_text(f"DataDirectory {self.folder}\n{self.torrc}")
        with (self.folder / "stdout.log").open("wb") as log:
            command = ["tor", "-f", str(file), "--defaults-torrc", "/dev/null"]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    @property
    def log(self) -> str:
        """What it said since it was started."""
        return (self.folder / "stdout.log").read_text()

    @property
    def is_ready(self) -> bool:
        """Whether a client has bootstrapped."""
        return "Bootstrapped 100%" in self.log

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it and wait for that."""
        if self.process is not None:
            self.process.send_signal(number)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def has_all(self, count: int) -> bool:
        """Whether it holds a consensus with so many relays, and what they say of themselves."""
        texts = [_read(self.folder / name) for name in ("cached-microdescs", "cached-microdescs.new")]
        return _listed(self.folder) >= count and sum(text.count(b"onion-key\n") for text in texts) >= count


def _listed(folder: Path) -> int:
    """Relays in the consensus that a tor holds."""
    return _read(folder / "cached-microdesc-consensus").count(b"\nr ")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


class Client(Tor):
    """A tor as people have it: SOCKS with extended errors, a control port with a cookie."""

    def __init__(self, folder: Path, include: Path, socks: int, control: int, how: str = "ExtendedErrors") -> None:
        super().__init__(
            folder,
            f"%include {include}\nSocksPort 127.0.0.1:{socks} {how}\n"
            f"ControlPort 127.0.0.1:{control}\nCookieAuthentication 1\n",
        )
        self.socks = f"127.0.0.1:{socks}"
        self.control = f"127.0.0.1:{control}"
        self.cookie = folder / "control_auth_cookie"


class TorNetwork:
    """Entered, it is up and its clients have bootstrapped; left, every process is gone."""

    def __init__(self, folder: Path, *, authorities: int = 3, relays: int = 3, clients: int = 2) -> None:
        if not (shutil.which("tor") and shutil.which("tor-gencert")):
            raise TorMissing("tor is not installed: apt install tor")
        self.folder = folder
        self.client_torrc = folder / "client.inc"  # a further tor that includes it joins this network
        self.took_s = 0.0
        ports = iter(_free_ports(2 * authorities + relays + 2 * clients))
        # Folder, OR port, directory port.
        self._authorities = [(folder / f"auth{number}", next(ports), next(ports)) for number in range(authorities)]
        self._relays = [(folder / f"relay{number}", next(ports)) for number in range(relays)]
        self.clients = [
            Client(folder / f"client{number}", self.client_torrc, next(ports), next(ports)) for number in range(clients)
        ]
        self._ends = contextlib.ExitStack()

    def __enter__(self) -> Self:
        began = time.monotonic()
        try:
            for first_vote_s in FIRST_VOTE_S:
                try:
                    self._start(first_vote_s, began + START_S)
                    break
                except _TooSlow:
                    self._ends.close()
                    shutil.rmtree(self.folder)
            else:
                raise TimeoutError("this machine is too slow or too busy for a private Tor network")
        except BaseException:
            self._ends.close()
            raise
        self.took_s = time.monotonic() - began
        return self

    def __exit__(self, *exc: object) -> None:
        self._ends.close()

    @contextlib.contextmanager
    def another(self, how: str) -> Iterator[Client]:
        """One more client, with other flags of its SOCKS port; it has bootstrapped."""
        socks, control = _free_ports(2)
        client = Client(self.folder / f"client-{socks}", self.client_torrc, socks, control, how)
        client.start()
        try:
            deadline = time.monotonic() + START_S
            while not client.is_ready:
                if time.monotonic() > deadline:
                    raise TimeoutError("one more tor did not bootstrap")
                time.sleep(0.1)
            yield client
        finally:
            client.end()

    def _start(self, first_vote_s: int, deadline: float) -> None:
        for place, *_ in self._authorities:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        with ThreadPoolExecutor() as pool:
            lines = list(pool.map(lambda known: _authority_line(*known), self._authorities))
        common = self.folder / "common.inc"
        common.write_text(COMMON + "".join(lines))
        self.client_torrc.write_text(f"%include {common}\nClientOnly 1\n")
        _wait(lambda: time.time() % first_vote_s < 1, deadline)
        servers = [
            Tor(place, f"%include {common}\nNickname {place.name}\n{RELAY}ORPort 127.0.0.1:{port}\n"
                       f"DirPort 127.0.0.1:{directory}\n{AUTHORITY}TestingV3AuthInitialVotingInterval {first_vote_s}\n")
            for place, port, directory in self._authorities
        ]  # fmt: skip
        servers += [
            Tor(place, f"%include {common}\nNickname {place.name}\n{RELAY}ORPort 127.0.0.1:{port}\n")
            for place, port in self._relays
        ]
        for server in servers:
            self._run(server)
        authorities = servers[: len(self._authorities)]
        _wait(lambda: all(_read(a.folder / "cached-microdesc-consensus") for a in authorities), deadline)
        if any(_listed(authority.folder) < len(servers) for authority in authorities):
            raise _TooSlow
        _wait(lambda: self._are_complete(servers), deadline, each_s=1.0)
        for client in self.clients:
            self._run(client)
        _wait(lambda: all(client.is_ready for client in self.clients), deadline)

    def _run(self, tor: Tor) -> None:
        tor.start()
        self._ends.callback(tor.end)

    def _are_complete(self, servers: list[Tor]) -> bool:
        lacking = [server for server in servers if not server.has_all(len(servers))]
        for server in lacking:  # one that met an authority without a consensus waits up to 14 s; this ends the wait
            if server.process is not None:
                server.process.send_signal(signal.SIGHUP)
        return not lacking


def _authority_line(place: Path, port: int, directory: int) -> str:
    """Make an authority's keys; the line by which the others know it."""
    keys = place / "keys"
    keys.mkdir(mode=0o700, exist_ok=True)
    subprocess.run(
        ["tor-gencert", "--create-identity-key", "--passphrase-fd", "0", "-m", "12", "-a", f"127.0.0.1:{directory}"],
        cwd=keys, input=b"password\n", check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    nobody = "F" * 40
    torrc = place / "torrc.keys"
    torrc.write_text(
        f"DataDirectory {place}\nORPort {port}\nNickname {place.name}\n"
        f"DirAuthority nobody orport=1 v3ident={nobody} 127.0.0.1:1 {nobody}\n"
    )
    command = ["tor", "-f", str(torrc), "--defaults-torrc", "/dev/null", "--list-fingerprint"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    found = re.search(r"^fingerprint (\w+)", (keys / "authority_certificate").read_text(), re.MULTILINE)
    assert found is not None
    fingerprint = (place / "fingerprint").read_text().split()[1]
    return (
        f"DirAuthority {place.name} orport={port} no-v2 v3ident={found[1]} 127.0.0.1:{directory} {fingerprint}\n"
    )  # fmt: skip


def _free_ports(count: int) -> Iterator[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        ports = [sock.getsockname()[1] for sock in sockets]
    return iter(ports)


def _wait(is_so: Callable[[], bool], deadline: float, each_s: float = 0.1) -> None:
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the private Tor network did not come up within {START_S:.0f} s")
        time.sleep(each_s)


def main() -> None:
    """Run the network until a signal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    with contextlib.suppress(KeyboardInterrupt), TorNetwork(parser.parse_args().folder.absolute()) as network:
        for client in network.clients:
            print(f"socks {client.socks} control {client.control} cookie {client.cookie}")
        print(f"include {network.client_torrc} in the torrc of another tor; up in {network.took_s:.1f} s", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
