"""dandelion explain."""

from __future__ import annotations

import click

from obscura.cli.frame import Command, Globals, Group, Number, pass_globals
from obscura.cli.output import show_fields, show_json, show_rows


@click.group(cls=Group)
def dandelion() -> None:
    """Explain how own transactions are hidden."""


@dandelion.command(cls=Command)
@click.option("--fluff", type=Number(0, 1, min_open=True), help="As if q were this.")
@click.option("--hop-s", type=Number(0, 3_600, min_open=True), help="As if a hop took so many seconds.")
@pass_globals
def explain(globals: Globals, fluff: float | None, hop_s: float | None) -> None:
    """Show the parameters in force, where they come from, and what they cost.

    \b
    Example:
      obscura dandelion explain --fluff 0.2
    """
    from obscura.node.explain import explanation
    from obscura.shaping.levels import PrivacyLevel, explained

    loaded = globals.load()
    config = loaded.value
    rows = explained(
        PrivacyLevel(config.privacy),
        config.privacy_custom,
        constant_slots=config.constant_slots,
        origins=loaded.origins,
    )
    told = explanation(config.knobs, {row["knob"]: row["source"] for row in rows}, fluff, hop_s)
    if globals.json:
        show_json(told)
        return
    show_rows(told["parameters"], "")
    click.echo()
    show_fields(told["expected"])
    click.echo()
    show_rows(told["changing_q"], "")
    click.echo()
    show_rows(told["exposure"], "")
    for note in told["notes"]:
        click.echo(f"\n{note}")
