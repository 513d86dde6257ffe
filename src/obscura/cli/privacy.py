"""privacy show."""

from __future__ import annotations

from typing import Any

import click

from obscura.cli.frame import Globals, Group, pass_globals
from obscura.cli.output import show_fields, show_json, show_rows


@click.group(cls=Group)
def privacy() -> None:
    """Show what hides the traffic, and why."""


@privacy.command()
@pass_globals
def show(globals: Globals) -> None:
    """Show every knob of the privacy level, its value and where that comes from.

    With a running node also what each link agreed to and what cover has cost; without one, what the configuration says.
    """
    from obscura.daemon.client import NoNode

    try:
        found: dict[str, Any] = globals.call("privacy.show")
    except NoNode:
        found = _configured(globals)
    if globals.json:
        show_json(found)
        return
    show_rows(found["knobs"], "No knobs.")
    click.echo()
    show_fields(
        {
            "level": _sourced(found, "privacy", found["level"]),
            "tcp-profile": _sourced(found, "tcp-profile", found["tcp_profile"]),
            "it cannot imitate": found["tcp_cannot_imitate"],
        }
    )
    if found.get("links"):
        click.echo()
        show_rows([_link(link) for link in found["links"]], "No links.")
    if found.get("cost"):
        click.echo()
        show_fields(found["cost"])


def _sourced(found: dict[str, Any], key: str, value: str) -> str:
    """The value, and where it is set if that is known: a running node does not keep the places."""
    source = found.get("sources", {}).get(key)
    return f"{value} ({source})" if source else value


def _configured(globals: Globals) -> dict[str, Any]:
    from obscura.shaping.levels import PrivacyLevel, explained
    from obscura.transport.profile import CANNOT_IMITATE

    loaded = globals.load()
    config = loaded.value
    knobs = explained(
        PrivacyLevel(config.privacy),
        config.privacy_custom,
        constant_slots=config.constant_slots,
        origins=loaded.origins,
    )
    return {
        "level": config.privacy,
        "knobs": knobs,
        "sources": {key: loaded.origins[key] for key in ("privacy", "tcp-profile")},
        "tcp_profile": config.tcp_profile,
        "tcp_cannot_imitate": list(CANNOT_IMITATE[config.tcp_profile]),
        "links": [],
        "cost": None,
    }


def _link(link: dict[str, Any]) -> dict[str, Any]:
    sends = link["sends"] or {}
    names = ("rule", "dummy_ms", "chaff_ms", "burst", "slot_ms", "most")
    return {"peer": link["peer"], **{name: sends.get(name) for name in names}, "conceded": link["conceded"]}
