"""lab leakage: measurements that need no node. lab morph: carriers before other people's tools."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import click

from obscura.cli.frame import Failure, Globals, Group, Number, pass_globals
from obscura.cli.output import show_json, show_rows

_FIGURES = ("mi_type_bits", "mi_size_bits", "type_accuracy", "prior", "overhead", "overhead_small", "delay_ms")
_MOST_SEED = 2**32 - 1  # of scikit-learn's generators
_PATH = click.Path(path_type=Path, dir_okay=False)


@click.group(cls=Group)
def lab() -> None:
    """Measure what an observer learns.

    leakage works under a virtual clock, morph with real processes and other people's tools.
    """


def _need(*modules: str) -> None:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise Failure(f"this needs {', '.join(missing)}: pip install 'obscura-p2p[lab]'")


@lab.command()
@click.option("--mix", type=_PATH, help="JSON file with the mix of messages; see docs/shaping.md.")
@click.option("--capture", type=_PATH, help="A recorded link instead of simulated ones: from --record, or a pcap.")
@click.option("--port", type=click.IntRange(1, 65_535), help="Which connections of a pcap; all without it.")
@click.option("--plot", type=_PATH, help="Draw the table into this PNG file.")
@click.option("--record", type=_PATH, help="Write one simulated link of the first scheme into this file.")
@click.option("--scheme", "names", multiple=True, help="Only these schemes; may be repeated.")
@click.option("--rate", "rates", type=Number(0.01, 10_000), multiple=True, help="Messages per second.")
@click.option("--messages", type=click.IntRange(400, 2_000_000), default=20_000, show_default=True)
@click.option("--seed", type=click.IntRange(0, _MOST_SEED), default=1, show_default=True)
@click.option("--classify", is_flag=True, help="Let classifiers look for blocks and own transactions instead.")
@click.option("--windows", type=click.IntRange(20, 20_000), default=500, show_default=True, help="Per class.")
@pass_globals
def leakage(
    globals: Globals,
    mix: Path | None,
    capture: Path | None,
    port: int | None,
    plot: Path | None,
    record: Path | None,
    names: tuple[str, ...],
    rates: tuple[float, ...],
    messages: int,
    seed: int,
    classify: bool,
    windows: int,
) -> None:
    """Show what record sizes and times tell about messages, and what hiding it costs.

    For each scheme: bits that an observer learns about a message's type and size, how often the type is guessed
    rightly, overhead of all and of small messages, and added delay; at the mix's own rate and at ten times it.
    """
    _need("numpy", *(["matplotlib"] if plot else []), *(["sklearn"] if classify else []))
    _check_outputs(plot, record)
    if capture is not None:
        _refuse_ignored("--capture", mix=mix, scheme=names, rate=rates, record=record, classify=classify)
    if classify:
        _refuse_ignored("--classify", plot=plot, record=record, rate=rates)
    if _shown_pcap(globals, capture, port):
        return
    from obscura.lab.leakage import SCHEMES
    from obscura.lab.mix import DEFAULT_MIX, load_mix

    chosen = [scheme for scheme in SCHEMES if not names or scheme.name in names]
    unknown = set(names) - {scheme.name for scheme in SCHEMES}
    if unknown or not chosen:
        raise click.UsageError(f"schemes are {', '.join(scheme.name for scheme in SCHEMES)}")
    drawn_from = load_mix(mix) if mix is not None else DEFAULT_MIX
    if classify:
        _show_classified(globals, drawn_from, names, windows, seed)
        return
    rows = _recorded(capture) if capture is not None else _simulated(globals, chosen, drawn_from, rates, messages, seed)
    if record is not None:
        _record(record, chosen[0], drawn_from, messages, seed)
    if plot is not None:
        from obscura.lab.plot import plot_rows

        plot_rows(rows, plot)
    _show(globals, rows, drawn_from.about if capture is None else str(capture))


def _refuse_ignored(option: str, **others: Any) -> None:
    """Refuse what would have no effect beside ``option``."""
    for name, value in others.items():
        if value:
            raise click.UsageError(f"--{name} has no effect with {option}: leave one of them out")


def _check_outputs(*paths: Path | None) -> None:
    """Say before minutes of measuring that a result could not be written."""
    for path in paths:
        if path is not None and not path.resolve().parent.is_dir():
            raise Failure(f"{path}: its folder does not exist")


def _shown_pcap(globals: Globals, capture: Path | None, port: int | None) -> bool:
    """Show what recorded packets say, if that is what ``--capture`` names."""
    from obscura.lab.pcap import is_pcap, read_pcap

    if capture is None or not is_pcap(capture):
        if port is not None:
            raise click.UsageError("--port goes with --capture FILE, a capture of packets (pcap or pcapng)")
        return False
    import msgspec

    rows = [msgspec.to_builtins(seen) for seen in read_pcap(capture, port)]
    if globals.json:
        show_json({"capture": str(capture), "directions": rows})
    else:
        show_rows(rows, "No connection is in it.")
    return True


def _simulated(globals: Globals, chosen: Any, mix: Any, rates: tuple[float, ...], messages: int, seed: int) -> Any:
    from obscura.lab.leakage import measure

    wanted = rates or (mix.rate_per_s, 10 * mix.rate_per_s)
    rows = []
    for rate in wanted:
        for scheme in chosen:
            if not globals.json:
                click.echo(f"{scheme.name} at {rate:g}/s ...", err=True)
            rows.append(measure(scheme, mix, seed, messages=messages, rate_per_s=rate))
    return rows


def _recorded(path: Path) -> Any:
    import random

    from obscura.lab.leakage import CAPTURES, reckon
    from obscura.lab.recorded import load_capture, parts_of

    capture = load_capture(path)
    span = capture.writes[-1].at - capture.writes[0].at
    rate = len(capture.messages) / span if span > 0 else 0.0
    return [reckon("recorded", rate, parts_of(capture, CAPTURES), random.Random(1))]


def _record(path: Path, scheme: Any, mix: Any, messages: int, seed: int) -> None:
    import random

    from obscura.lab.leakage import simulate
    from obscura.lab.recorded import save_capture

    save_capture(path, simulate(scheme, mix, random.Random(seed), messages, mix.rate_per_s))


def _show(globals: Globals, rows: Any, about: str) -> None:
    import msgspec

    if globals.json:
        built: list[dict[str, Any]] = [msgspec.to_builtins(row) for row in rows]
        first = built[0]["rate_per_s"]
        rules = {row["scheme"]: row for row in built if row["rate_per_s"] == first}
        show_json({"mix": about, "rate_per_s": first, "rules": rules, "rows": built})
        return
    shown = []
    for row in rows:
        line: dict[str, Any] = {"scheme": row.scheme, "per_s": f"{row.rate_per_s:g}"}
        for name in _FIGURES:
            figure = getattr(row, name)
            places = 1 if name == "delay_ms" else 3
            line[name] = f"{figure.value:.{places}f} ({figure.low:.{places}f}..{figure.high:.{places}f})"
        line["carried"] = round(row.carried, 3)
        shown.append(line)
    show_rows(shown, "Nothing was measured.")
    first, shuffled = rows[0], max(abs(row.shuffled_mi_type_bits) for row in rows)
    click.echo(
        f"\nControls: of {first.entropy_type_bits:.2f} bits of type, exact sizes of frames tell {first.exact_mi_type_bits:.2f}; "
        f"shuffled types, of which nothing can be told, come to {shuffled:.3f} at most."
    )


def _show_classified(globals: Globals, mix: Any, names: tuple[str, ...], windows: int, seed: int) -> None:
    import msgspec

    from obscura.lab.classify import QUESTIONS, check, classify
    from obscura.lab.leakage import SCHEMES

    check(mix)
    wanted = names or ("none", "standard", "medium", "high", "high-constant")
    found = []
    for scheme in SCHEMES:
        for question in QUESTIONS:
            if scheme.name in wanted:
                if not globals.json:
                    click.echo(f"{scheme.name}: {question} ...", err=True)
                found.append(msgspec.to_builtins(classify(scheme, question, mix, windows, seed)))
    if globals.json:
        show_json(found)
    else:
        show_rows(found, "Nothing was measured.")


@lab.command()
@click.option("--carrier", required=True, metavar="NAME", help="http, tls, ssh or dns.")
@click.option("--flows", type=click.IntRange(1, 100_000), default=20, show_default=True, help="Sessions per level.")
@click.option(
    "--level",
    "levels",
    multiple=True,
    help="none, standard, medium or high; may be repeated.  [default: none, medium, high]",
)
@click.option("--pcap", type=click.Path(path_type=Path, file_okay=False), help="Keep captures and key logs here.")
@click.option("--seed", type=click.IntRange(0, _MOST_SEED), default=1, show_default=True)
@pass_globals
def morph(globals: Globals, carrier: str, flows: int, levels: tuple[str, ...], pcap: Path | None, seed: int) -> None:
    """Let tshark, nDPI, nfstream and Suricata judge sessions of a carrier.

    Runs two nodes and the genuine server and client of the protocol side by side in a network of their own, captures both, and
    prints a score card. Ends with status 1 if the carrier fails a judge that genuine sessions pass. Needs Linux.
    """
    _need("numpy", "sklearn", "nfstream")
    from obscura.lab import card as cards
    from obscura.lab.field import morph as field

    unknown = set(levels) - set(field.LEVELS)
    if unknown:
        raise click.UsageError(f"levels are {', '.join(field.LEVELS)}, not {', '.join(sorted(unknown))}")
    chosen = levels or ("none", "medium", "high")
    card = field.run(carrier, flows, chosen, pcap, seed, lambda text: click.echo(text, err=True))
    if globals.json:
        show_json(cards.as_json(card))
    else:
        click.echo(f"{card.carrier}, {card.flows} sessions a level, {card.date}")
        click.echo(", ".join(f"{name} {version}" for name, version in card.tools.items()))
        show_rows(cards.rows(card), "Nothing was measured.")
        show_rows(cards.area_rows(card), "Nothing was measured.")
        click.echo("\n".join(card.faults) or "no judge tells it from the genuine protocol by its messages")
    if card.faults:
        raise SystemExit(1)
