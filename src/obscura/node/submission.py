"""The node's own transactions on their way out: policies, deadlines, receipts, and what outlives a restart (design 9)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from math import inf

from obscura.errors import DecodeError, UserError
from obscura.ledger.port import Transaction
from obscura.limits import (
    BROADCAST_POLL_S,
    BROADCAST_SEEN_PEERS,
    BROADCAST_SEEN_S,
    BROADCAST_WAIT_S,
    MAX_OWN_BROADCASTS,
    MAX_STEM_TX,
    MEMPOOL_KEEP_S,
)
from obscura.node.broadcast import NoOutbox, Outbox, Policy, Receipt, Stage, Submission
from obscura.node.core import Part
from obscura.node.dandelion import Dandelion, PublicPool
from obscura.node.effects import Effect
from obscura.node.face import Face
from obscura.node.peer import Peer
from obscura.node.timers import Timers

ANONYMOUS = (Face.ONION, Face.I2P)


class _Own:
    __slots__ = (
        "awaits_epoch",
        "deadline",
        "face",
        "is_diffused",
        "is_noted",
        "is_queued",
        "peers",
        "policy",
        "public_since",
        "since",
        "transaction",
    )

    def __init__(self, transaction: Transaction, policy: Policy, deadline: float, now: float) -> None:
        self.transaction = transaction
        self.policy = policy
        self.deadline = deadline  # for finding a successor; for becoming public where we may not diffuse
        self.since = now
        self.face: Face | None = None  # through which it left, and where it is public first
        self.is_queued = True  # no successor has it, or none of this epoch
        self.awaits_epoch = False  # those of this epoch have had it
        self.is_diffused = False  # by this node: until others have it, nobody else can bring it back
        self.is_noted = False  # that it is diffused, in the outbox
        self.public_since: float | None = None
        self.peers = 0


class OwnTransactions(Part):
    """Submits own transactions to the stem phase and tells of each step with a ``Receipt``."""

    def __init__(self, dandelion: Dandelion, pool: PublicPool, now: float, outbox: Outbox | None = None) -> None:
        self.dandelion = dandelion
        self._pool = pool
        self._outbox = outbox or NoOutbox()
        self._own: dict[bytes, _Own] = {}
        self._deadlines: Timers[bytes] = Timers()
        self._looks: Timers[bytes] = Timers()
        self._resumed: dict[bytes, float] = {}  # seconds from the first link on until the deadline
        dandelion.own_moved = self._moved
        dandelion.on_routes = self._on_routes
        self._resumptions: list[Effect] = []  # receipts of what goes on
        self._begin_at = now
        for submission in self._outbox.kept():
            self._resume(submission, now)

    # --- What the application asks ------------------------------------------------------------------------------------

    def submit(self, raw: bytes, policy: Policy, wait_s: float | None, now: float) -> tuple[bytes, list[Effect]]:
        """Begin; the id, and what follows at once. Raises ``UserError`` for what cannot be sent.

        Nothing more is done for what is on its way already.
        """
        transaction = self._checked(raw, now)
        id = transaction.id
        if id in self._own:
            return id, self._take_resumptions()  # whoever follows it may be sooner than the first turn
        if self._pool.has(id):
            return id, [Receipt(id, Stage.SEEN, final=True, peers=self._pool.holders(id), reason="is public already")]
        wait_s = policy.wait_s if wait_s is None else wait_s
        if not wait_s >= 0:  # not a number comes with another's deadline, or keeps that back
            raise UserError(f"a deadline of {wait_s:g} s: from 0 on")
        self._outbox.keep(Submission(id, raw, policy, wait_s))
        own = self._add(transaction, policy, wait_s, now)
        effects: list[Effect] = [Receipt(id, Stage.QUEUED)]
        if policy is Policy.DIRECT:
            effects += self._diffuse(own, Stage.DIFFUSED, now)
        elif not self.dandelion.terms.awaits_epoch:
            effects += self._stem(own, now)
        return id, effects

    def __contains__(self, id: bytes) -> bool:
        return id in self._own

    # --- Links, time and routes ----------------------------------------------------------------------------------------------

    def on_established(self, peer: Peer, now: float) -> Iterable[Effect]:
        """The first link of this run: from now on somebody would hear of what an earlier run left, and it can find a way."""
        for id, wait_s in self._resumed.items():
            if id in self._own and self._own[id].is_queued and self._own[id].public_since is None:
                self._deadlines.set(id, now + wait_s)
        self._resumed.clear()
        return ()

    def deadline(self) -> float:
        begin_at = self._begin_at if self._resumptions else inf
        return min(self._looks.deadline(), self._deadlines.deadline(), begin_at)

    def due(self, now: float) -> Iterable[Effect]:
        effects = self._take_resumptions()
        for id in self._deadlines.due(now):
            effects += self._too_late(self._own[id], now)
        for id in self._looks.due(now):
            effects += self._look(self._own[id], now)
        return effects

    def _on_routes(self, face: Face, is_new_epoch: bool, now: float) -> Iterable[Effect]:
        """What waits for an epoch leaves when one begins at the face that it takes: those of two faces must not go together."""
        effects: list[Effect] = []
        for own in [own for own in self._own.values() if own.is_queued and own.public_since is None]:
            waits = own.awaits_epoch or self.dandelion.terms.awaits_epoch
            if not waits or (is_new_epoch and self._face_for(own.policy) is face):
                effects += self._stem(own, now)
        return effects

    def _moved(self, id: bytes, face: Face | None, now: float) -> Iterable[Effect] | None:
        """Its embargo ended, or it came round: in a loop, or where a stem ends. None for what is not our own."""
        own = self._own.get(id)
        if own is None:
            return None
        if face is None:
            return (Receipt(id, Stage.RESTEMMED),)
        if own.policy.never_diffuses:
            own.awaits_epoch |= not own.is_queued  # if this epoch's successors had it, they would know whose it is
            own.is_queued = True
            return ()
        return self._diffuse(own, Stage.DIFFUSED, now, face)

    # --- Steps ----------------------------------------------------------------------------------------------------------

    def _stem(self, own: _Own, now: float) -> list[Effect]:
        face = self._face_for(own.policy)
        sent = self.dandelion.submit(own.transaction, face, now) if face is not None else None
        if sent is None or face is None:
            return []
        own.is_queued, own.face = False, face
        if not own.policy.never_diffuses:
            self._deadlines.clear(own.transaction.id)
        can_know = face is Face.CLEARNET and not self.dandelion.has_edge(face)
        return [*sent, Receipt(own.transaction.id, Stage.STEMMED, first_hop_can_know=can_know)]

    def _face_for(self, policy: Policy) -> Face | None:
        """Through which face it leaves: where nobody's transactions come in, an anonymity network hides us better.

        What comes in through Tor or I2P is relayed there, and hides nothing that leaves over clearnet.
        """
        prefers = self.dandelion.terms.prefers_anonymity or not self.dandelion.has_edge(Face.CLEARNET)
        order = (*ANONYMOUS, Face.CLEARNET) if prefers else (Face.CLEARNET, *ANONYMOUS)
        allowed = ANONYMOUS if policy is Policy.ANONYMITY_ONLY else order
        return next((face for face in allowed if self.dandelion.has_successor(face)), None)

    def _too_late(self, own: _Own, now: float) -> Iterable[Effect]:
        if self._pool.has(own.transaction.id):
            return self._look(own, now)
        if own.policy.never_diffuses:
            return self._end(own, Stage.EXPIRED, f"{self._obstacle(own.policy)} by its deadline")
        return self._diffuse(own, Stage.UNPROTECTED, now)

    def _obstacle(self, policy: Policy) -> str:
        if self._face_for(policy) is not None:
            return "not public"
        return "no successor over Tor or I2P" if policy is Policy.ANONYMITY_ONLY else "no successor"

    def _diffuse(self, own: _Own, stage: Stage, now: float, face: Face | None = None) -> list[Effect]:
        own.is_queued, own.is_diffused = False, True
        own.face = face or own.face
        id = own.transaction.id
        fault = self._pool.fault(own.transaction, now)
        if fault is not None and not self._pool.has(id):
            return self._end(own, Stage.EXPIRED, f"refused meanwhile: {fault.reason}")
        effects = list(self.dandelion.diffuse(own.transaction, own.face, now))
        self._made_public(own, now)
        self._note(own)
        return [*effects, Receipt(id, stage)]

    def _note(self, own: _Own) -> None:
        """It is public, whether or not the disk takes note of that now: else it does at one of the next looks."""
        with contextlib.suppress(UserError):
            id, raw = own.transaction.id, own.transaction.raw
            self._outbox.keep(Submission(id, raw, own.policy, 0.0, is_public=True, face=own.face))
            own.is_noted = True

    def _diffuse_again(self, own: _Own, now: float) -> list[Effect]:
        """An earlier run has diffused it, and perhaps nobody heard of it: the archive has it, or not even that."""
        if not self._pool.has(own.transaction.id):
            return self._diffuse(own, Stage.DIFFUSED, now)
        self._pool.announce_again(own.transaction.id, own.face, now)
        self._made_public(own, now)
        return []

    def _look(self, own: _Own, now: float) -> list[Effect]:
        id = own.transaction.id
        if own.is_diffused and own.public_since is None:
            return self._diffuse_again(own, now)
        if own.is_diffused and not own.is_noted:
            self._note(own)
        is_late = own.public_since is not None and now - own.public_since >= BROADCAST_SEEN_S
        if not self._pool.has(id):
            if is_late:
                return self._end(own, Stage.EXPIRED, "it waits no longer: too old, or a block spent what it spends")
            self._look_again(own, now)
            return []
        self._made_public(own, now)
        peers = self._pool.holders(id)
        is_over = peers >= BROADCAST_SEEN_PEERS or (is_late and self._pool.is_told(id))
        is_saved = own.public_since is not None and now - own.public_since >= 2 * MEMPOOL_KEEP_S
        if is_over or (is_saved and not own.is_diffused):  # until it is, a crash could lose it everywhere
            self._outbox.forget(id)
        if is_over:
            self._forget(id)
        else:
            self._look_again(own, now)
            if peers == own.peers:
                return []
        own.peers = peers
        return [Receipt(id, Stage.SEEN, final=is_over, peers=peers)]

    def _look_again(self, own: _Own, now: float) -> None:
        """Often while something is expected, seldom while an embargo runs or nobody is there to be told."""
        is_near = now - (own.since if own.public_since is None else own.public_since) < BROADCAST_SEEN_S
        self._looks.set(own.transaction.id, now + (BROADCAST_POLL_S if is_near else BROADCAST_SEEN_S / 4))

    def _made_public(self, own: _Own, now: float) -> None:
        if own.public_since is None:
            own.public_since = now
            self._deadlines.clear(own.transaction.id)
            self._look_again(own, now)

    def _end(self, own: _Own, stage: Stage, reason: str) -> list[Effect]:
        id = own.transaction.id
        self._outbox.forget(id)
        self._forget(id)
        return [Receipt(id, stage, final=True, reason=reason)]

    # --- Records ----------------------------------------------------------------------------------------------------------

    def _checked(self, raw: bytes, now: float) -> Transaction:
        try:
            transaction = self._pool.decode(raw)
        except DecodeError as error:
            raise UserError(f"this is not a transaction: {error}") from None
        if len(raw) > MAX_STEM_TX:
            raise UserError(f"the transaction has {len(raw)} bytes, and {MAX_STEM_TX} are relayed at most")
        fault = self._pool.fault(transaction, now)
        if fault is not None:
            raise UserError(f"the transaction is refused: {fault.reason}")
        if transaction.id not in self._own and len(self._own) >= MAX_OWN_BROADCASTS:
            raise UserError(f"{MAX_OWN_BROADCASTS} own transactions are on their way: wait for some of them")
        return transaction

    def _add(self, transaction: Transaction, policy: Policy, wait_s: float, now: float) -> _Own:
        terms = self.dandelion.terms
        if terms.awaits_epoch and policy is not Policy.DIRECT:
            wait_s += terms.epoch_s + terms.epoch_extra_s + BROADCAST_WAIT_S
        own = self._own[transaction.id] = _Own(transaction, policy, now + wait_s, now)
        self._deadlines.set(transaction.id, own.deadline)
        self._looks.set(transaction.id, now + BROADCAST_POLL_S)
        return own

    def _resume(self, submission: Submission, now: float) -> None:
        try:
            transaction = self._checked(submission.raw, now)
        except UserError as error:  # impossible by now
            self._resumptions.append(Receipt(submission.id, Stage.EXPIRED, final=True, reason=str(error)))
            self._outbox.forget(submission.id)
            return
        is_public = submission.is_public or submission.policy is Policy.DIRECT  # though the disk took no note of it
        if self._pool.has(submission.id) and not is_public:
            self._resumptions.append(Receipt(submission.id, Stage.SEEN, final=True, reason="is public already"))
            self._outbox.forget(submission.id)
            return
        own = self._add(transaction, submission.policy, submission.wait_s, now)
        if (
            not own.policy.never_diffuses
        ):  # a slow start, as by way of Tor, must not use up the time to find a successor
            self._resumed[submission.id] = own.deadline - now
            self._deadlines.clear(submission.id)
        if is_public:
            own.is_queued, own.is_diffused, own.is_noted = False, True, submission.is_public
            own.face = submission.face
            self._deadlines.clear(submission.id)
            self._looks.set(submission.id, now)
        stage = Stage.DIFFUSED if is_public and self._pool.has(submission.id) else Stage.QUEUED
        self._resumptions.append(Receipt(submission.id, stage))

    def _take_resumptions(self) -> list[Effect]:
        taken, self._resumptions = self._resumptions, []
        return taken

    def _forget(self, id: bytes) -> None:
        self.dandelion.forget(id)
        self._own.pop(id, None)
        self._deadlines.clear(id)
        self._looks.clear(id)
