"""What a caller may do, from looking to ruling. A larger one holds the smaller."""

from __future__ import annotations

from enum import IntEnum


class Scope(IntEnum):
    """``READ`` looks at the node; ``WRITE`` has it act in the network too; ``ADMIN`` is its owner."""

    READ = 1
    WRITE = 2
    ADMIN = 3

    @property
    def label(self) -> str:
        """As people write it."""
        return self.name.lower()

    @classmethod
    def of(cls, label: object) -> Scope:
        """The scope of a label. ``KeyError`` if there is none."""
        return {scope.label: scope for scope in cls}[label]  # type: ignore[index]


_READ = """
    rpc.methods rpc.discover events.subscribe events.unsubscribe status peers listeners addresses.own keys.show features
    seeds.show chain.info block.get mempool privacy.show addresses.list addresses.info addresses.buckets bans.list
"""
_WRITE = """
    connect disconnect ping seeds.ask block.submit tx.send tx.receipts tx.get mine bans.add bans.remove rotate
"""
_ADMIN = """
    keys.forget chain.verify chain.import config.reload dashboard.open doctor stop
"""

# What each method needs. Who asks for an own transaction by its id learns that it is one, so that this takes ``WRITE``;
# ``ADMIN`` reads files, drops keys, keeps the disk busy for long, or ends the node. A method without a row takes ``ADMIN``.
SCOPES: dict[str, Scope] = {
    **dict.fromkeys(_READ.split(), Scope.READ),
    **dict.fromkeys(_WRITE.split(), Scope.WRITE),
    **dict.fromkeys(_ADMIN.split(), Scope.ADMIN),
}
