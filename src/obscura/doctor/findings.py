"""What the facts mean: what was found, what is wrong with it, and what to type. Pure functions, one per subject."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from statistics import median

import msgspec

from obscura.doctor.facts import (
    Clock,
    Control,
    Disk,
    Door,
    External,
    Facts,
    Inbound,
    Onion,
    Private,
    Sam,
    Settings,
    Socks,
)
from obscura.limits import (
    CERTIFICATE_DAYS,
    DISK_FREE_BYTES,
    DISK_LOW_BYTES,
    MAX_CLOCK_SKEW_S,
    OPEN_FILES_BESIDE,
    PROTECTED_BLOCKS,
    PROTECTED_GROUPS,
    PROTECTED_PINGS,
    PROTECTED_TRANSACTIONS,
)

_PROTECTED = PROTECTED_BLOCKS + PROTECTED_GROUPS + PROTECTED_PINGS + PROTECTED_TRANSACTIONS
_RATE_FACTOR = 100.0  # from here on the limits of what a peer may send mean little
_RESTART_TOR = "sudo systemctl restart tor"


class State(StrEnum):
    """How a thing stands."""

    FINE = "fine"
    NOTE = "note"  # nothing is broken: not checked, or worth knowing
    WRONG = "wrong"


class Finding(msgspec.Struct, frozen=True):
    """One line of the report. ``wrong`` and ``do`` (what to type, or to change) are there where there is something to do."""

    check: str
    state: State
    found: str
    wrong: str | None = None
    do: str | None = None


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


def _fine(check: str, found: str) -> Finding:
    return Finding(check, State.FINE, found)


def _note(check: str, found: str, do: str | None = None) -> Finding:
    return Finding(check, State.NOTE, found, None, do)


def _wrong(check: str, found: str, wrong: str, do: str) -> Finding:
    return Finding(check, State.WRONG, found, wrong, do)


def node(facts: Facts) -> Iterable[Finding]:
    """Whether a node runs: without one less can be seen."""
    if facts.is_running:
        yield _fine("node", f"a node runs on {facts.data_dir}")
    else:
        yield _note(
            "node",
            f"no node runs on {facts.data_dir}: its links, covers and services are not checked",
            "obscura run, and then obscura doctor again",
        )


def clock(facts: Clock) -> Iterable[Finding]:
    """Peers' clocks count only by their median, and are never used to set ours."""
    if facts.consensus is not None and not facts.consensus[0] - 3_600 <= facts.unix <= facts.consensus[1] + 86_400:
        early = facts.unix < facts.consensus[0]
        yield _wrong(
            "clock",
            f"this machine's clock is {'before' if early else 'after'} the time in which tor's view of its network is valid",
            "tor builds no circuits, or peers take our epochs for replays",
            "timedatectl set-ntp true; date -u",
        )
        return
    if not facts.offsets_s:
        if facts.consensus is not None:
            yield _fine("clock", "tor's consensus is valid now")
        else:
            yield _note(
                "clock", "no peer to compare the clock with", "obscura connect ADDRESS, and then obscura doctor again"
            )
        return
    middle = round(median(facts.offsets_s))
    odd = sum(abs(offset) > MAX_CLOCK_SKEW_S for offset in facts.offsets_s)
    count = _count(len(facts.offsets_s), "peer")
    if abs(middle) > MAX_CLOCK_SKEW_S:
        yield _wrong(
            "clock",
            f"the clocks of {count} are {_span(abs(middle))} {'ahead of' if middle > 0 else 'behind'} this one (median)",
            "with a wrong clock plain links to known keys and signed seeds fail"
            + ("" if len(facts.offsets_s) > 1 else ", unless it is the one peer whose clock is wrong"),
            "timedatectl set-ntp true; date -u",
        )
    elif odd:
        yield _note("clock", f"the clock agrees with the median of {count}; {odd} differ by more than two hours")
    else:
        yield _fine("clock", f"{count}, median offset {_span(abs(middle))}")


def socks(facts: Socks, bond: Control | None) -> Iterable[Finding]:
    """Reachable, and separating by credentials."""
    name = "tor-socks" if facts.is_tor else "proxy"
    if facts.fault is not None:
        yield _wrong(
            name,
            f"{facts.place}: {facts.fault}",
            "nothing can be dialled through it" + ("; nothing is dialled another way either" if facts.is_tor else ""),
            "sudo apt install tor; sudo systemctl enable --now tor@default"
            if facts.is_tor
            else "start the proxy, or set proxy",
        )
        return
    yield _fine(name, f"{facts.place} takes connections" + (" with a user and a password each" if facts.is_tor else ""))
    if facts.explains is False and bond is not None and not bond.managed:
        port = facts.place.rpartition(":")[2]
        yield _note(
            "tor-errors",
            "tor does not say why a dial fails",
            f"SocksPort {port} ExtendedErrors   in /etc/tor/torrc, then {_RESTART_TOR}",
        )


def control(facts: Control) -> Iterable[Finding]:
    """Authentication, bootstrap, isolation."""
    where = " or ".join(facts.places) or "the own tor"
    if facts.fault is not None:
        yield _wrong(
            "tor-control", facts.fault, "without the control port there is no onion service", _control_cure(facts)
        )
        return
    if not facts.version:
        yield _fine("tor-program", f"{facts.program} is there; the node will start it")
        return
    yield _fine("tor-control", f"{where}: tor {facts.version} lets us in")
    if facts.percent < 100:
        yield _wrong(
            "tor-bootstrap",
            f"tor is at {facts.percent} %: {facts.doing or 'connecting'}",
            "it has no circuits yet",
            "wait a minute; if it stays so: a firewall, or a network that blocks tor (bridges: docs/tor.md)",
        )
    else:
        yield _fine("tor-bootstrap", "tor is connected to its network")
    for line in facts.refuses_isolation:
        yield _wrong(
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
            yield _wrong(
                "onion", f"there is no onion service: {facts.fault}", "nobody reaches this node over Tor", "see above"
            )
        else:
            yield _note("onion", "there is no onion service yet" if is_running else "not checked: no node runs")
        return
    if not facts.is_published:
        yield _wrong(
            "onion",
            f"{facts.name} is not published" + (f": {facts.fault}" if facts.fault else " yet"),
            "nobody finds it",
            "wait a minute and look again: obscura doctor",
        )
        return
    if facts.reply in (0xF4, 0xF5):
        yield _note("onion", f"{facts.name} is published and admits only those with a key, so not us")
    elif facts.reach_fault is not None:
        yield _wrong(
            "onion",
            f"{facts.name} cannot be reached through the Tor network: {facts.reach_fault}",
            "peers fail as we do",
            f"look again in a minute; then {_RESTART_TOR}",
        )
    else:
        yield _fine("onion", f"{facts.name} answers through the Tor network within {facts.reach_s:.1f} s")
    if facts.circuits is None:
        return
    if facts.circuits > 1:
        yield _fine("tor-circuits", "two links ride two circuits, as the control port says")
    else:
        yield _wrong(
            "tor-circuits",
            "two links with different credentials rode one circuit",
            "links to different peers share circuits: their exits and services can tell that they are one node's",
            f"remove NoIsolateSOCKSAuth from the torrc's SocksPort, then {_RESTART_TOR}",
        )


def sam(facts: Sam, is_running: bool) -> Iterable[Finding]:
    """The bridge answers, and there is a session."""
    if facts.fault is not None:
        yield _wrong(
            "i2p-sam",
            f"{facts.place}: {facts.fault}",
            "nothing can be dialled or accepted over I2P",
            "sudo apt install i2pd; sudo systemctl enable --now i2pd   (SAM is on by default, port 7656)",
        )
        return
    yield _fine("i2p-sam", f"{facts.place} speaks SAM {facts.version}")
    if not is_running:
        yield _note("i2p-session", "not checked: no node runs")
    elif facts.session_fault is not None:
        yield _wrong(
            "i2p-session", facts.session_fault, "nobody reaches this node over I2P", "sudo systemctl restart i2pd"
        )
    elif facts.destination is None:
        yield _note("i2p-session", "the tunnels are being built, which takes 20 s to some minutes")
    else:
        yield _fine("i2p-session", f"{facts.destination} has its tunnels")


def door(facts: Door) -> Iterable[Finding]:
    """One listening address as a stranger sees it."""
    check = "listening"
    where = f"{facts.address} ({facts.carrier})"
    if facts.fault is not None and facts.is_privileged:
        yield _wrong(
            check,
            f"{where}: {facts.fault}",
            "ports under 1024 are root's, or those with the right to them",
            "sudo setcap cap_net_bind_service=+ep $(readlink -f .venv/bin/python), or choose a port above 1023",
        )
        return
    if facts.fault is not None:
        port = facts.address.rpartition(":")[2]
        cure = (
            "stop and start the node"
            if facts.is_probed
            else f"ss -ltnp 'sport = :{port}'   shows who has it; or choose another port"
        )
        yield _wrong(check, f"{where}: {facts.fault}", "nobody gets in there", cure)
        return
    if not facts.is_probed:
        yield _note(check, f"{where}: the port is free; what a stranger gets is not checked without a node")
        return
    if not facts.is_cover:
        yield _wrong(
            check,
            f"{where}: a stranger gets {facts.answer}",
            "that is not what this carrier promises: something else answers there, or the cover is broken",
            f"ss -ltnp 'sport = :{facts.address.rpartition(':')[2]}'   shows who has the port",
        )
        return
    yield _fine(check, f"{where}: a stranger gets {facts.answer}")
    if facts.certificate_days is not None and facts.certificate_days < CERTIFICATE_DAYS:
        yield _wrong(
            check,
            f"{where}: its certificate "
            + ("has expired" if facts.certificate_days < 0 else f"ends in {facts.certificate_days} days"),
            "an expired one makes a site that browsers warn of, which is looked at",
            "renew the files of cover.certificate and cover.key (or delete the own ones below keys/), then start the node anew",
        )


def external(facts: External) -> Finding:
    """What is told to others should be true."""
    if facts.fault is None:
        return _fine("external-address", f"{facts.address} is reached through a Tor exit")
    return _wrong(
        "external-address",
        f"{facts.address} is not reached through a Tor exit: {facts.fault}",
        "peers are told an address that may not work",
        "forward the port in your router or open it in the firewall; some exits refuse some ports, so try again",
    )


def inbound(facts: Inbound) -> Iterable[Finding]:
    """Slots that let the right ones in."""
    check = "inbound"
    if not facts.doors:
        yield _note(check, "the node accepts no links: it has no address to listen on")
        return
    if not facts.slots:
        yield _wrong(
            check,
            "max-inbound is 0, and the node listens",
            "everybody who comes is sent away",
            "--set max-inbound=125, or --no-listen",
        )
        return
    if facts.slots <= _PROTECTED:
        yield _wrong(
            check,
            f"max-inbound is {facts.slots}",
            f"up to {_PROTECTED} links are protected from making room, so once full it stays with whoever came first",
            f"--set max-inbound={max(40, 2 * _PROTECTED)} or more",
        )
    needed = facts.slots + OPEN_FILES_BESIDE
    if facts.open_files < needed:
        yield _wrong(
            check,
            f"{facts.open_files} open files are allowed, {needed} may be needed",
            "new links fail when they are used up",
            f"ulimit -n {max(4_096, needed)}   before the node is started",
        )
    if facts.taken is None:
        return
    if facts.taken >= facts.slots:
        yield _note(check, f"all {facts.slots} slots are taken: newcomers replace others")
    else:
        yield _fine(check, f"{facts.taken} of {facts.slots} slots are taken")


def disk(facts: Disk) -> Iterable[Finding]:
    """Room, permissions, and the store's own check."""
    if not facts.exists:
        yield _note("disk", f"{facts.path} does not exist yet; the node makes it")
        return
    free = f"{facts.free_bytes / 1e9:.1f} GB free at {facts.path}"
    if not facts.is_writable:
        yield _wrong(
            "disk", f"{facts.path} cannot be written", "the node cannot start", f"sudo chown -R $USER {facts.path}"
        )
    elif facts.free_bytes < DISK_FREE_BYTES:
        yield _wrong("disk", free, "the node stops when the disk is full", 'free some space, or set prune = "1 GB"')
    elif facts.free_bytes < DISK_LOW_BYTES and not facts.prunes:
        yield _note("disk", free, 'prune = "1 GB"   in the configuration keeps the chain small')
    else:
        yield _fine("disk", free)
    open_ones = [each for each in facts.private if each.mode & 0o077 or not each.is_own]
    yield from map(_exposed, open_ones)
    if facts.private and not open_ones:
        yield _fine(
            "permissions",
            f"{_count(len(facts.private), 'file and directory', 'files and directories')} of keys: the owner's alone",
        )
    if facts.store_fault is not None:
        yield _wrong(
            "store",
            facts.store_fault,
            "blocks and transactions may be missing or wrong",
            "obscura chain verify; if it finds damage: stop the node, move chain.sqlite* away, start it again (blocks come anew)",
        )
    elif facts.store_bytes:
        whole = "is sound" if facts.is_store_complete else "was sound as far as there was time to read"
        yield _fine("store", f"{facts.store_bytes / 1e6:.1f} MB, its structure {whole}")


def _exposed(facts: Private) -> Finding:
    if not facts.is_own:
        return _wrong(
            "permissions",
            f"{facts.path} belongs to another user",
            "they may read and replace it",
            f"sudo chown $USER {facts.path}",
        )
    mode = "700" if facts.is_directory else "600"
    return _wrong(
        "permissions",
        f"{facts.path} has mode {facts.mode:o}",
        "other users of this machine may read or change it",
        f"chmod {mode} {facts.path}",
    )


def settings(facts: Settings) -> Iterable[Finding]:
    """Keys that are allowed side by side, and at odds nevertheless."""
    found = [_wrong("configuration", *said) for said in _contradictions(facts)]
    found += [_note("configuration", *told) for told in _remarks(facts)]
    if not any(finding.state is State.WRONG for finding in found):
        yield _fine("configuration", f"network {facts.network}; nothing in it contradicts itself")
    yield from found


def exposed_file(path: str, mode: int) -> Finding | None:
    """A configuration file that holds a password or keys."""
    if not mode & 0o077:
        return None
    found = f"{path} has mode {mode:o} and holds a password or keys"
    return _wrong("configuration", found, "other users of this machine may read them", f"chmod 600 {path}")


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
    if facts.rate_factor >= _RATE_FACTOR:
        yield (f"rate-factor = {facts.rate_factor:g}", "a flood is neither slowed nor cut", "--set rate-factor=1")
    if not facts.max_outbound and not facts.connect and not facts.clearnet_doors and not facts.has_service:
        yield ("max-outbound = 0, no connect, no listener", "this node will never have a peer", "remove max-outbound")


def _remarks(facts: Settings) -> Iterable[tuple[str, str | None]]:
    if not facts.max_outbound and not facts.connect:
        yield "max-outbound = 0 and no connect: the node dials nobody by itself", None
    if facts.uses_tor and facts.uses_clearnet and facts.has_service:
        yield (
            "the node has a clearnet and an onion face: whoever watches both has a chance to link them",
            "--only-net tor   gives it one face (docs/threat-model.md)",
        )
    if facts.allows_unauthenticated:
        yield "allow-unauthenticated: links to clearnet addresses without a key can be intercepted", None
    if facts.network == "main":
        yield "no public network main exists yet", "--network dev, or a network of your own: obscura network init"


def _count(number: int, one: str, more: str | None = None) -> str:
    return f"{number} {one if number == 1 else more or one + 's'}"


def _span(seconds: int) -> str:
    return (
        f"{seconds} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7_200
        else f"{seconds / 3_600:.1f} h"
    )
