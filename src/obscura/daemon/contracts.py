"""What each RPC method gives, and one call of it as an example: the part of its contract that its signature does not say.

Objects hold the fields named here, and may hold more: a client ignores what it does not know. Without a row here a method is
described by its annotations alone, and a test says so.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypedDict

Object = dict[str, Any]


class Contract(NamedTuple):
    """``result`` is the type of what comes back; ``example`` are parameters of a call; ``fails`` = it is one that is refused."""

    result: Any
    example: Object = {}
    fails: bool = False


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
    ways: Object
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


class PeerLink(TypedDict):
    """One established link; `best_block_height` is a decimal text."""

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
    queued_bytes: int
    purpose: str
    ping_ms: float | None
    best_ping_ms: float | None
    points: float


class ListenerInfo(TypedDict):
    """One listening address."""

    address: str
    stranger: str


class Ping(TypedDict):
    """A round trip in milliseconds."""

    rtt_ms: float


class KeyInfo(TypedDict):
    """Keys of an address."""

    address: str


class FeatureInfo(TypedDict):
    """One feature."""

    name: str
    word: str
    bit: str
    offered: bool
    meaning: str


class SeedInfo(TypedDict):
    """How the first peers are found."""

    enabled: bool
    usable_addresses: int
    wanted_addresses: int
    providers: list[Object]


class ChainInfo(TypedDict):
    """The chain and its store."""

    network: str
    height: int
    tip: str
    headers: int
    best_header: str
    work: str
    block_bytes: int
    prune: str | None
    store: str


class Verified(TypedDict):
    """How far a check has come."""

    blocks: int
    total: int
    damaged: list[str]
    done: bool


class Imported(TypedDict):
    """How far an import has come."""

    offset: int
    total: int
    new: int
    known: int
    done: bool


class _BlockId(TypedDict):
    id: str


class BlockInfo(_BlockId, total=False):
    """A block, or its bytes."""

    height: int
    confirmations: int
    bytes: int
    parent: str
    transactions: list[Object]
    raw: str


class SubmittedBlock(TypedDict):
    """What became of a block."""

    id: str
    height: int
    is_tip: bool


class Sent(TypedDict):
    """What was sent."""

    id: str


class ReceiptInfo(TypedDict):
    """One step of an own transaction."""

    id: str
    stage: str
    final: bool


class WaitingTransaction(TypedDict):
    """A transaction of the mempool."""

    id: str
    raw: str
    arrival: float
    own: bool


class _Pool(TypedDict):
    transactions: int
    bytes: int


class Pool(_Pool, total=False):
    """The mempool; `ids` where they were asked for."""

    ids: list[str]


class Mined(TypedDict):
    """New blocks."""

    ids: list[str]
    height: int


class PrivacyInfo(TypedDict):
    """What hides the traffic, and what it cost."""

    level: str
    knobs: list[Object]
    mean_hold_s: float
    tcp_profile: str
    tcp_cannot_imitate: list[str]
    links: list[Object]
    cost: dict[str, int]


class AddressInfo(TypedDict):
    """One entry of the address book."""

    address: str
    carrier: str
    table: Literal["new", "tried"]
    face: str
    key: str | None
    seen_s: int
    failures: int


class BookInfo(TypedDict):
    """The address book."""

    new: int
    tried: int
    verified_keys: int
    anchors: list[str]
    discouraged_hosts: int


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
    """How the move of one link went."""

    peer: int
    outcome: str


ID = "00" * 32
RAW = "0100000000000000"

CONTRACTS: dict[str, Contract] = {
    "rpc.methods": Contract(list[MethodInfo]),
    "rpc.discover": Contract(Object),
    "events.subscribe": Contract(bool, {"kinds": ["tip"]}, fails=True),  # where the connection does not stay open
    "events.unsubscribe": Contract(bool),
    "status": Contract(Status),
    "peers": Contract(list[PeerLink]),
    "listeners": Contract(list[ListenerInfo]),
    "connect": Contract(PeerLink, {"address": "obscura://127.0.0.1:1"}, fails=True),
    "disconnect": Contract(bool, {"peer": 1_000}, fails=True),
    "ping": Contract(Ping, {"peer": 1}),
    "addresses.own": Contract(list[str]),
    "keys.show": Contract(list[KeyInfo]),
    "keys.forget": Contract(bool, {"address": "obscura://127.0.0.1:1"}, fails=True),
    "features": Contract(list[FeatureInfo]),
    "seeds.show": Contract(SeedInfo),
    "seeds.ask": Contract(SeedInfo),
    "chain.info": Contract(ChainInfo),
    "chain.verify": Contract(Verified),
    "chain.import": Contract(Imported, {"path": "/nonexistent/blk00000.dat"}, fails=True),
    "block.get": Contract(BlockInfo, {"block": "1"}),
    "block.submit": Contract(SubmittedBlock, {"raw": RAW}, fails=True),
    "tx.send": Contract(Sent, {"raw": RAW, "policy": "private"}, fails=True),
    "tx.receipts": Contract(list[ReceiptInfo], {"id": ID}, fails=True),
    "tx.get": Contract(WaitingTransaction, {"id": ID}, fails=True),
    "mempool": Contract(Pool, {"ids": True}),
    "mine": Contract(Mined, {"blocks": 1}),
    "privacy.show": Contract(PrivacyInfo),
    "addresses.list": Contract(list[AddressInfo], {"table": "tried", "limit": 10}),
    "addresses.info": Contract(BookInfo),
    "addresses.buckets": Contract(Buckets),
    "bans.add": Contract(BanInfo, {"subject": "203.0.113.0/24", "for_s": 3_600.0}),
    "bans.list": Contract(list[BanInfo]),
    "bans.remove": Contract(bool, {"subject": "203.0.113.0/24"}),
    "doctor": Contract(list[Finding]),
    "dashboard.open": Contract(OpenDashboard, fails=True),  # where none is served
    "config.reload": Contract(Reloaded, fails=True),  # where a program made the configuration itself
    "rotate": Contract(list[Rotated], {"peer": 1_000}, fails=True),
    "stop": Contract(bool),
}

PARAMETERS: dict[str, str] = {
    "address": "an obscura:// address, or HOST:PORT where the key is known or not needed",
    "after": "number of steps that are known already",
    "begin": "false goes on where the last call stopped",
    "block": "hash of the block (64 hexadecimal digits), or its height",
    "blocks": "how many",
    "contains": "a text that the address holds",
    "deadline_s": "seconds to wait for what the policy asks for; unset is its own time",
    "face": "clearnet, onion or i2p; unset is every face",
    "fill": "bytes of random transactions in each block",
    "for_s": "seconds that it lasts; unset is for ever",
    "id": "id of the transaction, 64 hexadecimal digits",
    "ids": "whether to list the ids too",
    "kinds": "which events; unset is all",
    "limit": "at most so many",
    "offset": "byte of the file to go on from",
    "path": "a file on the node's machine",
    "peer": "number of the peer as `peers` has it",
    "policy": "private, anonymity-only, strict or direct",
    "raw": "the bytes, as hexadecimal digits",
    "block.get.raw": "give the block's bytes as hexadecimal digits instead of what is in it",
    "to": "an address of the same peer",
    "carrier": "name of a carrier",
    "subject": "an IP address, a network such as 203.0.113.0/24, or AS64500",
    "table": "new or tried; unset is both",
}
