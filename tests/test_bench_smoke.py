"""The bench's own arithmetic and the shape of its lines; nothing is timed here."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import __main__ as bench
from bench import carriers, carriers_worker, frames, records, report, sockets_worker
from bench.harness import Figure, Pair, Result, Unavailable, chosen, failed_line, interleaved, line, rounded, spread
from bench.process import Process, ProcessFailed

from obscura.wire.frame import encode_frame
from obscura.wire.messages.transactions import Tx

FIELDS = {
    *("name", "value", "unit", "goal", "ratio", "goal_ratio", "reached", "calibration"),
    *("runs", "spread", "values", "is_less_better"),
}
PROMISED = {
    "frames_64": 450_000,
    "frames_1k": 300_000,
    "frames_64k": 850,
    "records_64k": 1_000,
    "link_64": 250_000,
    "link_1m": 620,
    "link_64_cells": 250_000,
    "link_1m_cells": 620,
    "handshakes": 1_000,
    "idle_link_kib": 12,
    "block_sync": 50,
    "blocks_small": 1_000,
    "tx_relay": 2_000,
    "help_ms": 150,
    "carrier_tls_16k": 300,
    "carrier_http_16k": 250,
    "carrier_ssh_16k": 100,
    "carrier_tls_400": 60_000,
    "carrier_http_400": 60_000,
    "carrier_ssh_400": 30_000,
    "carrier_tls_expansion_1400": 1.06,
    "carrier_http_expansion_1400": 1.06,
    "carrier_ssh_expansion_1400": 1.06,
}


@contextmanager
def nothing() -> Iterator[Pair]:
    yield Pair(lambda: 1.0, lambda: 2.0)


def figure(goal: float = 10.0, goal_ratio: float | None = 2.0, *, less: bool = False) -> Figure:
    return Figure("x", "things/s", goal, goal_ratio, "bare things", "things/s", nothing, is_less_better=less)


@pytest.mark.parametrize(
    ("values", "calibrations", "goal_ratio", "less", "ratio", "reached"),
    [
        ([9, 1, 8], [4, 1, 4], 2.0, False, 2.0, True),  # the ratio decides although the value misses its goal
        ([90, 10, 80], [41, 1, 42], 2.0, False, 1.951, False),
        ([9, 1, 8], [4, 1, 4], None, False, 2.0, False),  # without a goal for the ratio the value decides
        ([11, 11, 1], [4], None, False, 2.75, True),
        ([9, 1, 8], [4, 1, 4], 1.9, True, 2.0, False),
        ([9, 1, 8], [4, 1, 4], 2.0, True, 2.0, True),
        ([11], [4], None, True, 2.75, False),
        ([9], [4], None, True, 2.25, True),
    ],
)
def test_the_median_ratio_decides(
    values: list[float],
    calibrations: list[float],
    goal_ratio: float | None,
    less: bool,
    ratio: float,
    reached: bool,
) -> None:
    shown = line(figure(goal_ratio=goal_ratio, less=less), Result(values, calibrations))
    assert set(shown) == FIELDS
    assert (shown["ratio"], shown["reached"]) == (ratio, reached)
    assert shown["runs"] == len(values)
    assert set(shown["calibration"]) == {"beside", "value", "unit", "values"}


def test_a_missing_peer_is_said_and_never_counts_as_reached() -> None:
    result = interleaved(Pair(lambda: 1e9, Unavailable("no wheel for it")), 5)
    shown = line(figure(), result)
    assert shown["ratio"] is None
    assert shown["reached"] is None
    assert shown["why_no_ratio"] == "no wheel for it"
    assert shown["calibration"]["value"] is None


def test_runs_alternate_after_one_of_each_that_does_not_count() -> None:
    said: list[str] = []

    def saying(word: str, numbers: Iterator[float]) -> Callable[[], float]:
        def run() -> float:
            said.append(word)
            return next(numbers)

        return run

    pair = Pair(saying("m", iter([100.0, 1, 2, 3])), saying("c", iter([100.0, 4, 5, 6])))
    assert interleaved(pair, 3) == Result([1, 2, 3], [4, 5, 6])
    assert said == ["m", "c", *["c", "m"] * 3]


@given(st.lists(st.floats(0.1, 1e9), min_size=1, max_size=9), st.floats(0.1, 1e9))
@settings(deadline=None, max_examples=50)
def test_a_line_is_json_and_its_spread_does_not_depend_on_order_or_scale(values: list[float], goal: float) -> None:
    shown = line(figure(goal=goal), Result(values, values[::-1]))
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown
    assert shown["ratio"] == 1.0
    assert spread(values) == spread(values[::-1])
    assert spread([2 * value for value in values]) == pytest.approx(spread(values))


@pytest.mark.parametrize(
    ("number", "shown"), [(None, None), (123_456.0, 123_500.0), (0.000123456, 0.0001235), (0.0, 0.0)]
)
def test_four_digits(number: float | None, shown: float | None) -> None:
    assert rounded(number) == shown


def test_every_promised_figure_is_there_under_its_goal() -> None:
    goals = {figure.name: figure.goal for figure in bench.FIGURES}
    assert len(goals) == len(bench.FIGURES)
    assert {name: goals.get(name) for name in PROMISED} == PROMISED


def test_only_takes_names_in_order_and_refuses_strangers() -> None:
    assert [figure.name for figure in chosen(bench.FIGURES, "link_1m, frames_64")] == ["link_1m", "frames_64"]
    assert len(chosen(bench.FIGURES, None)) == len(bench.FIGURES)
    with pytest.raises(ValueError, match="no figure link_2; there are frames_64"):
        chosen(bench.FIGURES, "link_2")


def test_a_figure_that_cannot_be_measured_is_a_line_and_a_status(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def broken() -> Iterator[Pair]:
        raise ProcessFailed("the listener ended")
        yield

    monkeypatch.setattr(
        bench, "FIGURES", (Figure("a", "u", 1, 1, "b", "u", broken), Figure("b", "u", 1, 1, "b", "u", nothing))
    )
    assert bench.main([]) == 1
    failed, fine = map(json.loads, capsys.readouterr().out.splitlines())
    assert (failed["reached"], failed["error"]) == (False, "the listener ended")
    assert fine["name"] == "b"


def test_a_process_that_ends_says_why_and_one_that_hangs_is_ended() -> None:
    with (
        Process([sys.executable, "-c", "raise SystemExit('no such thing')"]) as short,
        pytest.raises(ProcessFailed, match="no such thing"),
    ):
        short.hear()
    with Process([sys.executable, "-c", "import sys; sys.stdin.read()"]) as silent:
        with pytest.raises(ProcessFailed, match="no answer within 0 s"):
            silent.hear(timeout_s=0.0)
        pid = silent.pid
    assert not Path(f"/proc/{pid}/exe").exists()


@pytest.mark.parametrize(
    ("goal", "goal_ratio", "less", "parts"),
    [
        (10.0, None, False, (0.5, 0.8, 2.0)),
        (10.0, None, True, (0.5, 1.25, 2.0)),
        (None, None, False, None),  # nothing was promised
        (10.0, 2.0, False, (0.625, 1.0, 2.5)),
        (10.0, 2.0, True, (0.4, 1.0, 1.6)),
    ],
)
def test_the_part_of_its_goal_that_a_figure_has(
    goal: float | None, goal_ratio: float | None, less: bool, parts: tuple[float, float, float] | None
) -> None:
    asked = Figure("x", "u", goal, goal_ratio, "b", "u", nothing, is_less_better=less)
    found = report.attained(line(asked, Result([20, 8, 5], [4, 4, 4])))
    assert found == (None if parts is None else pytest.approx(parts))


def test_a_run_is_kept_as_lines_a_table_and_a_picture(tmp_path: Path) -> None:
    lines = [
        line(figure(), Result([9, 1_234.0, 8], [4])),
        line(Figure("tunnel_x_16k", "MB/s", None, None, "sockets", "MB/s", nothing), Result([5], [9])),
        line(figure(), Result([3], [], "no wheel for it")),
        failed_line(figure(), "the listener ended"),
    ]
    report.write(lines, tmp_path / "new" / "run", "abc1234")
    kept = tmp_path / "new" / "run"
    assert [json.loads(text) for text in (kept / "figures.jsonl").read_text().splitlines()] == lines
    text = (kept / "figures.md").read_text()
    assert "`abc1234`" in text
    assert "medians of 1 or 3 runs" in text
    rows = [row.split(" | ") for row in text.splitlines() if row.startswith("| `")]
    assert rows[0][1:3] == ["9 things/s (8 to 1,234)", "4 things/s"]
    assert "* `x`: bare things" in text.splitlines()
    assert [row[5] for row in rows] == ["yes |", " |", " |", "**no** |"]
    assert "no wheel for it" in text
    assert "could not be measured: the listener ended" in text
    assert "<svg" in (kept / "figures.svg").read_text()


def test_records_of_the_figure_are_what_a_link_seals() -> None:
    for work in (records.chained(1 << 10), records.bare(1 << 10)):
        for _ in range(3):
            work()


@pytest.mark.parametrize("size", [64, 1_024])
def test_both_sides_of_the_frame_figure_count_the_same_frames(size: int) -> None:
    bodies = [number.to_bytes(8, "little") + bytes(size - 8) for number in range(40)]
    stream = b"".join(encode_frame(Tx(body)) for body in bodies)
    for use in (frames.parsing(), frames.hashing(bodies, len(stream) // 40)):
        assert sum(use(memoryview(stream)[at : at + 1_000]) for at in range(0, len(stream), 1_000)) == 40


@pytest.mark.parametrize(("count", "size"), [(1_000, 400), (164, 400), (3, 16 << 10)])
def test_sockets_and_carriers_are_given_pieces_of_the_same_size(count: int, size: int) -> None:
    """A call per small message beside messages that are joined measures calls: plain sockets came out slower than TLS."""
    each = carriers_worker.messages(count, size)
    joined = carriers_worker.joined(each, carriers_worker.RECORD) if size < 1_000 else each
    assert [len(piece) for piece in sockets_worker.calls(count, size)] == [len(piece) for piece in joined]


@pytest.mark.parametrize("name", carriers.SHAPES)
def test_bytes_on_the_wire_stay_below_the_goal(name: str) -> None:
    options, _, _, goal = carriers.SHAPES[name]
    assert 1.0 <= carriers.expansion(options) <= goal
