"""The contract of each RPC method: the type of what it gives, and one call of it as an example.

Without a row here a method is described by its annotations alone, and a test says so.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from obscura.daemon.chain_results import (
    BlockInfo,
    ChainInfo,
    Imported,
    Mined,
    Pool,
    ReceiptInfo,
    Sent,
    SubmittedBlock,
    Verified,
    WaitingTransaction,
)
from obscura.daemon.results import (
    AddressInfo,
    BanInfo,
    BookInfo,
    Buckets,
    FeatureInfo,
    Finding,
    KeyInfo,
    ListenerInfo,
    MethodInfo,
    OpenDashboard,
    PeerLink,
    Ping,
    PrivacyInfo,
    Reloaded,
    Rotated,
    SeedInfo,
    Status,
)

Object = dict[str, Any]


class Contract(NamedTuple):
    """``result`` is the type of what comes back; ``example`` are parameters of a call; ``fails`` = it is one that is refused."""

    result: Any
    example: Object = {}
    fails: bool = False


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
