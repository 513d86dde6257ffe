"""The public mempool and its announcements, as the stem phase sees them (``PublicPool``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf

from obscura.ledger.port import Fault, FaultKind, Ledger, Transaction
from obscura.node.dandelion import PublicPool
from obscura.node.effects import Effect, LinkId
from obscura.node.face import Face
from obscura.node.mempool import Verdict
from obscura.node.transactions import TransactionRelay


class RelayPool(PublicPool):
    """``TransactionRelay`` behind the port. The relay itself never hears of a transaction before ``publish``.

    ``answered``: when the newest message was sent to a peer that it has answered.
    """

    def __init__(
        self, relay: TransactionRelay, ledger: Ledger, answered: Callable[[LinkId], float] = lambda link: -inf
    ) -> None:
        self._relay = relay
        self._ledger = ledger
        self._answered = answered

    def decode(self, raw: bytes) -> Transaction:
        return self._ledger.decode_transaction(raw)

    def fault(self, transaction: Transaction, now: float) -> Fault | None:
        verdict = self._relay.mempool.judge(transaction)
        if verdict in (Verdict.ACCEPTED, Verdict.KNOWN):
            return None
        return Fault(FaultKind.INVALID if verdict.is_fault else FaultKind.EARLY, verdict.value)

    def has(self, id: bytes, face: Face | None = None) -> bool:
        if face is not None:
            return self._relay.is_public(id, face)
        return id in self._relay.mempool or self._relay.is_confirmed(id)

    def publish(
        self, transaction: Transaction, source: LinkId | None, face: Face | None, now: float
    ) -> Iterable[Effect]:
        return self._relay.admit(transaction, source, now, face=face)[1]

    def holders(self, id: bytes) -> int:
        return self._relay.holders(id)

    def announce_again(self, id: bytes, face: Face | None, now: float) -> None:
        self._relay.announce_again(id, face, now)

    def is_told(self, id: bytes) -> bool:
        return self._relay.is_confirmed(id) or self._relay.is_told(id, self._answered)
