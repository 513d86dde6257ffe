"""What the RPC's methods give, as types: the objects of the OpenRPC document.

They hold the fields named here, and a later version may add some: a client ignores what it does not know. A test holds every
method's answer against them, and that no answer has a field without a name here.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict


class MethodInfo(TypedDict):
    """A method as `rpc.methods` lists it."""

    name: str
    signature: str
    scope: Literal["read", "write", "admin"]
    doc: str


class PeerCount(TypedDict):
    """Established links."""

    inbound: int
    outbound: int


class TorInfo(TypedDict):
    """The bond with tor; `fault` says what is wrong, `onion` is the own service."""

    connected: bool
    fault: str | None
    socks: str | None
    bootstrapped_percent: int
    bootstrap: str
    pid: int | None
    onion: str | None
    published: bool


class SessionInfo(TypedDict):
    """A session with the I2P router, and since when it is so."""

    state: str
    for_s: float


class I2pInfo(TypedDict):
    """The bond with the I2P router; a session that is not wanted is null."""

    connected: bool
    fault: str | None
    sam: str
    sam_version: str | None
    destination: str | None
    published: bool
    inbound: SessionInfo | None
    outbound: SessionInfo | None
    destinations_dialled: int
    destinations_linked: int


class WaysInfo(TypedDict):
    """Which networks are used, and how; null: not used."""

    networks: list[str]
    clearnet: str
    proxy: str | None
    tor: TorInfo | None
    i2p: I2pInfo | None


class CaptureInfo(TypedDict):
    """A file of all that peers send is being made; `ended` says why no longer."""

    file: str
    bytes: int
    ended: str | None


class Status(TypedDict):
    """How the node is doing."""

    version: str
    network: str
    network_id: str
    privacy: str
    uptime_s: float
    addresses: list[str]
    ways: WaysInfo
    capture: CaptureInfo | None
    peers: PeerCount
    height: int
    tip: str
    headers: int
    blocks_in_flight: int
    mempool_transactions: int
    mempool_bytes: int
    known_addresses: int
    wire_bytes_received: int
    wire_bytes_sent: int
    real_bytes_sent: int
    padding_bytes_sent: int
    dummy_bytes_sent: int


class HeldBytes(TypedDict):
    """Memory that a link takes now."""

    send_queue: int
    incomplete_message: int
    over_their_rate: int


class PeerLink(TypedDict):
    """One established link; `best_block_height` is what the peer said, a decimal text; `last_..._s` once it was useful."""

    peer: int
    address: str
    inbound: bool
    manual: bool
    face: str
    carrier: str
    pattern: str
    session_id: str
    key_proved: bool
    features: list[str]
    protocol_version: int
    user_agent: str
    best_block_height: str
    connected_s: float
    wire_bytes_sent: int
    real_bytes_sent: int
    padding_bytes_sent: int
    dummy_bytes_sent: int
    wire_bytes_received: int
    dummies_sent: int
    dummies_received: int
    queued_bytes: int
    purpose: str
    held_bytes: HeldBytes
    messages_served_late: int
    ping_ms: float | None
    best_ping_ms: float | None
    points: float
    malformed: int
    addresses_taken: int
    rotations: int
    rotated_s: float | None
    rotates_in_s: float | None
    best_header_height: int | None
    blocks_in_flight: int
    last_block_s: NotRequired[float]
    last_transaction_s: NotRequired[float]


ListenerInfo = TypedDict(
    "ListenerInfo",
    {
        "address": str,
        "stranger": str,
        "listen": NotRequired[str],
        "site": NotRequired[str],
        "pages": NotRequired[int],
        "cookie": NotRequired[str],
        "protected": NotRequired[list[str]],
        "realm": NotRequired[str],
        "certificate": NotRequired[str],
        "zone": NotRequired[str],
        "names": NotRequired[list[str]],
        "serial": NotRequired[int],
        "tsig": NotRequired[str],
        "host-keys": NotRequired[dict[str, str]],
        "lacks": NotRequired[str],
    },
)
ListenerInfo.__doc__ = (
    "One listening address, and what a stranger sees there; what depends on the carrier need not be there."
)


class Ping(TypedDict):
    """A round trip in milliseconds."""

    rtt_ms: float


class KeyInfo(TypedDict):
    """Keys of an own address (`carrier`, `key`), or what is known of a peer's."""

    address: str
    carrier: NotRequired[str]
    key: NotRequired[str]
    verified: NotRequired[str | None]
    candidates: NotRequired[list[str]]


FeatureInfo = TypedDict(
    "FeatureInfo",
    {"name": str, "word": Literal["features", "privacy"], "bit": str, "class": str, "offered": bool, "meaning": str},
)
FeatureInfo.__doc__ = "One feature."


class ProviderInfo(TypedDict):
    """Whom the node can ask for seeds; `rests_s`: not asked for so long."""

    provider: str
    operator: str
    host: str
    addresses: list[str]
    asked: int
    outcome: str | None
    rests_s: float


class SeedAnswer(TypedDict):
    """An answer that is kept."""

    provider: str
    name: str
    kind: str
    records: int
    kept_s: float


class FoundSeed(TypedDict):
    """An address that the last round brought, and whether a signed list had it."""

    address: str
    signed: bool


class SeedInfo(TypedDict):
    """How the first peers are found; `sequences` are of signed lists, by name."""

    enabled: bool
    usable_addresses: int
    wanted_addresses: int
    names: list[str]
    signed: bool
    built_in: int
    asking: str | None
    found: list[FoundSeed]
    next_look_s: float | None
    sequences: dict[str, int]
    providers: list[ProviderInfo]
    answers: list[SeedAnswer]


class KnobInfo(TypedDict):
    """A knob of the privacy level; its value is a number, a text, a truth, a list of these, or null."""

    knob: str
    value: Any
    source: str
    meaning: str


class Terms(TypedDict):
    """What shapes one direction of a link; pairs are a least and a most. `most`: cover in bytes per second."""

    rule: str
    record_size: list[int]
    dummy_ms: list[int]
    chaff_ms: list[int]
    burst: list[int]
    slot_size: int | None
    slot_ms: list[int]
    most: int | None


class LinkTerms(TypedDict):
    """What shapes a link; `conceded`: where the peer asked for less than this node would."""

    peer: int
    sends: Terms | None
    receives: Terms | None
    conceded: list[str]


class Cost(TypedDict):
    """Bytes sent since the start, by what they were."""

    wire_bytes_sent: int
    real_bytes_sent: int
    padding_bytes_sent: int
    dummy_bytes_sent: int


class PrivacyInfo(TypedDict):
    """What hides the traffic, and what it cost."""

    level: str
    knobs: list[KnobInfo]
    mean_hold_s: float
    tcp_profile: str
    tcp_cannot_imitate: list[str]
    links: list[LinkTerms]
    cost: Cost


class AddressInfo(TypedDict):
    """One entry of the address book."""

    address: str
    carrier: str
    table: Literal["new", "tried"]
    face: str
    key: str | None
    verified_key: str | None
    candidates: list[str]
    seen_s: int
    last_attempt_s: int | None
    last_success_s: int | None
    failures: int
    feelers_only: bool


class BookInfo(TypedDict):
    """The address book."""

    new: int
    tried: int
    verified_keys: int
    anchors: list[str]
    discouraged_hosts: int
    grouped_by: Literal["asmap", "prefix"]


class Buckets(TypedDict):
    """Taken cells by bucket."""

    cells: int
    new: list[int]
    tried: list[int]


class BanInfo(TypedDict):
    """A ban; `ends_s` null is for ever."""

    subject: str
    ends_s: int | None


class Finding(TypedDict):
    """One finding of the doctor."""

    check: str
    state: str
    found: str
    wrong: str | None
    do: str | None


class OpenDashboard(TypedDict):
    """How to get into the dashboard."""

    url: str
    code: str
    code_s: float


class Reloaded(TypedDict):
    """What a new reading of the configuration changed, by key."""

    changed: list[str]
    needs_restart: list[str]


class Rotated(TypedDict):
    """How the move of one link went: where it is now, or `why` it is not."""

    peer: int
    outcome: Literal["asked", "rotated", "failed", "under way"]
    why: NotRequired[str]
    address: NotRequired[str]
    carrier: NotRequired[str]
    rotations: NotRequired[int]
    session_id: NotRequired[str]
