"""What a node answers about chain, mempool and mining. Long jobs answer in slices: their caller goes on asking."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from obscura.daemon.blockfile import blocks_in, file_size
from obscura.daemon.mining import mine as mine_blocks
from obscura.errors import DecodeError, UserError
from obscura.ledger.header import HEADER_BYTES, Header
from obscura.ledger.network import display_id
from obscura.ledger.port import ID_BYTES, Ledger
from obscura.limits import JOB_LOOK_S, JOB_SLICE_S
from obscura.node.broadcast import Policy
from obscura.store.faults import StoreCorrupt
from obscura.store.sqlite import Progress

if TYPE_CHECKING:
    from obscura.daemon.node import Node


def chain_methods(node: Node) -> dict[str, Callable[..., Any]]:
    """Method names and functions; their docstrings are the help that ``rpc.methods`` shows."""
    verifying: list[tuple[Iterator[Progress], list[str]]] = []  # what is being read, and the damaged blocks of it
    verifiers = asyncio.Lock()

    def chain_info() -> dict[str, Any]:
        """The chain and the store of this node."""
        chain, store = node.relay.chain, node.archive.store
        return {
            "network": node.network.name,
            **node.relay.status(),
            "best_header": display_id(chain.best),
            "work": hex(chain.work(node.relay.blocks.tip)),
            "block_bytes": store.body_bytes,
            "prune": node.config.prune,
            "store": str(store.path),
        }

    async def chain_verify(begin: bool = True) -> dict[str, Any]:
        """Read blocks again and check them, for some seconds; ``begin`` false goes on. ``done`` says when all were read.

        ``damaged`` has all that were found since the begin; peers are asked for them anew. Callers at the same time take turns at
        one verification.
        """
        async with verifiers:
            if begin or not verifying:
                verifying[:] = [(node.archive.store.verify(lambda block_id, raw: is_sound(node, block_id, raw)), [])]
            steps, damaged = verifying[0]
            looked, total = 0, 0
            end = node.now() + JOB_SLICE_S
            while node.now() < end:
                some = await asyncio.to_thread(lambda: list(islice(steps, 16)))
                if not some:
                    verifying.clear()
                    return {"blocks": looked, "total": total, "damaged": damaged, "done": True}
                looked, total = some[-1].done, some[-1].total
                found = [step.damaged for step in some if step.damaged is not None]
                damaged += map(display_id, found)
                for block_id in found:
                    node.relay.blocks.lose(block_id)
                if found:
                    node.apply(())  # a turn, which plans when peers are asked for them
            return {"blocks": looked, "total": total, "damaged": damaged, "done": False}

    async def chain_import(path: str, offset: Annotated[int, Meta(ge=0)] = 0) -> dict[str, Any]:
        """Take blocks of a file from ``offset`` on, for some seconds; ``offset`` of the answer is where to go on."""
        file = Path(path)
        total, new, known = file_size(file), 0, 0
        if offset > total:
            raise UserError(f"{path} has {total} bytes: {offset} is behind its end")
        start = looked = node.now()
        for behind, raw in blocks_in(file, offset):
            effects, fault = node.relay.submit_block(raw, node.now())
            node.apply(effects)
            if fault is not None:
                raise UserError(f"the block at byte {offset} of {path} is refused: {fault.reason}")
            offset, new, known = behind, new + bool(effects), known + (not effects)
            now = node.now()
            if now - start >= JOB_SLICE_S:
                break
            if now - looked >= JOB_LOOK_S:
                looked = now
                await node.archive.room()
        await node.archive.written(node.relay.blocks.newest_token)
        return {"offset": offset, "total": total, "new": new, "known": known, "done": offset >= total}

    async def block_get(block: str, raw: bool = False) -> dict[str, Any]:
        """A block by its hash or height; ``raw`` gives its bytes as hex instead of what is in it."""
        block_id = named_block(node, block)
        try:
            found = await node.archive.block(block_id)
        except StoreCorrupt:
            if not node.archive.store.is_damaged(block_id):
                raise
            node.relay.blocks.lose(block_id)
            node.apply(())
            raise UserError(f"the block {block} is damaged on the disk: peers are asked for it anew") from None
        if found is None:
            raise UserError(f"the block {block} is not here: its body was pruned or has not come yet")
        if raw:
            return {"id": display_id(block_id), "raw": found.hex()}
        return describe_block(node, block_id, found)

    async def block_submit(raw: str) -> dict[str, Any]:
        """Take a block (hex) as if a peer had sent it, and answer once it is on the disk."""
        block_id = await node.submit_block(from_hex(raw, "a block"))
        chain = node.relay.chain
        return {"id": display_id(block_id), "height": chain.height(block_id), "is_tip": chain.tip == block_id}

    def tx_send(raw: str, policy: str = Policy.PRIVATE.value, deadline_s: float | None = None) -> dict[str, Any]:
        """Send a transaction (hex): private, anonymity-only, strict or direct."""
        return {"id": display_id(node.broadcast(from_hex(raw, "a transaction"), policy, deadline_s).id)}

    async def tx_receipts(id: str, after: int = 0) -> list[dict[str, Any]]:
        """Steps of a transaction that this node sent, from number ``after`` on; waits some seconds for one."""
        receipts = await node.receipts.after(from_id(id), after, JOB_SLICE_S)
        return [receipt.describe() for receipt in receipts]

    def tx_get(id: str) -> dict[str, Any]:
        """A waiting transaction by its id."""
        entry = node.relay.transactions.mempool.get(from_id(id))
        if entry is None:
            raise UserError(f"no transaction {id} waits here")
        return {"id": id, "raw": entry.transaction.raw.hex(), "arrival": entry.arrival, "own": entry.own}

    def mempool(ids: bool = False) -> dict[str, Any]:
        """Transactions that wait for a block."""
        pool = node.relay.transactions.mempool
        found: dict[str, Any] = {"transactions": len(pool), "bytes": pool.bytes}
        return {**found, "ids": [display_id(entry.transaction.id) for entry in pool]} if ids else found

    async def mine(blocks: int = 1, fill: int = 0) -> dict[str, Any]:
        """Mine blocks on the tip, as many of them as some seconds allow; networks with easy work only."""
        if blocks < 1:
            raise UserError("blocks is at least 1")
        ids = [block_id async for block_id in mine_blocks(node, blocks, fill, node.now() + JOB_SLICE_S)]
        return {"ids": [display_id(block_id) for block_id in ids], "height": node.relay.blocks.tip_height}

    return {
        "chain.info": chain_info,
        "chain.verify": chain_verify,
        "chain.import": chain_import,
        "block.get": block_get,
        "block.submit": block_submit,
        "tx.send": tx_send,
        "tx.receipts": tx_receipts,
        "tx.get": tx_get,
        "mempool": mempool,
        "mine": mine,
    }


def from_hex(text: str, what: str) -> bytes:
    """Bytes of a hexadecimal text. Raises ``UserError``."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise UserError(f"{what} is to be given as hexadecimal digits") from None


def from_id(text: str) -> bytes:
    """An id as people write it, in the order of the wire. Raises ``UserError``."""
    raw = from_hex(text, "an id")
    if len(raw) != ID_BYTES:
        raise UserError(f"an id has {2 * ID_BYTES} hexadecimal digits, not {len(text)}")
    return raw[::-1]


def named_block(node: Node, text: str) -> bytes:
    """The id of a block by its hash, or its height below the tip. Raises ``UserError``."""
    if text.isascii() and text.isdecimal() and len(text) < 2 * ID_BYTES:
        try:
            return node.relay.blocks.at(int(text))
        except KeyError:
            raise UserError(f"there is no block {text}: the tip has height {node.relay.blocks.tip_height}") from None
    block_id = from_id(text)
    if block_id not in node.relay.chain:
        raise UserError(f"no block {text} is known")
    return block_id


def describe_block(node: Node, block_id: bytes, raw: bytes) -> dict[str, Any]:
    """A block, ready for JSON. Fields of the header only where the ledger is the built-in one."""
    chain, blocks, ledger = node.relay.chain, node.relay.blocks, node.network.ledger
    block = ledger.decode_block(raw)
    height = chain.height(block_id)
    on_chain = height <= blocks.tip_height and blocks.at(height) == block_id
    found: dict[str, Any] = {
        "id": display_id(block_id),
        "height": height,
        "confirmations": blocks.tip_height - height + 1 if on_chain else 0,
        "bytes": len(raw),
        "parent": display_id(ledger.parent_id(block.header)),
    }
    if ledger.header_bytes == HEADER_BYTES:
        header = Header.decode(block.header)
        found |= {
            "version": header.version,
            "merkle_root": display_id(header.merkle_root),
            "time": header.time,
            "bits": f"{header.bits:08x}",
            "nonce": header.nonce,
        }
    found["transactions"] = [{"id": display_id(t.id), "bytes": len(t.raw)} for t in block.transactions]
    return found


def is_sound(node: Node, block_id: bytes, raw: bytes) -> bool:
    """Whether a stored body is that block and keeps the rules at its place."""
    chain = node.relay.chain
    return block_id in chain and body_is_sound(node.network.ledger, block_id, raw, chain.height(block_id))


def body_is_sound(ledger: Ledger, block_id: bytes, raw: bytes, height: int) -> bool:
    """The same for whoever knows the height."""
    try:
        block = ledger.decode_block(raw)
    except DecodeError:
        return False
    return block.id == block_id and ledger.check_block(block, height) is None
