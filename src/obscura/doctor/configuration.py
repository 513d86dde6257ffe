"""Keys that are allowed side by side, and at odds nevertheless."""

from __future__ import annotations

from collections.abc import Iterable

from obscura.doctor.facts import Settings
from obscura.doctor.finding import Finding, State, fine, note, wrong

_RATE_FACTOR = 100.0  # from here on the limits of what a peer may send mean little


def settings(facts: Settings) -> Iterable[Finding]:
    """Keys that are allowed side by side, and at odds nevertheless."""
    found = [wrong("configuration", *said) for said in _contradictions(facts)]
    found += [note("configuration", *told) for told in _remarks(facts)]
    if not any(finding.state is State.WRONG for finding in found):
        yield fine("configuration", f"network {facts.network}; nothing in it contradicts itself")
    yield from found


def exposed_file(path: str, mode: int) -> Finding | None:
    """A configuration file that holds a password or keys."""
    if not mode & 0o077:
        return None
    found = f"{path} has mode {mode:o} and holds a password or keys"
    return wrong("configuration", found, "other users of this machine may read them", f"chmod 600 {path}")


def _contradictions(facts: Settings) -> Iterable[tuple[str, str, str]]:
    if not facts.uses_clearnet and facts.clearnet_doors:
        yield (
            f"only-net = {list(facts.only_net)}, and listen = {', '.join(facts.clearnet_doors)}",
            "a door for clearnet links on a node that has no clearnet: whoever gets there can tell that both are one node",
            "--no-listen, or listen = []",
        )
    if facts.unlisted and facts.external:
        yield ("unlisted and external-address", "an address that is told to nobody is not told", "remove one of them")
    if facts.allows_plaintext and facts.network != "dev":
        yield ("allow-plaintext on a real network", "links without encryption are accepted", "remove allow-plaintext")
    for why in facts.undialled:
        yield (
            f"connect: {why}",
            "no link to it is ever made",
            "mend it in the configuration, then obscura config reload",
        )
    for why in facts.untold:
        yield (
            f"external-address: {why}",
            "it is told to nobody, so nobody comes by it",
            'write it as "203.0.113.5:8443?carrier=tls", and start the node again',
        )
    for what in facts.unreadable:
        yield (f"{what} is not there, or may not be read", "no node that needs it starts", "mend the path, or its mode")
    if facts.rate_factor >= _RATE_FACTOR:
        yield (f"rate-factor = {facts.rate_factor:g}", "a flood is neither slowed nor cut", "--set rate-factor=1")
    if not facts.max_outbound and not facts.connect and not facts.clearnet_doors and not facts.has_service:
        yield ("max-outbound = 0, no connect, no listener", "this node will never have a peer", "remove max-outbound")


def _remarks(facts: Settings) -> Iterable[tuple[str, str | None]]:
    if not facts.max_outbound and not facts.connect:
        yield "max-outbound = 0 and no connect: the node dials nobody by itself", None
    if facts.uses_clearnet and facts.has_service:
        yield (
            "the node has a clearnet face and one on an anonymity network: whoever watches both has a chance to link them",
            "--only-net tor, or i2p, gives it one face (docs/threat-model.md)",
        )
    if facts.allows_unauthenticated:
        yield "allow-unauthenticated: links to clearnet addresses without a key can be intercepted", None
    if facts.network == "main":
        yield "no public network main exists yet", "--network dev, or a network of your own: obscura network init"
