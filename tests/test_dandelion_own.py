"""Own transactions: policies, receipts, deadlines, restart."""

from __future__ import annotations

from math import nan

import pytest

from obscura.errors import UserError
from obscura.node.broadcast import Policy, Stage, Submission
from obscura.node.peer import Face
from obscura.node.stem import StemTerms
from obscura.wire.messages.blocks import Inv, InventoryItem, InventoryKind
from obscura.wire.messages.transactions import GetData, StemTx, Tx
from stem_bench import FOREVER, Bench, raw


class MemoryOutbox:
    """As the file, without it."""

    def __init__(self) -> None:
        self.submissions: dict[bytes, Submission] = {}

    def keep(self, submission: Submission) -> None:
        self.submissions[submission.id] = submission

    def forget(self, id: bytes) -> None:
        self.submissions.pop(id, None)

    def kept(self) -> list[Submission]:
        return list(self.submissions.values())


def bench(q: float = 0.2, outbound: int = 2, inbound: int = 2, **knobs: object) -> Bench:
    terms = {"q": q, "epoch_s": FOREVER, **knobs}
    made = Bench(StemTerms(**terms), 1, MemoryOutbox())  # type: ignore[arg-type]
    for link in range(1, outbound + 1):
        made.join(link)
    for link in range(101, 101 + inbound):
        made.join(link, inbound=True)
    return made


def stages(made: Bench) -> list[str]:
    return [receipt.stage.value for receipt in made.receipts]


def come_back(made: Bench, number: int, links: list[int]) -> None:
    for index, link in enumerate(links):
        made.receive(link, Inv((InventoryItem(1, raw(number)[:32]),)))
        if not index:
            made.receive(link, Tx(raw(number)))


def test_a_private_one_is_relayed_and_seen_back() -> None:
    made = bench(outbound=3)
    made.fetches = False  # nobody has it from us
    made.submit(1, Policy.PRIVATE)
    assert stages(made) == ["queued", "stemmed"]
    assert not made.receipts[-1].first_hop_can_know
    made.run(1)
    come_back(made, 1, [3, 101, 102])
    made.run(5)
    assert (made.receipts[-1].stage, made.receipts[-1].peers, made.receipts[-1].final) == (Stage.SEEN, 3, True)
    assert raw(1)[:32] not in made.own
    made.run(FOREVER / 1e4)
    assert not made.published


def test_own_ones_are_relayed_whatever_the_coins_say_and_on_one_edge() -> None:
    made = bench(q=1.0)
    for number in range(20):
        made.submit(number, Policy.PRIVATE)
    assert len({link for link, message in made.sent if isinstance(message, StemTx)}) == 1
    assert not made.published


def test_swallowed_it_is_sent_to_the_other_successor_and_then_diffused() -> None:
    made = bench()
    made.submit(1, Policy.PRIVATE)
    made.run(10_000)
    assert stages(made)[:4] == ["queued", "stemmed", "re-stemmed", "diffused"]
    assert sorted(made.stemmed(1)) == [1, 2]
    assert made.receipts[-1].final


@pytest.mark.parametrize(
    ("policy", "last"),
    [(Policy.PRIVATE, "unprotected"), (Policy.STRICT, "expired"), (Policy.ANONYMITY_ONLY, "expired")],
)
def test_without_a_successor_it_waits_and_then_its_policy_decides(policy: Policy, last: str) -> None:
    made = bench(outbound=0)
    made.submit(1, policy, 20)
    made.run(19)
    assert stages(made) == ["queued"]
    made.run(2)
    assert stages(made)[1] == last
    assert bool(made.published) == (policy is Policy.PRIVATE)
    made.join(7)
    made.run(100)
    assert not made.own._outbox.kept()


@pytest.mark.parametrize("policy", [Policy.PRIVATE, Policy.DIRECT])
def test_a_full_disk_does_not_keep_it_from_going_out(policy: Policy) -> None:
    """Nor end the node: the outbox hears of it once there is room again."""
    made = bench(outbound=0, inbound=0)
    outbox = made.own._outbox
    assert isinstance(outbox, MemoryOutbox)
    keep = outbox.keep

    def full(submission: Submission) -> None:
        if submission.is_public:
            raise UserError("outbox cannot be written: No space left on device")
        keep(submission)

    outbox.keep = full  # type: ignore[method-assign]
    id = made.submit(1, policy, 20)
    made.run(30)
    assert made.published == [id]
    assert [kept.is_public for kept in outbox.kept()] == [False]
    outbox.keep = keep  # type: ignore[method-assign]
    made.run(30)
    assert [kept.is_public for kept in outbox.kept()] == [True]


def test_a_successor_in_time_saves_it() -> None:
    made = bench(outbound=0)
    made.submit(1, Policy.PRIVATE, 20)
    made.run(10)
    made.join(7)
    assert stages(made) == ["queued", "stemmed"]
    made.run(15)
    assert "unprotected" not in stages(made)


def test_anonymity_only_never_takes_clearnet() -> None:
    made = bench()
    made.submit(1, Policy.ANONYMITY_ONLY, 20)
    assert not made.stemmed(1)
    made.join(50, face=Face.ONION)
    assert made.stemmed(1) == [50]


def test_strict_is_never_diffused_by_this_node_but_tried_again_each_epoch() -> None:
    made = bench(epoch_s=2000.0, epoch_extra_s=0.0)
    made.submit(1, Policy.STRICT, 20_000)
    made.run(19_000)
    assert not made.published
    assert len(made.stemmed(1)) > 2
    made.run(2_000)
    assert stages(made)[-1] == "expired"
    assert not made.published


def test_strict_is_not_diffused_either_where_it_came_round_before_it_left_again() -> None:
    """After a restart it waits for a successor, and what was sent before the restart is still under way."""
    made = bench(outbound=0)
    made.submit(1, Policy.STRICT)
    for _ in range(2):
        made.receive(101, StemTx(raw(1)))
    assert not made.published
    made.join(1)
    assert made.stemmed(1) == [1]


def test_once_public_nothing_of_it_is_left_in_the_stem_phase() -> None:
    made = bench(outbound=3)
    made.fetches = False
    id = made.submit(1, Policy.PRIVATE)
    come_back(made, 1, [3, 101, 102])
    made.run(5)
    assert made.receipts[-1].final
    made.announcements.relay.mempool._remove(id)  # it waited too long, or there was no room
    before = len(made.stemmed(1))
    made.run(20_000)
    assert len(made.stemmed(1)) == before


def test_direct_is_public_at_once() -> None:
    made = bench()
    made.submit(1, Policy.DIRECT)
    assert made.published
    assert stages(made) == ["queued", "diffused"]
    assert [kept.is_public for kept in made.own._outbox.kept()] == [True], "until others have it"
    made.run(100)
    assert not made.own._outbox.kept()


def test_told_to_peers_that_fetch_nothing_it_is_not_over_and_the_next_peer_hears_of_it() -> None:
    """Links that others keep for blocks alone look like any other, and take no transaction."""
    made = bench()
    made.fetches = False
    id = made.submit(1, Policy.DIRECT)
    made.run(200)
    told = {link for link, message in made.sent if isinstance(message, Inv)}
    assert told == set(made.peers), "all of them were told"
    assert not made.receipts[-1].final
    assert [kept.id for kept in made.own._outbox.kept()] == [id]
    made.join(70)
    made.run(30)
    assert [message for link, message in made.sent if link == 70 and isinstance(message, Inv)]
    made.receive(70, GetData((InventoryItem(InventoryKind.TX, id),)))
    made.run(30)
    assert made.receipts[-1].final
    assert not made.own._outbox.kept()
    made.join(71)
    made.run(100)
    assert not [message for link, message in made.sent if link == 71 and isinstance(message, Inv)]


@pytest.mark.parametrize("is_saved", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_what_left_over_tor_is_announced_there_again_after_a_restart(seed: int, is_saved: bool) -> None:
    """At a random face it was: over clearnet, where nobody had it yet, it came from our address before anybody else's."""
    faces = (Face.CLEARNET, Face.ONION)
    outbox = MemoryOutbox()
    before = Bench(StemTerms(q=0.2, epoch_s=FOREVER), seed, outbox, faces)
    before.fetches = False
    before.join(50, face=Face.ONION)
    before.submit(1, Policy.PRIVATE)
    assert before.stemmed(1) == [50]
    while not before.published:
        before.run(10)
    before.run(10)
    (kept,) = outbox.kept()
    assert (kept.is_public, kept.face) == (True, Face.ONION)
    after = Bench(StemTerms(q=0.2, epoch_s=FOREVER), seed, outbox, faces)
    relay = after.announcements.relay
    if is_saved:  # by the archive
        relay.mempool.add(after.pool.decode(raw(1)), None, 0, True)
        relay._waits(kept.id)
    after.join(1)
    after.join(50, face=Face.ONION)
    after.run(0)
    assert [after.pool.has(kept.id, face) for face in faces] == [False, True]
    assert after.own._outbox.kept()[0].face is Face.ONION, "for the next restart"


def test_whoever_has_no_inbound_edge_is_told_that_the_first_hop_can_know_and_prefers_an_anonymity_network() -> None:
    made = bench(inbound=0)
    made.submit(1, Policy.PRIVATE)
    assert made.receipts[-1].first_hop_can_know
    made.join(50, face=Face.I2P)
    made.submit(2, Policy.PRIVATE)
    assert made.stemmed(2) == [50]
    assert not made.receipts[-1].first_hop_can_know


def test_what_comes_in_through_an_onion_service_hides_nothing_that_leaves_over_clearnet() -> None:
    """A node behind NAT with an onion service: faces do not relay for each other, so all that leaves over clearnet is its own."""
    made = bench(inbound=0)
    made.join(150, inbound=True, face=Face.ONION)
    made.submit(1, Policy.PRIVATE)
    assert made.stemmed(1)[0] in (1, 2)
    assert made.receipts[-1].first_hop_can_know
    made.join(50, face=Face.ONION)
    made.submit(2, Policy.PRIVATE)
    assert made.stemmed(2) == [50]
    assert not made.receipts[-1].first_hop_can_know


def test_a_strict_one_that_was_swallowed_goes_to_nobody_again_before_the_next_epoch() -> None:
    """Whoever swallowed it and gets it again knows whose it is: others' would be public by then."""
    made = bench(epoch_s=100_000.0, epoch_extra_s=0.0)
    made.dandelion._epochs.set(Face.CLEARNET, 100_000.0)
    made.submit(1, Policy.STRICT, 200_000.0)
    made.run(50_000)
    assert sorted(made.stemmed(1)) == [1, 2]
    made.join(3)
    assert sorted(made.stemmed(1)) == [1, 2]
    made.run(50_001)
    assert len(made.stemmed(1)) == 3


@pytest.mark.parametrize("policy", [Policy.PRIVATE, Policy.STRICT])
def test_what_waits_for_an_epoch_waits_for_one_of_the_face_that_it_takes(policy: Policy) -> None:
    """It would leave over Tor when an epoch begins at clearnet, which others see there: both faces are one node's then."""
    is_high = policy is Policy.PRIVATE
    made = bench(epoch_s=1e6, epoch_extra_s=0.0, awaits_epoch=is_high, prefers_anonymity=True)
    for link in (51, 52):
        made.join(link, face=Face.ONION)
    made.dandelion._epochs.set(Face.CLEARNET, 30_000.0)
    made.dandelion._epochs.set(Face.ONION, 31_000.0)
    made.submit(1, policy, 200_000.0)
    made.run(30_500)
    before = len(made.stemmed(1))
    assert before == (0 if is_high else 2)
    made.run(500.1)
    assert len(made.stemmed(1)) == before + 1
    assert made.stemmed(1)[-1] > 50


def test_at_the_high_level_it_waits_for_the_next_epoch() -> None:
    made = bench(epoch_s=600.0, epoch_extra_s=0.0, awaits_epoch=True)
    made.submit(1, Policy.PRIVATE)
    assert not made.stemmed(1)
    made.run(605)
    assert made.stemmed(1)


def test_a_restart_in_the_stem_phase_neither_loses_nor_shows_it() -> None:
    before = bench()
    before.submit(1, Policy.PRIVATE)
    before.receive(101, StemTx(raw(2)))
    after = Bench(StemTerms(q=0.2, epoch_s=FOREVER), 9, before.own._outbox)
    for link in (11, 12):
        after.join(link)
    assert len(after.stemmed(1)) == 1, "the own one goes on, over the new epoch's edge"
    assert not after.stemmed(2), "those of others are guarded by the others' embargoes"
    after.run(1)
    assert not [message for _, message in after.sent if isinstance(message, Inv)]
    come_back(after, 1, [11, 12])
    after.run(100)
    assert not after.own._outbox.kept()


@pytest.mark.parametrize("first", [1, 101])
def test_a_slow_start_does_not_use_up_the_time_to_find_a_successor(first: int) -> None:
    """Links over Tor come after a minute: what an earlier run had sent on its stem went out unprotected before."""
    before = bench()
    before.submit(1, Policy.PRIVATE)
    after = Bench(StemTerms(q=0.2, epoch_s=FOREVER), 9, before.own._outbox)
    after.run(90)
    assert not after.published
    after.join(first, inbound=first > 100)
    after.run(29)
    assert not after.published
    assert after.stemmed(1) == ([1] if first == 1 else [])
    after.run(2)
    assert bool(after.published) == (first != 1), "by its policy, where there is still no successor"


def test_a_direct_one_is_public_after_a_restart_though_the_disk_took_no_note_that_it_was_before() -> None:
    outbox = MemoryOutbox()
    outbox.keep(Submission(raw(1)[:32], raw(1), Policy.DIRECT, 30.0))
    made = Bench(StemTerms(q=0.2, epoch_s=FOREVER), 9, outbox)
    made.join(1)
    made.run(2)
    assert not made.stemmed(1)
    assert made.published
    assert [kept.is_public for kept in outbox.kept()] == [True]


def test_what_does_not_go_on_after_a_restart_is_told_of() -> None:
    """Its sender was told that the next start goes on with it."""
    outbox = MemoryOutbox()
    for number in (1, 2):
        outbox.keep(Submission(raw(number)[:32], raw(number), Policy.STRICT, 30.0))
    outbox.keep(Submission(b"3" * 32, b"of another ledger", Policy.STRICT, 30.0))
    made = Bench(StemTerms(q=0.2, epoch_s=FOREVER), 9, outbox)
    made.run(0)
    assert [(receipt.id[-1:], receipt.stage, receipt.final) for receipt in made.receipts] == [
        (b"\1", Stage.QUEUED, False),
        (b"\2", Stage.QUEUED, False),
        (b"3", Stage.EXPIRED, True),
    ]
    assert "not a transaction" in made.receipts[-1].reason


def test_sending_it_again_changes_nothing_and_rubbish_is_refused_in_words() -> None:
    made = bench()
    assert made.submit(1, Policy.PRIVATE) == made.submit(1, Policy.PRIVATE)
    assert len(made.stemmed(1)) == 1
    with pytest.raises(UserError, match="not a transaction"):
        made.own.submit(b"x", Policy.PRIVATE, None, 0.0)
    with pytest.raises(UserError, match="relayed at most"):
        made.own.submit(raw(3) + bytes(200_000), Policy.PRIVATE, None, 0.0)


@pytest.mark.parametrize("wrong", [nan, -1.0])
def test_a_deadline_that_never_can_be_is_refused_and_those_of_others_come(wrong: float) -> None:
    made = bench(outbound=0, inbound=0)
    with pytest.raises(UserError, match="from 0 on"):
        made.submit(1, Policy.PRIVATE, wrong)
    made.submit(2, Policy.PRIVATE, 20)
    made.run(30)
    assert stages(made) == ["queued", "unprotected"]


def test_one_that_went_round_is_treated_as_any_other() -> None:
    """The node before us sends our own back: it is relayed like a stranger's, and diffused only as a loop is."""
    made = bench(q=0.0)
    made.submit(1, Policy.PRIVATE)
    made.receive(101, StemTx(raw(1)))
    assert len(made.stemmed(1)) == 2
    made.receive(101, StemTx(raw(1)))
    assert made.published


def test_silence_says_that_a_peer_has_it_only_of_one_that_was_told_and_takes_part() -> None:
    made = bench(outbound=0, inbound=1)
    made.fetches = False
    id = made.submit(1, Policy.DIRECT)
    relay = made.announcements.relay

    def is_told() -> bool:
        """If all have answered just now."""
        return relay.is_told(id, lambda link: made.now)

    assert not is_told(), "nobody was told yet"
    made.run(60)
    assert (101, Inv((InventoryItem(InventoryKind.TX, id),))) in made.sent
    assert not is_told(), "it may keep the link for blocks alone"
    made.join(1)
    assert not is_told(), "it has not been told yet"
    made.run(30)
    assert is_told()
    assert not relay.is_told(id, lambda link: 1.0), "it has not read it yet"
