"""The looking of `obscura doctor`: gathers facts of a node that runs, or of what a node would meet; others judge them.

It fails closed: it connects to own listening addresses, the control socket of tor and the SOCKS ports of the configuration, and
to nothing else. Whatever is looked at beyond this machine is looked at through tor.
"""

from __future__ import annotations

import asyncio
import calendar
import contextlib
import os
import pwd
import random
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from obscura.daemon.config import Config, value_at
from obscura.daemon.datadir import DataDir, other_owner
from obscura.daemon.layers import leaves
from obscura.daemon.listening import listen_address
from obscura.daemon.nonode import START
from obscura.daemon.strangers import try_port, visit
from obscura.doctor import facts
from obscura.errors import AddressError, UserError
from obscura.ledger.networks import load_network
from obscura.limits import PROBE_S, STORE_CHECK_S, TOR_CONNECT_S
from obscura.node.dialable import check_dialable, face_of
from obscura.node.dialling import may_learn
from obscura.node.face import Face
from obscura.store.check import check_structure
from obscura.transport import socks5
from obscura.transport.sam import Sam, SamFault
from obscura.transport.socks5 import Credentials, SocksFault
from obscura.transport.tor import TorControl, TorFault
from obscura.transport.tor_words import endpoint_of
from obscura.wire.address import Address, Endpoint

if TYPE_CHECKING:
    from obscura.daemon.node import Node

_USUAL_SOCKS = Endpoint.of("127.0.0.1", 9050)
_TOR = "tor"  # below the data directory: what an own tor needs
_NO_ONION = "doctor.onion"  # no valid name: tor says so at once, and asks nobody
_INVALID = 0xF6


async def examine(
    config: Config, node: Node | None = None, *, rng: random.Random | None = None, start: str = START
) -> facts.Facts:
    """Look at everything that can be looked at, for about ``TOR_CONNECT_S`` at most.

    ``node``: the one of this process. ``start``: the command that starts it, where there is none.
    """
    chance = rng or random.SystemRandom()
    folder = DataDir(config.data_dir, config.network_name)
    doors, disk, anonymity, external, sam = await asyncio.gather(
        _doors(config, node),
        asyncio.to_thread(_disk, folder, config),
        _tor(config, node, chance),
        _external(config, node, chance),
        _sam(config, node),
    )
    peers = [] if node is None else node.peers()
    offsets = tuple(peer.negotiated.clock_offset_s for peer in peers)
    proxy = config.plan.proxy
    return facts.Facts(
        is_running=node is not None,
        silent=folder.locked_by() if node is None else None,
        start=start,
        data_dir=str(folder.path),
        settings=_settings(config),
        clock=facts.Clock(int(time.time()), offsets, anonymity.consensus),
        disk=disk,
        inbound=facts.Inbound(
            slots=config.max_inbound,
            taken=None if node is None else sum(peer.is_inbound for peer in peers),
            doors=len(doors) + (anonymity.onion is not None) + (sam is not None and config.i2p_router.service),
            open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            uptime_s=0.0 if node is None else node.uptime_s,
            networks=len(config.plan.faces),
        ),
        doors=doors,
        external=external,
        proxy=None if proxy is None else await _greet(proxy),
        socks=anonymity.socks,
        control=anonymity.control,
        onion=anonymity.onion,
        sam=sam,
    )


# --- This machine -------------------------------------------------------------------------------------------------------


async def _doors(config: Config, node: Node | None) -> tuple[facts.Door, ...]:
    if node is not None:
        own = [address for address in node.addresses if face_of(address) is Face.CLEARNET]
        return tuple(await asyncio.gather(*map(visit, own)))
    return tuple(try_port(place) for place in _would_listen(config) if place.port)


def _would_listen(config: Config) -> list[Address]:
    """Where a node of this configuration accepts clearnet links."""
    usual = () if Face.CLEARNET not in config.plan.faces else (f"127.0.0.1:{load_network(config.network).port}",)
    return [listen_address(text) for text in (usual if config.listen is None else config.listen)]


def _disk(folder: DataDir, config: Config) -> facts.Disk:
    path = folder.path
    if not path.is_dir():
        return facts.Disk(str(path), exists=False)
    owner = other_owner(path)  # of a service, where root asks: the files are the service's own, and to stay so
    uid = os.geteuid() if owner is None else owner[0]
    private = [seen for each in (path, *_secrets(folder)) if (seen := _private(each, uid)) is not None]
    checked = check_structure(path, STORE_CHECK_S)
    return facts.Disk(
        str(path),
        exists=True,
        free_bytes=shutil.disk_usage(path).free,
        is_writable=os.access(path, os.W_OK),
        is_read_only=bool(os.statvfs(path).f_flag & os.ST_RDONLY),
        private=tuple(private),
        owner="$USER" if owner is None else _user_name(uid),
        store_fault=checked.fault if checked else None,
        store_bytes=checked.size if checked else 0,
        is_store_complete=checked is None or checked.is_complete,
        prunes=config.prune is not None,
    )


def _secrets(folder: DataDir) -> list[Path]:
    """Everything in the directory but what is no secret: a file that is new here is looked at before anybody thinks of it.

    Keys, the cookie and the tokens of RPC, the outbox (own transactions), whom the node knows and dialled.
    """
    found: list[Path] = []
    for at, folders, files in os.walk(folder.path):
        found += [Path(at, name) for name in sorted(folders)]
        if not Path(at).is_relative_to(folder.path / _TOR):  # what tor keeps there is in folders that it closes
            found += [Path(at, name) for name in sorted(files) if not _is_public(name)]
    return found


def _is_public(name: str) -> bool:
    """What strangers are shown, and what says nothing. The chain's file tells which transactions are own ones."""
    return name.endswith((".crt", ".pub")) or name in ("version", ".lock", "chain.lock")


def _private(path: Path, uid: int) -> facts.Private | None:
    try:
        found = path.stat()
    except OSError:  # gone meanwhile, as files are that are written anew
        return None
    return facts.Private(str(path), found.st_mode & 0o777, found.st_uid == uid, path.is_dir())


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # as a container's is outside of it
        return str(uid)


def _settings(config: Config) -> facts.Settings:
    plan, tor = config.plan, config.tor_daemon
    return facts.Settings(
        network=config.network_name,
        only_net=config.only_net,
        uses_clearnet=Face.CLEARNET in plan.faces,
        has_service=(Face.ONION in plan.faces and tor.service)
        or (Face.I2P in plan.faces and config.i2p_router.service),
        clearnet_doors=tuple(str(place).removeprefix("obscura://") for place in _would_listen(config)),
        external=config.external_address,
        untold=tuple(_untold(config)),
        connect=len(config.connect),
        undialled=tuple(_undialled(config)),
        unreadable=tuple(_unreadable(config)),
        max_outbound=config.max_outbound,
        unlisted=config.unlisted,
        allows_plaintext=config.allow_plaintext,
        allows_unauthenticated=config.allow_unauthenticated,
        rate_factor=config.rate_factor,
    )


def _undialled(config: Config) -> Iterator[str]:
    """Addresses of ``connect`` that a node of this configuration refuses to dial, which it says to nobody."""
    for text in config.connect:
        place = Address.parse(text)
        try:
            check_dialable(place, face_of(place), config.plan.ways)
        except AddressError as refused:
            yield str(refused)


def _untold(config: Config) -> Iterator[str]:
    """Addresses of ``external-address`` that peers would not take, so that they are told of none; the node does not say so."""
    for text in config.external_address:
        place = Address.parse(text)
        if place.endpoint is None:
            yield f"{text} is a host name, and peers are told IP addresses, onion and I2P names alone"
        elif not may_learn(place.endpoint, place.carrier, loopback=config.network_name == "dev"):
            wanted = "a public address, a carrier that is not plain, and a port of no other service"
            yield f"peers do not take {text}: it wants {wanted}"


def _unreadable(config: Config) -> Iterator[str]:
    """Files and folders that a node of this configuration would read. It makes ``data-dir`` and ``capture`` itself."""
    for key, _ in leaves(Config):
        value = value_at(config, key)
        for path in value if isinstance(value, tuple) else (value,):
            if isinstance(path, Path) and key not in (("data-dir",), ("capture",)) and not os.access(path, os.R_OK):
                yield f"{'.'.join(key)} = {path}"


# --- Tor ----------------------------------------------------------------------------------------------------------------


class _Bond(NamedTuple):
    """What was learnt of tor."""

    control: facts.Control | None = None
    socks: facts.Socks | None = None
    onion: facts.Onion | None = None
    consensus: tuple[int, int] | None = None


async def _tor(config: Config, node: Node | None, rng: random.Random) -> _Bond:
    if not config.plan.uses_tor:
        return _Bond()
    settings, is_managed = config.tor_daemon, config.tor == "managed"
    own = node.routes.tor if node is not None else None
    if own is None and is_managed:
        program = shutil.which(settings.program)
        fault = None if program else f"there is no program {settings.program!r}"
        return _Bond(facts.Control((), managed=True, program=program, fault=fault))
    places = own.control_places() if own is not None else settings.control_places()
    shown = own.show() if own is not None else {}
    socks = endpoint_of(shown.get("socks") or "") or settings.socks_place()
    texts = tuple(str(place) for place in places)
    async with contextlib.AsyncExitStack() as open_ones:
        bond = None
        said = facts.Control(
            texts, is_managed, settings.program, fault=shown.get("fault") or "tor's control port is not known"
        )
        consensus, faults = None, list[str]()
        for place in places:
            if isinstance(place, Path) and len(places) > 1 and not place.exists():
                continue
            try:
                bond = await open_ones.enter_async_context(TorControl.open(place, password=settings.password))
                said, consensus, listening = await _ask_control(bond, (str(place),), is_managed)
                socks = socks or listening
                break
            except TorFault as fault:
                faults.append(str(fault))
        if bond is None and faults:
            said = facts.Control(texts, is_managed, settings.program, fault=faults[0])
        socks = socks or (None if is_managed else _USUAL_SOCKS)
        if socks is None:
            return _Bond(said, facts.Socks("the own tor's SOCKS port", is_tor=True, fault="it is not known yet"))
        seen = await _try_socks(socks, rng)
        onion = None
        if Face.ONION in config.plan.faces and settings.service:
            onion = await _onion(node, socks if seen.fault is None else None, bond, rng)
    return _Bond(said, seen, onion, consensus)


async def _ask_control(
    bond: TorControl, places: tuple[str, ...], is_managed: bool
) -> tuple[facts.Control, tuple[int, int] | None, Endpoint | None]:
    percent, doing = await bond.bootstrapped()
    values: list[str] = []
    with contextlib.suppress(TorFault):
        values = [line.partition("=")[2] for line in (await bond.ask("GETCONF SocksPort")).lines]
    found = facts.Control(
        places,
        is_managed,
        version=(await _told(bond, "version") or "of unknown version").partition(" (")[0],
        percent=percent,
        doing=doing,
        refuses_isolation=tuple(value for value in values if "NoIsolateSOCKSAuth" in value),
    )
    since, until = [await _told(bond, f"consensus/{key}") for key in ("valid-after", "valid-until")]
    listening = await bond.socks()
    return found, _valid(since, until), listening[0] if listening else None


async def _told(bond: TorControl, key: str) -> str | None:
    """What this tor says, if it knows the question."""
    try:
        return await bond.get(key)
    except TorFault:
        return None


def _valid(since: str | None, until: str | None) -> tuple[int, int] | None:
    try:
        first, last = (calendar.timegm(time.strptime(text or "", "%Y-%m-%d %H:%M:%S")) for text in (since, until))
    except ValueError:
        return None
    return first, last


async def _try_socks(place: Endpoint, rng: random.Random) -> facts.Socks:
    """Ask for a name that is none: the answer comes from tor itself and shows what it takes and how it answers."""
    try:
        sock = await socks5.connect(place, _NO_ONION, 1, Credentials.fresh(rng), timeout_s=PROBE_S)
    except SocksFault as fault:
        if fault.reply is None:
            return facts.Socks(str(place), is_tor=True, fault=str(fault))
        return facts.Socks(str(place), is_tor=True, explains=fault.reply == _INVALID)
    sock.close()
    return facts.Socks(str(place), is_tor=True, fault="it connects to anything: it is not tor")


async def _greet(place: Endpoint) -> facts.Socks:
    """A proxy that is not tor is not given a name to look up."""
    fault = await socks5.greet(place, timeout_s=PROBE_S)
    return facts.Socks(str(place), is_tor=False, fault=fault)


async def _onion(node: Node | None, socks: Endpoint | None, bond: TorControl | None, rng: random.Random) -> facts.Onion:
    if node is None or node.routes.tor is None:
        return facts.Onion()
    shown = node.routes.tor.show()
    own = [address for address in node.addresses if face_of(address) is Face.ONION]
    if shown["onion"] is None or not own:
        return facts.Onion(fault=shown["fault"])
    seen = facts.Onion(shown["onion"], shown["published"], shown["fault"])
    if not seen.is_published or socks is None:
        return seen
    began = time.monotonic()
    with contextlib.ExitStack() as open_ones:
        try:
            for _ in range(2):
                pair = Credentials.fresh(rng)
                sock = await socks5.connect(socks, own[0].host, own[0].port, pair, timeout_s=TOR_CONNECT_S / 2)
                open_ones.enter_context(sock)
                took = time.monotonic() - began if seen.circuits is None and not seen.reach_s else seen.reach_s
                seen = facts.Onion(seen.name, True, None, reach_s=took)
        except SocksFault as fault:
            return facts.Onion(seen.name, True, None, reach_fault=str(fault), reply=fault.reply)
        return facts.Onion(seen.name, True, None, reach_s=seen.reach_s, circuits=await _circuits(bond, own[0]))


async def _circuits(bond: TorControl | None, own: Address) -> int | None:
    if bond is None:
        return None
    try:
        ridden = await bond.circuits_by_target()
    except TorFault:
        return None
    return len(ridden.get(f"{own.host}:{own.port}", ())) or None


async def _sam(config: Config, node: Node | None) -> facts.Sam | None:
    """Whether the I2P router's bridge answers, and how the node's sessions stand."""
    if not config.plan.uses_i2p:
        return None
    settings = config.i2p_router
    bridge = Sam(settings.place())
    try:
        await bridge.greet()
    except SamFault as fault:
        return facts.Sam(settings.sam, fault=str(fault))
    shown = node.routes.i2p.show() if node is not None and node.routes.i2p is not None else {}
    lengths = f"{settings.inbound_length} hops in, {settings.outbound_length} out"
    stands = shown.get("connected") and shown.get("destination")
    return facts.Sam(
        settings.sam,
        version=bridge.version,
        destination=f"{shown['destination']} ({lengths})" if stands else None,
        session_fault=shown.get("fault"),
        serves=settings.service,
        is_up=bool(shown.get("connected")),
    )


async def _external(config: Config, node: Node | None, rng: random.Random) -> tuple[facts.External, ...]:
    """Clearnet addresses that are told, dialled through a Tor exit where tor is used; never directly."""
    tor = node.routes.tor if node is not None else None
    if tor is None or Face.CLEARNET not in config.plan.faces:
        return ()
    found = []
    for text in config.external_address:
        with contextlib.suppress(AddressError):
            place = Address.parse(text)
            if face_of(place) is not Face.CLEARNET:
                continue
            fault = None
            try:
                (await tor.open(place.host, place.port)).close()
            except (OSError, UserError) as error:
                fault = str(error)
            found.append(facts.External(text, fault))
    return tuple(found)
