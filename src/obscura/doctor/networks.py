"""What the facts about tor, I2P, proxies and told addresses mean. Pure functions, one per subject."""

from __future__ import annotations

from collections.abc import Iterable

from obscura.doctor.facts import Control, External, Onion, Sam, Socks
from obscura.doctor.finding import Finding, fine, note, wrong

_RESTART_TOR = "sudo systemctl restart tor"


def socks(facts: Socks, bond: Control | None) -> Iterable[Finding]:
    """Reachable, and separating by credentials."""
    name = "tor-socks" if facts.is_tor else "proxy"
    if facts.fault is not None:
        yield wrong(
            name,
            f"{facts.place}: {facts.fault}",
            "nothing can be dialled through it" + ("; nothing is dialled another way either" if facts.is_tor else ""),
            "sudo apt install tor; sudo systemctl enable --now tor@default"
            if facts.is_tor
            else "start the proxy, or set proxy",
        )
        return
    yield fine(name, f"{facts.place} takes connections" + (" with a user and a password each" if facts.is_tor else ""))
    if facts.explains is False and bond is not None and not bond.managed:
        port = facts.place.rpartition(":")[2]
        yield note(
            "tor-errors",
            "tor does not say why a dial fails",
            f"SocksPort {port} ExtendedErrors   in /etc/tor/torrc, then {_RESTART_TOR}",
        )


def control(facts: Control) -> Iterable[Finding]:
    """Authentication, bootstrap, isolation."""
    where = " or ".join(facts.places) or "the own tor"
    if facts.fault is not None:
        yield wrong(
            "tor-control", facts.fault, "without the control port there is no onion service", _control_cure(facts)
        )
        return
    if not facts.version:
        yield fine("tor-program", f"{facts.program} is there; the node will start it")
        return
    yield fine("tor-control", f"{where}: tor {facts.version} lets us in")
    if facts.percent < 100:
        yield wrong(
            "tor-bootstrap",
            f"tor is at {facts.percent} %: {facts.doing or 'connecting'}",
            "it has no circuits yet",
            "wait a minute; if it stays so: a firewall, or a network that blocks tor (bridges: docs/tor.md)",
        )
    else:
        yield fine("tor-bootstrap", "tor is connected to its network")
    for line in facts.refuses_isolation:
        yield wrong(
            "tor-isolation",
            f"SocksPort {line}",
            "links to different peers share circuits: their exits and services can tell that they are one node's",
            f"remove NoIsolateSOCKSAuth from that line of the torrc, then {_RESTART_TOR}",
        )


def _control_cure(facts: Control) -> str:
    fault = facts.fault or ""
    if facts.managed:
        return "sudo apt install tor" if facts.program is None else "read tor/tor.log below the data directory"
    if "no tor listens" in fault:
        return f"ControlPort 9051 and CookieAuthentication 1   in /etc/tor/torrc, then {_RESTART_TOR}"
    if "may not be" in fault:
        return "sudo adduser $USER debian-tor, then log in anew"
    if "password" in fault:
        return "obscura run --set tor-daemon.password=PASSWORD, or put it into the configuration file (mode 0600)"
    if "cookie" in fault:
        return f"{_RESTART_TOR}: it writes its cookie anew; tor-daemon.control must be that tor's port"
    return f"read what tor says: sudo journalctl -u tor@default -n 50; then {_RESTART_TOR}"


def onion(facts: Onion, is_running: bool) -> Iterable[Finding]:
    """Reachable from outside, through a circuit of our own; and two pairs of credentials on two circuits."""
    if facts.name is None:
        if is_running and facts.fault is not None:
            yield wrong(
                "onion", f"there is no onion service: {facts.fault}", "nobody reaches this node over Tor", "see above"
            )
        else:
            yield note("onion", "there is no onion service yet" if is_running else "not checked: no node runs")
        return
    if not facts.is_published:
        yield wrong(
            "onion",
            f"{facts.name} is not published" + (f": {facts.fault}" if facts.fault else " yet"),
            "nobody finds it",
            "wait a minute and look again: obscura doctor",
        )
        return
    if facts.reply in (0xF4, 0xF5):
        yield note("onion", f"{facts.name} is published and admits only those with a key, so not us")
    elif facts.reach_fault is not None:
        yield wrong(
            "onion",
            f"{facts.name} cannot be reached through the Tor network: {facts.reach_fault}",
            "peers fail as we do",
            f"look again in a minute; then {_RESTART_TOR}",
        )
    else:
        yield fine("onion", f"{facts.name} answers through the Tor network within {facts.reach_s:.1f} s")
    if facts.circuits is None:
        return
    if facts.circuits > 1:
        yield fine("tor-circuits", "two links ride two circuits, as the control port says")
    else:
        yield wrong(
            "tor-circuits",
            "two links with different credentials rode one circuit",
            "links to different peers share circuits: their exits and services can tell that they are one node's",
            f"remove NoIsolateSOCKSAuth from the torrc's SocksPort, then {_RESTART_TOR}",
        )


def sam(facts: Sam, is_running: bool) -> Iterable[Finding]:
    """The bridge answers, and there is a session."""
    if facts.fault is not None:
        yield wrong(
            "i2p-sam",
            f"{facts.place}: {facts.fault}",
            "nothing can be dialled or accepted over I2P",
            "sudo apt install i2pd; sudo systemctl enable --now i2pd   (SAM is on by default, port 7656)",
        )
        return
    yield fine("i2p-sam", f"{facts.place} speaks SAM {facts.version}")
    if not is_running:
        yield note("i2p-session", "not checked: no node runs")
    elif facts.session_fault is not None:
        yield wrong(
            "i2p-session", facts.session_fault, "nobody reaches this node over I2P", "sudo systemctl restart i2pd"
        )
    elif facts.is_up and not facts.serves:
        yield fine("i2p-session", "there are tunnels outwards, as wanted")
    elif facts.destination is None:
        yield note("i2p-session", "the tunnels are being built, which takes 20 s to some minutes")
    else:
        yield fine("i2p-session", f"{facts.destination} has its tunnels")


def external(facts: External) -> Finding:
    """What is told to others should be true."""
    if facts.fault is None:
        return fine("external-address", f"{facts.address} is reached through a Tor exit")
    return wrong(
        "external-address",
        f"{facts.address} is not reached through a Tor exit: {facts.fault}",
        "peers are told an address that may not work",
        "forward the port in your router or open it in the firewall; some exits refuse some ports, so try again",
    )
