"""What tshark sees of real links: at `high` neither lengths nor gaps tell an idle link from a busy one; at `none`, the
control, both do; at `medium` times do. And what a SYN shows of each TCP profile, beside what the socket says.

Needs tshark (apt install tshark) and the right to capture on the loopback; fails without them.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
from scipy import stats

from obscura.lab.pcap import is_pcap, read_pcap
from obscura.transport.profile import ProfileName, TcpProfile, TcpValues, apply, read_back

TOOL = Path(__file__).parents[1] / "tools" / "shaping_on_the_wire.py"
LEVELS = ("none", "medium", "high")
PHASE_S = 15.0
UNLIKELY = 0.001  # p below which two phases are told apart


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def captured(file: Path, which: str) -> Iterator[None]:
    """tshark writes what passes the loopback and fits the filter; ends a second after the block."""
    tshark = subprocess.Popen(
        ["tshark", "-q", "-i", "lo", "-f", which, "-w", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        until = time.monotonic() + 20
        while not (file.exists() and file.stat().st_size) and time.monotonic() < until:
            assert tshark.poll() is None, tshark.stderr.read().decode() if tshark.stderr else ""
            time.sleep(0.1)
        time.sleep(1)  # the file begins before the capture does
        yield
        time.sleep(1)
    finally:
        tshark.terminate()
        tshark.communicate(timeout=20)


def fields(file: Path, which: str, *names: str) -> list[list[str]]:
    words = [word for name in names for word in ("-e", name)]
    command = ["tshark", "-n", "-r", str(file), "-Y", which, "-T", "fields", "-E", "separator=;", *words]
    done = subprocess.run(command, capture_output=True, timeout=120, check=True)
    return [line.split(";") for line in done.stdout.decode().splitlines()]


def say(text: str) -> None:
    """For who runs it with -s."""
    sys.stdout.write(f"{text}\n")


class Phase(NamedTuple):
    """Packets with payload of one direction in one phase."""

    times: list[float]
    lengths: set[int]

    @property
    def gaps(self) -> list[float]:
        return [later - earlier for earlier, later in pairwise(self.times)]


class Link(NamedTuple):
    """One recorded link: both phases, and its port."""

    idle: Phase
    busy: Phase
    port: int

    @property
    def rate_p(self) -> float:
        """That as many packets would fall into one phase if both had one rate."""
        counts = len(self.idle.times), len(self.busy.times)
        return float(stats.binomtest(counts[1], sum(counts), 0.5).pvalue)

    @property
    def gaps_p(self) -> float:
        return float(stats.ks_2samp(self.idle.gaps, self.busy.gaps).pvalue)


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Link]]:
    """All levels at once, one real link each, in one capture."""
    file = tmp_path_factory.mktemp("wire") / "link.pcapng"
    ports = {level: free_port() for level in LEVELS}
    with captured(file, " or ".join(f"tcp port {port}" for port in ports.values())):
        runs = {
            level: subprocess.Popen(
                [sys.executable, str(TOOL), level, str(PHASE_S), "--keep-port", str(port)], stdout=subprocess.PIPE
            )
            for level, port in ports.items()
        }
        said = {level: json.loads(run.communicate(timeout=120)[0]) for level, run in runs.items()}
    return file, {level: link(file, ports[level], said[level]["phases"]) for level in LEVELS}


def link(file: Path, port: int, phases: dict[str, Any]) -> Link:
    rows = fields(file, f"tcp.dstport == {port} && tcp.len > 0", "frame.time_epoch", "tcp.len")
    packets = [(float(at), int(length)) for at, length in rows]

    def within(name: str) -> Phase:
        began, ended = phases[name]
        there = [(at, length) for at, length in packets if began <= at < ended]
        return Phase([at for at, _ in there], {length for _, length in there})

    return Link(within("idle"), within("busy"), port)


Captured = tuple[Path, dict[str, Link]]


def test_nothing_survives_at_high(capture: Captured) -> None:
    seen = capture[1]["high"]
    say(f"high: {len(seen.idle.times)} and {len(seen.busy.times)} packets, rate p {seen.rate_p}, gaps p {seen.gaps_p}")
    assert seen.idle.lengths == seen.busy.lengths == {1_024}
    assert min(len(seen.idle.times), len(seen.busy.times)) > 2 * PHASE_S  # of four a second
    assert seen.rate_p > UNLIKELY
    assert seen.gaps_p > UNLIKELY


def test_the_control_shows_everything(capture: Captured) -> None:
    seen = capture[1]["none"]
    say(f"none: {len(seen.idle.times)} and {len(seen.busy.times)} packets, {len(seen.busy.lengths)} lengths")
    assert len(seen.busy.lengths) > 10
    assert seen.rate_p < UNLIKELY


def test_what_survives_at_medium_is_how_often_and_how_many_cells(capture: Captured) -> None:
    """As docs/shaping.md says: no length but in cells; a busy link is told from an idle one by its times."""
    seen = capture[1]["medium"]
    say(f"medium: {len(seen.idle.times)} and {len(seen.busy.times)} packets, lengths {sorted(seen.busy.lengths)}")
    assert {length % 1_024 for length in seen.idle.lengths | seen.busy.lengths} == {0}
    assert seen.rate_p < UNLIKELY


def test_lab_leakage_reads_the_capture(capture: Captured) -> None:
    file, links = capture
    assert is_pcap(file)
    found = {level: read_pcap(file, one.port) for level, one in links.items() if level != "medium"}
    there = {
        level: next(d for d in seen if d.direction.endswith(f"> {links[level].port}")) for level, seen in found.items()
    }
    assert there["high"].length_bits < 0.5  # the flights of the handshake alone are of other lengths
    assert there["high"].gap_cv < 1.6  # a Poisson process has 1
    assert there["none"].length_bits > 2
    assert there["none"].gap_cv > 1.6


# --- TCP profiles -------------------------------------------------------------------------------------------------------


async def opened(values: TcpValues) -> tuple[int, TcpValues]:
    """A real connection with these values; its own port, and what its socket says."""
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    with socket.socket() as dialled:
        apply(dialled, values)
        dialled.setblocking(False)
        await asyncio.get_running_loop().sock_connect(dialled, server.sockets[0].getsockname())
        found = int(dialled.getsockname()[1]), read_back(dialled)
    server.close()
    await server.wait_closed()
    return found


def test_a_syn_shows_what_its_profile_says_and_its_socket_has(tmp_path: Path) -> None:
    file, sockets = tmp_path / "syn.pcapng", {}
    names = get_args(ProfileName)
    with captured(file, "tcp[tcpflags] & tcp-syn != 0"):
        for name in names:
            sockets[name] = asyncio.run(opened(TcpProfile(name, random.Random(1)).values(0.0)))
    columns = ("tcp.srcport", "ip.ttl", "tcp.window_size_value", "tcp.options.wscale.shift", "tcp.options.mss_val",
               "tcp.options.sack_perm", "tcp.options.timestamp.tsval")  # fmt: skip
    rows = {int(row[0]): row[1:] for row in fields(file, "tcp.flags.syn == 1 && tcp.flags.ack == 0", *columns)}
    syns = {name: rows[port] for name, (port, _) in sockets.items()}
    for name, (ttl, window, scale, mss, *_) in syns.items():
        own = sockets[name][1]
        say(f"{name}: SYN ttl {ttl}, window {window}, scale {scale}, mss {mss}; socket {own}")
        assert int(ttl) == own.hop_limit
        assert own.receive_buffer is not None
        assert int(window) <= own.receive_buffer
    assert int(syns["windows"][0]) == 128
    assert int(syns["linux"][0]) == int(syns["macos"][0]) == 64
    assert syns["host"][1:4] == syns["linux"][1:4]  # both leave window, scale and segment to the kernel
    assert int(syns["random"][1]) < 12_000  # small buffers show: no stock system's window
    for name in names:  # what user space cannot imitate: the options are this kernel's in every profile
        assert [bool(part) for part in syns[name][3:]] == [bool(part) for part in syns["host"][3:]]
