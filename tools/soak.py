"""A node under many links for a long time: does it stay as it was?

    python tools/soak.py --minutes 60 [--links 1000] [--json FILE]

Seven in ten links are honest: they ping, fetch what is announced, send transactions; some come and go; new nodes fetch the whole
chain. The others flood, ask and never read, send a byte a second, noise, nothing, or come and go as fast as they can
(tools/soak_peers.py).
They are processes of their own on loopback. The node mines a block now and then.

Sampled: resident memory, descriptors, asyncio tasks, links, bytes held for peers, honest pings. Then all leave. Exit status 1 if

* memory grows: a line fitted to it after the first third rises by more than --growth-mib, by more than twice its own error;
* descriptors, tasks or links are left that were not there before;
* fewer than three in four of the links that were wanted ever stood at once: who is not there proves nothing;
* more bytes are held than the budget;
* the 95th percentile of honest pings is above --p95-ms and ten times that before the hostile peers came;
* more than one in a hundred honest links is lost, or no new node could fetch the chain.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from itertools import accumulate
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from amounts import positive, whole
from obscura.daemon.chain_methods import chain_methods
from obscura.daemon.config import Config
from obscura.daemon.node import Node
from obscura.daemon.runtime import keep_freed_memory, new_event_loop
from obscura.daemon.supervisor import raise_open_files
from obscura.limits import MEMORY_BUDGET
from obscura.node.admission import AdmissionLimits
from soak_peers import WORK

HONEST_PROCESSES = 2
CALM = 0.15  # of the time: only honest peers are there
WARM = 1 / 3  # of the time: memory is not judged yet
LINK_KIB = 12  # that a link costs by itself (the bench's goal for ``idle_link_kib``)
LEAST_THERE = 0.75  # of the links that are wanted: some come and go all the time
SETTLE_S = 90.0  # after which nothing of the peers may be left
BLOCK_BYTES = 50_000


class Sample(NamedTuple):
    """What the node is at one moment."""

    at_s: float
    rss_kib: int
    descriptors: int
    tasks: int
    links: int
    peers: int
    held_bytes: int
    most_held_bytes: int  # since the start
    height: int
    heap_used_kib: int = 0  # of glibc's heap, by mallinfo2; 0 where there is none
    heap_free_kib: int = 0  # freed, and kept by the heap
    objects: int = 0  # Python's, that its collector follows


# --- The node ---------------------------------------------------------------------------------------------------------------


async def serve(place: Path, links: int, mine_s: float) -> None:
    """A node that says where it is, and on each line of input how it is."""
    many = AdmissionLimits(max_unauthenticated=max(256, links // 2))
    config = Config(
        network="dev",
        data_dir=place,
        listen=("127.0.0.1:0",),
        max_outbound=0,
        max_inbound=min(10_000, 2 * links),
        privacy="standard",
        log_level="error",
        admission=many,
    )
    async with Node(config) as node:
        mining = asyncio.create_task(_mine(node, mine_s))
        print(node.addresses[0], flush=True)
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        began = node.now()
        while await reader.readline():
            gc.collect()
            print(json.dumps(_state(node, began)._asdict()), flush=True)
        mining.cancel()


async def _mine(node: Node, every_s: float) -> None:
    while True:
        await chain_methods(node)["mine"](blocks=1, fill=BLOCK_BYTES)
        await asyncio.sleep(every_s)


def _state(node: Node, began: float) -> Sample:
    held = sum(sum(row["held_bytes"].values()) for row in node.engine.describe(node.now()))
    return Sample(
        at_s=round(node.now() - began, 1),
        rss_kib=_rss_kib(),
        descriptors=len(os.listdir("/proc/self/fd")),
        tasks=len(asyncio.all_tasks()),
        links=len(node.engine.links),
        peers=len(node.peers()),
        held_bytes=held,
        most_held_bytes=node.engine._memory.most,
        height=node.relay.blocks.tip_height,
        **_heap(),
        objects=len(gc.get_objects()),
    )


def _rss_kib() -> int:
    rows = Path("/proc/self/status").read_text().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith("RssAnon:"))


class _Mallinfo2(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    )


def _heap() -> dict[str, int]:
    """What glibc says of its heap (mallinfo(3)): a heap that spreads is told from objects that stay."""
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError):
        return {}
    mallinfo2.restype = _Mallinfo2
    told = mallinfo2()
    return {"heap_used_kib": (told.uordblks + told.hblkhd) >> 10, "heap_free_kib": told.fordblks >> 10}


# --- The processes around it --------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def child(*arguments: object) -> AsyncIterator[asyncio.subprocess.Process]:
    """This program in another part, ended when it is left."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, *map(str, arguments), stdin=pipe, stdout=pipe, limit=1 << 24
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        with contextlib.suppress(TimeoutError, ProcessLookupError):
            await asyncio.wait_for(process.wait(), 20)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def work(kind: str, place: Path, address: str, links: int) -> None:
    """Peers of one kind, until the input ends."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    task = loop.create_task(WORK[kind][0](place, address, links))  # type: ignore[arg-type]
    parent_ends = loop.create_task(reader.read())
    await asyncio.wait((task, parent_ends), return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, ExceptionGroup):
        await task


class Honest:
    """What the honest processes told."""

    def __init__(self) -> None:
        self.pings_ms: list[tuple[float, float]] = []  # when, how long
        self.lost = self.refused = self.late_synced = 0
        self.why: Counter[str] = Counter()
        self.are_here = asyncio.Event()

    async def follow(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while text := await process.stdout.readline():
            self.are_here.set()
            told = json.loads(text)
            self.pings_ms += [(time.monotonic(), ms) for ms in told["pings_ms"]]
            self.lost += told["lost"]
            self.refused += told["refused"]
            self.late_synced += told["late_synced"]
            self.why.update(told["why"])

    def between(self, begin: float, end: float) -> list[float]:
        return [ms for at, ms in self.pings_ms if begin <= at < end]


async def ask(server: asyncio.subprocess.Process) -> Sample:
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(b"\n")
    text = await asyncio.wait_for(server.stdout.readline(), 120)
    if not text:
        raise SystemExit("the node ended")
    return Sample(**json.loads(text))


# --- A soak -------------------------------------------------------------------------------------------------------------------


async def soak(folder: Path, seconds: float, links: int) -> dict[str, Any]:
    """All of it; what came out."""
    honest, samples = Honest(), []
    mine_s = max(2.0, seconds / 120)
    async with child("--serve", folder / "soaked", links, mine_s) as server:
        assert server.stdout is not None
        address = (await server.stdout.readline()).decode().strip()
        before = await _rest(server, folder, address)
        peers = list[asyncio.subprocess.Process]()
        async with contextlib.AsyncExitStack() as workers, asyncio.TaskGroup() as following:
            for number in range(HONEST_PROCESSES):
                share = WORK["honest"][1] * links / HONEST_PROCESSES
                process = await workers.enter_async_context(_worker("honest", folder, number, address, share))
                following.create_task(honest.follow(process))
                peers.append(process)
            await honest.are_here.wait()
            begin = time.monotonic()
            hostile_from, end = begin + CALM * seconds, begin + seconds
            while (now := time.monotonic()) < end:
                if now >= hostile_from and len(peers) == HONEST_PROCESSES:
                    for kind, (_, share) in WORK.items():
                        if kind != "honest":
                            worker = _worker(kind, folder, 0, address, share * links)
                            peers.append(await workers.enter_async_context(worker))
                if any(process.returncode is not None for process in peers):
                    raise SystemExit("a process of peers ended before its time")
                samples.append(await ask(server))
                await asyncio.sleep(max(0.5, seconds / 240))
            await workers.aclose()
        after = await _settled(server, before)
    warm = samples[0].at_s + WARM * seconds
    return {
        "links": links,
        "seconds": seconds,
        "before": before._asdict(),
        "after": after._asdict(),
        "memory": memory(samples, warm),
        "calm": latency(honest.between(begin, hostile_from)),
        "mixed": latency(honest.between(hostile_from, end)),
        "most": {
            name: max(getattr(s, name) for s in samples) for name in ("links", "peers", "most_held_bytes", "tasks")
        },
        "honest_links": int(WORK["honest"][1] * links),
        "honest_lost": honest.lost,
        "honest_refused": honest.refused,
        "why": honest.why.most_common(),
        "late_synced": honest.late_synced,
        "samples": [sample._asdict() for sample in samples],
    }


def _worker(
    kind: str, folder: Path, number: int, address: str, links: float
) -> contextlib.AbstractAsyncContextManager[asyncio.subprocess.Process]:
    return child("--work", kind, folder / f"{kind}{number}", address, max(1, round(links)))


async def _rest(server: asyncio.subprocess.Process, folder: Path, address: str) -> Sample:
    """How the node is once it has had a link: what it opens for the first one is not of the peers."""
    async with Node(Config(network="dev", data_dir=folder / "first", listen=(), max_outbound=0)) as node:
        peer = await node.connect(address)
        await node.ping(peer)
    for _ in range(20):
        await asyncio.sleep(0.5)
        before = await ask(server)
        if before.links == 0:
            break
    return before


async def _settled(server: asyncio.subprocess.Process, before: Sample) -> Sample:
    """How the node is once it had time to forget its peers."""
    end = time.monotonic() + SETTLE_S
    while True:
        after = await ask(server)
        if not left(before, after) or time.monotonic() > end:
            return after
        await asyncio.sleep(1)


def left(before: Sample, after: Sample) -> list[str]:
    """What is there afterwards and was not before."""
    names = ("links", "peers", "tasks", "descriptors", "held_bytes")
    return [name for name in names if getattr(after, name) > getattr(before, name)]


def latency(pings_ms: list[float]) -> dict[str, float]:
    """Of pings in milliseconds."""
    if len(pings_ms) < 2:
        return {"pings": len(pings_ms), "p50_ms": float("inf"), "p95_ms": float("inf")}
    p95 = statistics.quantiles(pings_ms, n=20)[-1]
    return {"pings": len(pings_ms), "p50_ms": round(statistics.median(pings_ms), 1), "p95_ms": round(p95, 1)}


def memory(samples: list[Sample], warm_s: float) -> dict[str, float]:
    """The line through resident memory from ``warm_s`` on: MiB per hour, its standard error, and the rise in MiB.

    Without what the heap keeps of the worst moment so far: ``LINK_KIB`` for each of the most links that there were, and the most
    bytes that were held for peers, which have a budget of their own. Both may come at any time.
    """
    most = accumulate((sample.links for sample in samples), max)
    chosen = [(sample, links) for sample, links in zip(samples, most, strict=True) if sample.at_s >= warm_s]
    at = np.array([sample.at_s / 3_600 for sample, _ in chosen])
    kept = [LINK_KIB * links + sample.most_held_bytes / 1_024 for sample, links in chosen]
    mib = np.array([(sample.rss_kib - kib) / 1_024 for (sample, _), kib in zip(chosen, kept, strict=True)])
    if len(chosen) < 4:  # too short for a line: nothing is shown
        return {"mib_at_the_end": samples[-1].rss_kib / 1_024, "mib_per_hour": inf, "error": inf, "rise_mib": inf}
    (slope, _), covariance = np.polyfit(at, mib, 1, cov=True)
    error, hours = float(np.sqrt(covariance[0, 0])), float(at[-1] - at[0])
    return {
        "mib_at_the_end": round(samples[-1].rss_kib / 1_024, 1),
        "mib_per_hour": round(float(slope), 2),
        "error": round(error, 2),
        "rise_mib": round(max(0.0, (float(slope) - 2 * error) * hours), 2),
    }


def parts(samples: list[dict[str, Any]]) -> str:
    """Of what memory consists, as medians of the second third and of the last."""
    third = len(samples) // 3
    told = []
    for chosen in (samples[third : 2 * third], samples[2 * third :]):
        used, free, rss = (
            statistics.median(s[k] for s in chosen) for k in ("heap_used_kib", "heap_free_kib", "rss_kib")
        )
        rest = statistics.median(s["rss_kib"] - s["heap_used_kib"] - s["heap_free_kib"] for s in chosen)
        objects = statistics.median(s["objects"] for s in chosen)
        told.append(
            f"{rss / 1024:.1f} MiB = heap {used / 1024:.1f} in use and {free / 1024:.1f} free, Python's arenas and the rest "
            f"{rest / 1024:.1f}; {objects:,.0f} objects"
        )
    return "\n            ".join(told)


def broken(result: dict[str, Any], growth_mib: float, p95_ms: float) -> list[str]:
    """Bounds that do not hold, in words."""
    before, after = Sample(**result["before"]), Sample(**result["after"])
    faults = [f"{n} left: {getattr(after, n)}, before {getattr(before, n)}" for n in left(before, after)]
    if result["most"]["links"] < LEAST_THERE * result["links"]:
        faults.append(f"at most {result['most']['links']} of {result['links']} links stood at once")
    if result["memory"]["rise_mib"] > growth_mib:
        faults.append(f"memory rose by {result['memory']['rise_mib']} MiB, at most {growth_mib} are allowed")
    if result["most"]["most_held_bytes"] > MEMORY_BUDGET:
        faults.append(f"{result['most']['most_held_bytes']} bytes were held, the budget is {MEMORY_BUDGET}")
    allowed = max(p95_ms, 10 * result["calm"]["p95_ms"])
    if not result["mixed"]["p95_ms"] <= allowed:
        faults.append(f"95th percentile of pings {result['mixed']['p95_ms']} ms, at most {allowed:.0f}")
    if result["honest_lost"] > max(1, result["honest_links"] / 100):
        faults.append(f"{result['honest_lost']} of {result['honest_links']} honest links were lost")
    if result["seconds"] >= 60 and not result["late_synced"]:
        faults.append("no new node could fetch the chain")
    return faults


def told(result: dict[str, Any]) -> str:
    """The result for people."""
    memory, before, after = result["memory"], result["before"], result["after"]
    samples = result["samples"]
    return "\n".join(
        [
            f"{result['links']} links wanted for {result['seconds']:.0f} s: at most {result['most']['links']} at once, "
            f"{result['most']['peers']} of them established; height {samples[-1]['height']}",
            f"memory      {memory['mib_at_the_end']} MiB at the end, {memory['mib_per_hour']:+} ± {memory['error']} MiB/h "
            f"after the first third, without {LINK_KIB} KiB a link and what was held at most",
            f"of which    {parts(samples)}",
            f"held        at most {result['most']['most_held_bytes'] / 2**20:.1f} MiB for peers",
            f"tasks       {before['tasks']} before, at most {result['most']['tasks']}, {after['tasks']} after",
            f"descriptors {before['descriptors']} before, {after['descriptors']} after all left; links {after['links']}",
            *(
                f"pings       {result[part]['p50_ms']} ms (p50), {result[part]['p95_ms']} ms (p95) of "
                f"{result[part]['pings']}, {words}"
                for part, words in (("calm", "honest peers alone"), ("mixed", "with hostile ones"))
            ),
            f"honest      {result['honest_lost']} of {result['honest_links']} links lost, {result['honest_refused']} times "
            f"to come again; {result['late_synced']} new nodes fetched the chain",
            *(f"            {times} times: {why}" for why, times in result["why"][:5]),
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="A node under many links for a long time.")
    parser.add_argument("--minutes", type=positive, default=60.0)
    parser.add_argument("--links", type=whole(10), default=1_000)
    parser.add_argument("--growth-mib", type=positive, default=8.0, help="rise of memory that is allowed (8)")
    parser.add_argument("--p95-ms", type=positive, default=2_000.0, help="95th percentile of honest pings (2000)")
    parser.add_argument("--json", type=Path, help="file to write figures and samples to")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    keep_freed_memory()
    raise_open_files()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        if options.serve:
            place, links, mine_s = options.serve
            runner.run(serve(Path(place), int(links), float(mine_s)))
            return 0
        if options.work:
            kind, place, address, links = options.work
            runner.run(work(kind, Path(place), address, int(links)))
            return 0
        with tempfile.TemporaryDirectory(prefix="obscura-soak-") as folder:
            result = runner.run(soak(Path(folder), 60 * options.minutes, options.links))
    faults = broken(result, options.growth_mib, options.p95_ms)
    print(told(result))
    for fault in faults:
        print(f"BROKEN: {fault}")
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode({**result, "broken": faults}), indent=1))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
