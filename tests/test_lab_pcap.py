"""Recorded packets: figures of laws whose figures are known, and what is said of files that hold nothing."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from obscura.cli import root
from obscura.lab.pcap import LEAST_WRITES, is_pcap, observe

Row = tuple[str, str, str, str, str]


def rows(
    times: list[float], sizes: list[int], stream: int = 0, ports: tuple[int, int] = (40_000, 9_733)
) -> Iterator[Row]:
    for at, size in zip(times, sizes, strict=True):
        yield (str(stream), f"{at:.9f}", str(ports[0]), str(ports[1]), str(size))


def times(gaps: list[float]) -> list[float]:
    at, found = 1_700_000_000.0, []
    for gap in gaps:
        at += gap
        found.append(at)
    return found


def test_constant_slots_of_one_length_say_nothing() -> None:
    (seen,) = observe(rows(times([0.25] * 400), [1_024] * 400))
    assert (seen.writes, seen.lengths, seen.length_bits, seen.bytes) == (400, 1, 0.0, 400 * 1_024)
    assert seen.gap_cv < 0.01
    assert seen.dispersion < 0.1


def test_a_poisson_process_has_dispersion_one() -> None:
    rng = random.Random(1)
    (seen,) = observe(rows(times([0.002 + rng.expovariate(4) for _ in range(4_000)]), [1_024] * 4_000))
    assert 0.9 < seen.gap_cv < 1.1
    assert 0.85 < seen.dispersion < 1.15


def test_bunches_and_lengths_show() -> None:
    """The control: messages as they come, in bunches and at their own lengths."""
    rng = random.Random(2)
    gaps = [0.01 if n % 10 else rng.expovariate(0.5) for n in range(2_000)]
    sizes = [rng.choice((64, 128, 256, 512)) for _ in gaps]
    (seen,) = observe(rows(times(gaps), sizes))
    assert seen.gap_cv > 2
    assert seen.dispersion > 3
    assert 1.95 < seen.length_bits < 2.05


def test_segments_of_one_write_are_joined_and_directions_kept_apart() -> None:
    at = [n + part for n in range(20) for part in (0.0, 0.0001, 0.0002)]
    there = list(rows(at, [1_448, 1_448, 176] * 20))
    back = list(rows([n + 0.5 for n in range(30)], [64] * 30, ports=(9_733, 40_000)))
    few = list(rows([0.1] * (LEAST_WRITES - 1), [1] * (LEAST_WRITES - 1), stream=1))
    seen = observe([*there, *back, *few])
    assert [(one.direction, one.writes, one.lengths, one.bytes) for one in seen] == [
        ("40000 > 9733", 20, 1, 20 * 3_072),
        ("9733 > 40000", 30, 1, 30 * 64),
    ]


EMPTY = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 1)  # a pcap without packets


def test_files_that_hold_no_link(tmp_path: Path) -> None:
    for name, content, is_it in (
        ("empty.pcap", EMPTY, True),
        ("lines.json", b'{"at": 1}', False),
        ("none", b"", False),
    ):
        (tmp_path / name).write_bytes(content)
        assert is_pcap(tmp_path / name) is is_it


@pytest.mark.parametrize("tools", ["tshark", ""], ids=["with tshark or not", "without"])
def test_the_command_says_what_is_wrong(tools: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not tools:
        monkeypatch.setenv("PATH", str(tmp_path))
    file = tmp_path / "empty.pcap"
    file.write_bytes(EMPTY)
    done = CliRunner().invoke(root, ["lab", "leakage", "--capture", str(file), "--port", "9733"])
    assert done.exit_code != 0
    assert "tshark" in done.output or "no connection on port 9733" in done.output
