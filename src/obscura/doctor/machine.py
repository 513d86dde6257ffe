"""What the facts about this machine and the node's own doors mean. Pure functions, one per subject."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from statistics import median

from obscura.doctor.facts import Clock, Disk, Door, Facts, Inbound, Private
from obscura.doctor.finding import Finding, count, fine, note, span, wrong
from obscura.limits import (
    CERTIFICATE_DAYS,
    CLOCK_EARLIEST_UNIX,
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


def node(facts: Facts) -> Iterable[Finding]:
    """Whether a node runs: without one less can be seen."""
    if facts.is_running:
        yield fine("node", f"a node runs on {facts.data_dir}")
    elif facts.silent is not None:
        yield note(
            "node",
            f"the node on {facts.data_dir} (pid {facts.silent}) starts or ends, and does not answer: "
            "its links, covers and services are not checked",
            "obscura doctor again, when it is up",
        )
    else:
        yield note(
            "node",
            f"no node runs on {facts.data_dir}: its links, covers and services are not checked",
            f"{facts.start}, and then obscura doctor again",
        )


def clock(facts: Clock) -> Iterable[Finding]:
    """Peers' clocks count only by their median, and are never used to set ours."""
    if facts.consensus is not None and not facts.consensus[0] - 3_600 <= facts.unix <= facts.consensus[1] + 86_400:
        early = facts.unix < facts.consensus[0]
        yield wrong(
            "clock",
            f"this machine's clock is {'before' if early else 'after'} the time in which tor's view of its network is valid",
            "tor builds no circuits, or peers take our epochs for replays",
            "timedatectl set-ntp true; date -u",
        )
        return
    if facts.unix < CLOCK_EARLIEST_UNIX:
        yield wrong(
            "clock",
            f"this machine's clock ({facts.unix} s since 1970) is before this program was written",
            "tor builds no circuits, new blocks are refused as of the future, plain links to known keys and signed seeds fail",
            "timedatectl set-ntp true; date -u",
        )
        return
    if not facts.offsets_s:
        if facts.consensus is not None:
            yield fine("clock", "tor's consensus is valid now")
        else:
            yield note(
                "clock", "no peer to compare the clock with", "obscura connect ADDRESS, and then obscura doctor again"
            )
        return
    middle = round(median(facts.offsets_s))
    odd = sum(abs(offset) > MAX_CLOCK_SKEW_S for offset in facts.offsets_s)
    peers = count(len(facts.offsets_s), "peer")
    if abs(middle) > MAX_CLOCK_SKEW_S:
        yield wrong(
            "clock",
            f"the clocks of {peers} are {span(abs(middle))} {'ahead of' if middle > 0 else 'behind'} this one (median)",
            "with a wrong clock plain links to known keys and signed seeds fail"
            + ("" if len(facts.offsets_s) > 1 else ", unless it is the one peer whose clock is wrong"),
            "timedatectl set-ntp true; date -u",
        )
    elif odd:
        yield note("clock", f"the clock agrees with the median of {peers}; {odd} differ by more than two hours")
    else:
        yield fine("clock", f"{peers}, median offset {span(abs(middle))}")


def door(facts: Door) -> Iterable[Finding]:
    """One listening address as a stranger sees it."""
    check = "listening"
    where = f"{facts.address} ({facts.carrier})"
    if facts.fault is not None and facts.is_privileged:
        yield wrong(
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
        yield wrong(check, f"{where}: {facts.fault}", "nobody gets in there", cure)
        return
    if not facts.is_probed:
        yield note(check, f"{where}: the port is free; what a stranger gets is not checked without a node")
        return
    if not facts.is_cover:
        yield wrong(
            check,
            f"{where}: a stranger gets {facts.answer}",
            "that is not what this carrier promises: something else answers there, or the cover is broken",
            f"ss -ltnp 'sport = :{facts.address.rpartition(':')[2]}'   shows who has the port",
        )
        return
    yield fine(check, f"{where}: a stranger gets {facts.answer}")
    if facts.certificate_days is not None and facts.certificate_days < CERTIFICATE_DAYS:
        yield wrong(
            check,
            f"{where}: its certificate "
            + ("has expired" if facts.certificate_days < 0 else f"ends in {facts.certificate_days} days"),
            "an expired one makes a site that browsers warn of, which is looked at",
            "renew the files of cover.certificate and cover.key (or delete the own ones below keys/), then start the node anew",
        )


def inbound(facts: Inbound) -> Iterable[Finding]:
    """Slots that let the right ones in."""
    check = "inbound"
    if not facts.doors:
        yield note(check, "the node accepts no links: it has no address to listen on")
        return
    if not facts.slots:
        yield wrong(
            check,
            "max-inbound is 0, and the node listens",
            "everybody who comes is sent away",
            "--set max-inbound=125, or --no-listen",
        )
        return
    networks = max(1, facts.networks)
    share = facts.slots // networks  # no network ever lends its own to another
    if share <= _PROTECTED:
        yield wrong(
            check,
            f"max-inbound is {facts.slots}" + (f", {share} for each of {networks} networks" if networks > 1 else ""),
            f"up to {_PROTECTED} links are protected from making room, so once full it stays with whoever came first"
            if share
            else "everybody who comes is sent away",
            f"--set max-inbound={networks * max(40, 2 * _PROTECTED)} or more",
        )
    needed = facts.slots + OPEN_FILES_BESIDE
    if facts.open_files < needed:
        yield wrong(
            check,
            f"{facts.open_files} open files are allowed, {needed} may be needed",
            "new links fail when they are used up",
            f"ulimit -n {max(4_096, needed)}   before the node is started",
        )
    if facts.taken is None:
        return
    if facts.taken >= facts.slots:
        yield note(check, f"all {facts.slots} slots are taken: newcomers replace others")
    else:
        yield fine(check, f"{facts.taken} of {facts.slots} slots are taken")


def disk(facts: Disk) -> Iterable[Finding]:
    """Room, permissions, and the store's own check."""
    if not facts.exists:
        yield note("disk", f"{facts.path} does not exist yet; the node makes it")
        return
    free = f"{facts.free_bytes / 1e9:.1f} GB free at {facts.path}"
    if facts.is_read_only:
        yield wrong(
            "disk",
            f"the file system of {facts.path} is read-only",
            "the node cannot start",
            "look for a fault of the disk (sudo dmesg), and mount it for writing; or choose another data-dir",
        )
    elif not facts.is_writable:
        yield wrong(
            "disk",
            f"{facts.path} cannot be written",
            "the node cannot start",
            f"sudo chown -R {facts.owner} {shlex.quote(facts.path)}",
        )
    elif facts.free_bytes < DISK_FREE_BYTES:
        yield wrong("disk", free, "the node stops when the disk is full", 'free some space, or set prune = "1 GB"')
    elif facts.free_bytes < DISK_LOW_BYTES and not facts.prunes:
        yield note("disk", free, 'prune = "1 GB"   in the configuration keeps the chain small')
    else:
        yield fine("disk", free)
    open_ones = [each for each in facts.private if each.mode & 0o077 or not each.is_own]
    yield from (_exposed(each, facts.owner) for each in open_ones)
    if facts.private and not open_ones:
        yield fine(
            "permissions",
            f"{count(len(facts.private), 'file and directory', 'files and directories')} of secrets: the owner's alone",
        )
    if facts.store_fault is not None:
        yield wrong(
            "store",
            facts.store_fault,
            "blocks and transactions may be missing or wrong",
            "obscura chain verify, twice; if damage stays: stop the node, move chain.sqlite* away, start it again",
        )
    elif facts.store_bytes:
        whole = "is sound" if facts.is_store_complete else "was sound as far as there was time to read"
        yield fine("store", f"{facts.store_bytes / 1e6:.1f} MB, its structure {whole}")


def _exposed(facts: Private, owner: str) -> Finding:
    if not facts.is_own:
        return wrong(
            "permissions",
            f"{facts.path} belongs to another user",
            "they may read and replace it",
            f"sudo chown {owner} {shlex.quote(facts.path)}",
        )
    mode = "700" if facts.is_directory else "600"
    return wrong(
        "permissions",
        f"{facts.path} has mode {facts.mode:o}",
        "other users of this machine may read or change it",
        f"chmod {mode} {shlex.quote(facts.path)}",
    )
