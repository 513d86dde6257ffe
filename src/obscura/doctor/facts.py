"""What the doctor looked at, as values. Gathered by ``obscura.daemon.examination``, judged by ``obscura.doctor.findings``.

``None`` for a whole subject means that it was not looked at; a ``fault`` is one phrase that says why something did not work.
"""

from __future__ import annotations

import msgspec


class Clock(msgspec.Struct, frozen=True):
    """The own clock, beside what others think."""

    unix: int
    offsets_s: tuple[int, ...] = ()  # of peers, theirs minus ours, as their handshakes said
    consensus: tuple[int, int] | None = None  # unix seconds between which tor's consensus is valid


class Socks(msgspec.Struct, frozen=True):
    """A SOCKS port."""

    place: str
    is_tor: bool
    fault: str | None = None
    explains: bool | None = None  # whether its answers say why (tor's ExtendedErrors)


class Control(msgspec.Struct, frozen=True):
    """Tor's control port. ``managed``: the node runs that tor itself."""

    places: tuple[str, ...]
    managed: bool = False
    program: str | None = None  # what would be started, where nothing runs; None = it is not there
    fault: str | None = None
    version: str | None = None
    percent: int = 0
    doing: str = ""
    refuses_isolation: tuple[str, ...] = ()  # lines of its SocksPort that keep credentials from separating circuits


class Onion(msgspec.Struct, frozen=True):
    """The own onion service, dialled through an own circuit."""

    name: str | None = None
    is_published: bool = False
    fault: str | None = None  # of the service itself
    reach_fault: str | None = None
    reply: int | None = None  # what tor's SOCKS port answered
    reach_s: float = 0.0
    circuits: int | None = None  # that two pairs of credentials rode; None = the control port did not say


class Sam(msgspec.Struct, frozen=True):
    """The I2P router's bridge."""

    place: str
    fault: str | None = None
    version: str | None = None
    destination: str | None = None  # of the node; None while there is none
    session_fault: str | None = None
    serves: bool = True  # whether there is to be a destination of the node's own
    is_up: bool = False  # all its sessions stand


class Door(msgspec.Struct, frozen=True):
    """One listening address, and what a stranger got there."""

    address: str
    carrier: str
    fault: str | None = None  # nothing listens, or the port cannot be had
    is_privileged: bool = False  # why it cannot be had
    is_probed: bool = True  # False: no node runs, so the port was only tried
    answer: str | None = None  # what came: the first line of a web server's or ssh server's answer, or that nothing did
    is_cover: bool = True  # whether that is what the carrier promises
    certificate_days: int | None = None  # left


class External(msgspec.Struct, frozen=True):
    """An address that others are told, dialled through a Tor exit."""

    address: str
    fault: str | None = None


class Inbound(msgspec.Struct, frozen=True):
    """Inbound slots."""

    slots: int
    taken: int | None  # None: no node runs
    doors: int
    open_files: int = 1 << 20  # that the process may have
    uptime_s: float = 0.0
    networks: int = 1  # that have a share of the slots each


class Private(msgspec.Struct, frozen=True):
    """A file or directory that should be the owner's alone."""

    path: str
    mode: int
    is_own: bool
    is_directory: bool = False


class Disk(msgspec.Struct, frozen=True):
    """The data directory."""

    path: str
    exists: bool
    free_bytes: int = 0
    is_writable: bool = True
    is_read_only: bool = False  # the file system as a whole, as after a fault of the disk
    private: tuple[Private, ...] = ()
    owner: str = "$USER"  # whose it all is to be, as a shell takes it
    store_fault: str | None = None
    store_bytes: int = 0
    is_store_complete: bool = True  # False: the check of the store was cut short by its time
    prunes: bool = False


class Settings(msgspec.Struct, frozen=True):
    """The parts of the configuration that can be at odds with each other."""

    network: str
    only_net: tuple[str, ...] = ()
    uses_clearnet: bool = True
    has_service: bool = False
    clearnet_doors: tuple[str, ...] = ()
    external: tuple[str, ...] = ()
    untold: tuple[str, ...] = ()  # of these what no peer is told, and why
    connect: int = 0
    undialled: tuple[str, ...] = ()  # why some of these are never dialled, each with its address
    unreadable: tuple[str, ...] = ()  # keys with files and folders that this user cannot read
    max_outbound: int = 8
    unlisted: bool = False
    allows_plaintext: bool = False
    allows_unauthenticated: bool = False
    rate_factor: float = 1.0


class Facts(msgspec.Struct, frozen=True):
    """Everything that one examination found."""

    is_running: bool
    data_dir: str
    settings: Settings
    clock: Clock
    disk: Disk
    inbound: Inbound
    doors: tuple[Door, ...] = ()
    external: tuple[External, ...] = ()
    proxy: Socks | None = None
    socks: Socks | None = None
    control: Control | None = None
    onion: Onion | None = None
    sam: Sam | None = None
    start: str = "obscura run"  # what starts the node
    silent: int | None = None  # pid of a node that holds the directory and does not answer: it starts or ends
