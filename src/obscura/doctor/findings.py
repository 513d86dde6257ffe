"""What the facts mean: what was found, what is wrong with it, and what to type."""

from __future__ import annotations

from collections.abc import Iterable

from obscura.doctor.configuration import settings
from obscura.doctor.facts import Facts
from obscura.doctor.finding import Finding, State
from obscura.doctor.machine import clock, disk, door, inbound, node
from obscura.doctor.networks import control, external, onion, sam, socks


def judge(facts: Facts) -> list[Finding]:
    """All findings, in the order in which a person would look."""
    found = list(node(facts))
    found += settings(facts.settings)
    found += clock(facts.clock)
    found += disk(facts.disk)
    found += [finding for each in facts.doors for finding in door(each)]
    found += inbound(facts.inbound)
    found += [external(each) for each in facts.external]
    if facts.proxy is not None:
        found += socks(facts.proxy, None)
    if facts.socks is not None:
        found += socks(facts.socks, facts.control)
    if facts.control is not None:
        found += control(facts.control)
    if facts.onion is not None:
        found += onion(facts.onion, facts.is_running)
    if facts.sam is not None:
        found += sam(facts.sam, facts.is_running)
    return found


def is_wrong(found: Iterable[Finding]) -> bool:
    """Whether anything has to be done."""
    return any(finding.state is State.WRONG for finding in found)
