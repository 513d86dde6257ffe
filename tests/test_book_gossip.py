"""addr and getaddr between peers (design 10): what is taken, passed on, announced and answered, and through which face."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from obscura.limits import ADDR_BURST, ADDR_RELAY_PEERS, ANNOUNCE_S, GETADDR_BLUR_S, GETADDR_CACHE_S, OBSERVERS
from obscura.node.core import Core
from obscura.node.effects import Effect, Send
from obscura.node.face import Face, Purpose
from obscura.node.gossip import Gossip
from obscura.node.groups import Grouping
from obscura.node.ownaddress import OwnAddress
from obscura.node.peer import Peer
from obscura.wire.address import Address, CarrierNumber, Endpoint, Network
from obscura.wire.messages.network import Addr, AddrEntry, GetAddr
from peer_examples import UNIX, Clock, book, endpoint, key, peer

TLS = CarrierNumber.TLS


class Talk:
    """A core with book, own address and gossip."""

    def __init__(self, *, faces: Iterable[Face] = (Face.CLEARNET,), external: tuple[Address, ...] = ()) -> None:
        self.clock = Clock()
        grouping = Grouping()
        self.book = book(self.clock)
        self.own = OwnAddress(grouping, loopback=False, external=external)
        self.gossip = Gossip(
            self.book,
            self.own,
            grouping,
            random.Random(3),
            self.clock,
            bytes(32),
            loopback=False,
            services=11,
            faces=frozenset(faces),
        )
        self.core = Core([self.own, self.gossip])
        self.now = 0.0

    def meet(self, someone: Peer) -> list[Effect]:
        return self.core.established(someone, self.now)

    def hear(self, someone: Peer, *entries: AddrEntry) -> None:
        assert list(self.core.received(someone, Addr(entries), self.now)) == []

    def ask(self, someone: Peer) -> tuple[AddrEntry, ...]:
        sent = list(self.core.received(someone, GetAddr(), self.now))
        assert len(sent) < 2
        return sent[0].message.entries if sent else ()

    def wait(self, seconds: float) -> list[tuple[int, AddrEntry]]:
        """What is told to whom meanwhile."""
        told, until = [], self.now + seconds
        while (when := self.core.deadline()) <= until:
            self.clock.now += when - self.now
            self.now = when
            for effect in self.core.due(when):
                if isinstance(effect, Send) and isinstance(effect.message, Addr):
                    told += [(effect.link, entry) for entry in effect.message.entries]
        self.clock.now += until - self.now
        self.now = until
        return told


def entry(host: str, *, time: int = UNIX, with_key: bytes | None = None, port: int = 9_733) -> AddrEntry:
    place = endpoint(host, port)
    return AddrEntry(time, 11, place.network, place.host, port, TLS, with_key)


def crowd(talk: Talk, count: int, face: Face = Face.CLEARNET, first: int = 100) -> list[Peer]:
    peers = [peer(first + n, f"30.{n}.0.1", face=face) for n in range(count)]
    for someone in peers:
        talk.meet(someone)
    return peers


# --- Taking -----------------------------------------------------------------------------------------------------------


def test_dialled_full_peers_are_asked_once_and_nobody_else() -> None:
    talk = Talk()
    asked = [e for e in talk.meet(peer(1, inbound=False)) if isinstance(e, Send)]
    assert [type(e.message) for e in asked] == [GetAddr]
    assert [e for e in talk.meet(peer(2)) if isinstance(e, Send)] == []
    for link, purpose in ((3, Purpose.BLOCKS), (4, Purpose.FEELER)):
        assert [e for e in talk.meet(peer(link, inbound=False, purpose=purpose)) if isinstance(e, Send)] == []


def test_a_stranger_gets_one_address_in_ten_seconds_into_the_book_and_who_was_asked_a_thousand() -> None:
    talk = Talk()
    stranger, asked = peer(1, "30.1.0.1"), peer(2, "30.2.0.1", inbound=False)
    talk.meet(stranger)
    talk.meet(asked)
    talk.hear(stranger, *(entry(f"20.{n}.0.1") for n in range(200)))
    assert len(talk.book) == 1
    talk.wait(101)
    talk.hear(stranger, *(entry(f"21.{n}.0.1") for n in range(200)))
    assert talk.core.describe(1, talk.now)["addresses_taken"] == 11
    talk.hear(asked, *(entry(f"22.{n % 250}.{n // 250}.1") for n in range(1_000)))
    assert talk.core.describe(2, talk.now)["addresses_taken"] == ADDR_BURST


def test_block_only_peers_tell_and_are_told_nothing() -> None:
    talk = Talk()
    quiet = peer(1, "30.1.0.1", inbound=False, purpose=Purpose.BLOCKS)
    talk.meet(quiet)
    talk.hear(quiet, entry("20.1.0.1"))
    assert len(talk.book) == 0
    assert talk.ask(quiet) == ()


@pytest.mark.parametrize(("time", "age"), [(UNIX, 7_200), (UNIX + 10_000, 5 * 86_400 + 7_200), (0, 5 * 86_400 + 7_200)])
def test_told_times_are_taken_with_a_grain_of_salt(time: int, age: int) -> None:
    talk = Talk()
    talk.meet(someone := peer(1, inbound=False))
    talk.hear(someone, entry("20.1.0.1", time=time))
    (known,) = talk.book.entries()
    assert UNIX - known.seen == age


def test_keys_that_were_told_are_candidates_and_a_places_own_word_counts_most() -> None:
    talk = Talk()
    others = [peer(n, f"30.{n}.0.1", inbound=False) for n in range(2)]
    itself = peer(9, "20.1.0.1", port=40_000)
    for someone in (*others, itself):
        talk.meet(someone)
    for someone in others:
        talk.hear(someone, entry("20.1.0.1", with_key=key(666)))
    (known,) = talk.book.entries()
    assert known.keys.best(random.Random(1)) == key(666)
    talk.hear(itself, entry("20.1.0.1", with_key=key(1)))
    assert known.keys.best(random.Random(1)) == key(1)
    assert known.keys.verified is None


def test_a_peer_that_announces_where_we_dialled_it_has_proved_its_key_there() -> None:
    talk = Talk()
    talk.meet(someone := peer(1, "20.1.0.1", inbound=False, known_key=key(5), proved=key(5)))
    talk.hear(someone, entry("20.1.0.1", with_key=key(5)))
    (known,) = talk.book.entries()
    assert (known.is_tried, known.keys.verified) == (True, key(5))


# --- Passing on -------------------------------------------------------------------------------------------------------


def test_news_goes_to_two_peers_the_same_ones_all_day_and_not_back() -> None:
    talk = Talk()
    peers = crowd(talk, 12)
    told_to = []
    for hour in range(6):
        talk.wait(60)
        teller = peers[hour]
        talk.hear(teller, entry("20.1.0.1", time=talk.clock()))
        told = talk.wait(120)
        assert teller.link not in [link for link, _ in told]
        told_to += [link for link, _ in told]
    assert len(told_to) == len(set(told_to))  # nobody is told what it knows
    assert len(told_to) <= 6 * ADDR_RELAY_PEERS


def test_old_news_answers_and_large_messages_are_not_passed_on() -> None:
    talk = Talk()
    peers = crowd(talk, 6)
    talk.hear(peers[0], entry("20.1.0.1", time=UNIX - 3_600))
    asked = peer(1, "31.0.0.1", inbound=False)
    talk.meet(asked)
    talk.hear(asked, *(entry(f"21.{n}.0.1") for n in range(5)))  # the answer to our getaddr
    talk.hear(asked, *(entry(f"22.{n}.0.1") for n in range(11)))
    assert talk.wait(600) == []
    talk.hear(asked, entry("23.0.0.1", time=talk.clock()))
    assert talk.wait(600)


@pytest.mark.parametrize("answer", [1, 5, 11])
def test_news_of_a_dialled_peer_is_passed_on_whatever_it_answered_before(answer: int) -> None:
    """Where nobody knows 44 places all answers have ten entries at most, and each was waited for ever after."""
    talk = Talk()
    crowd(talk, 6)
    asked = peer(1, "31.0.0.1", inbound=False)
    talk.meet(asked)
    talk.hear(asked, *(entry(f"21.{n}.0.1") for n in range(answer)))
    assert talk.wait(600) == []
    talk.hear(asked, entry("23.0.0.1", time=talk.clock()))
    assert talk.wait(600)


def test_only_verified_keys_are_passed_on() -> None:
    talk = Talk()
    peers = crowd(talk, 4)
    talk.hear(peers[0], entry("20.1.0.1", with_key=key(1)))
    told = talk.wait(120)
    assert told
    assert all(news.key is None for _, news in told)
    (known,) = talk.book.entries()
    talk.book.good(known.place, key(1))
    talk.wait(200)
    talk.hear(peers[3], entry("20.1.0.1", time=talk.clock(), with_key=key(9)))
    assert {news.key for _, news in talk.wait(120)} <= {key(1)}
    assert {shown.key for shown in talk.ask(peers[1])} == {key(1)}


def test_what_one_face_heard_no_other_face_is_told() -> None:
    talk = Talk(faces=(Face.CLEARNET, Face.ONION))
    clear, onion = crowd(talk, 4), crowd(talk, 4, Face.ONION, first=200)
    talk.hear(clear[0], entry("20.1.0.1"))
    talk.hear(onion[0], AddrEntry(entry("20.1.0.1").time, 1, Network.TORV3, bytes([21]) * 32, 9_733, 0, None))
    for link, news in talk.wait(300):
        assert (link < 200) == (news.host[0] == 20)
    assert {shown.host[0] for shown in talk.ask(clear[1])} == {20}
    assert {shown.host[0] for shown in talk.ask(onion[1])} == {21}


def test_a_clearnet_address_told_through_an_onion_link_is_passed_on_there_and_goes_into_no_book() -> None:
    """It would be missing in, or show its time and key in, what the clearnet face answers."""
    talk = Talk(faces=(Face.CLEARNET, Face.ONION))
    onion = crowd(talk, 4, Face.ONION, first=200)
    talk.hear(onion[0], entry("20.1.0.1"))
    assert {link for link, _ in talk.wait(300)} <= {someone.link for someone in onion[1:]}
    assert len(talk.book) == 0
    alone = Talk(faces=(Face.ONION,))
    (teller,) = crowd(alone, 1, Face.ONION, first=200)
    alone.hear(teller, entry("20.1.0.1"))
    assert len(alone.book) == 0  # no exit is asked for it either: clearnet peers of such a node are named ones


def test_private_and_odd_places_are_neither_learnt_nor_passed_on() -> None:
    talk = Talk()
    peers = crowd(talk, 4)
    for host, port in (("10.0.0.1", 9_733), ("127.0.0.1", 9_733), ("20.1.0.1", 25), ("192.168.0.1", 443)):
        talk.wait(11)
        talk.hear(peers[0], entry(host, port=port, time=talk.clock()))
    assert talk.wait(300) == []
    assert len(talk.book) == 0


# --- Answering --------------------------------------------------------------------------------------------------------


def filled(count: int = 400) -> Talk:
    talk = Talk()
    for n in range(count):
        talk.book.learn(endpoint(f"20.{n % 250}.{n // 250}.1"), TLS, Face.CLEARNET, bytes([n % 256]), UNIX - 100)
    return talk


def test_getaddr_is_answered_once_per_link_with_23_percent_and_to_inbound_peers_alone() -> None:
    talk = filled()
    talk.meet(into := peer(1))
    talk.meet(out := peer(2, inbound=False))
    assert len(talk.ask(into)) == -int(-len(talk.book) * 0.23 // 1)
    assert talk.ask(into) == ()
    assert talk.ask(out) == ()


def test_everybody_gets_the_same_answer_for_a_day_with_times_that_say_nothing() -> None:
    talk = filled()
    answers = []
    for link in range(20):
        talk.meet(someone := peer(link))
        answers.append(talk.ask(someone))
        talk.wait(GETADDR_CACHE_S[0] / 21)
    assert len(set(answers)) == 1
    ages = [UNIX - shown.time for shown in answers[0]]
    assert min(ages) >= 100
    assert max(ages) <= 100 + GETADDR_BLUR_S
    assert len(set(ages)) > 80
    talk.wait(GETADDR_CACHE_S[1])
    talk.meet(someone := peer(99))
    assert talk.ask(someone) != answers[0]


def test_a_book_that_doubles_is_shown_anew_so_that_a_young_network_grows() -> None:
    talk = Talk()
    sizes = []
    for n in range(64):
        talk.book.learn(endpoint(f"20.{n}.0.1"), TLS, Face.CLEARNET, bytes([n]), UNIX)
        talk.meet(someone := peer(n))
        sizes.append(len(talk.ask(someone)))
    assert sizes[0] == 1
    assert sizes[-1] >= 15
    assert len(set(sizes)) <= 7  # not at every question


# --- The own address --------------------------------------------------------------------------------------------------

OWN = Address(key(1), "20.9.0.1", 9_733, TLS)


def announced(talk: Talk, someone: Peer) -> list[AddrEntry]:
    return [
        shown
        for effect in talk.meet(someone)
        if isinstance(effect, Send) and isinstance(effect.message, Addr)
        for shown in effect.message.entries
    ]


def test_a_configured_address_is_announced_with_its_key_to_every_full_peer_and_again_each_day() -> None:
    talk = Talk(external=(OWN,))
    (said,) = announced(talk, peer(1))
    assert (said.endpoint, said.key, said.time) == (OWN.endpoint, OWN.key, UNIX)
    assert announced(talk, peer(2, inbound=False, purpose=Purpose.BLOCKS)) == []
    assert 5 <= len(talk.wait(14 * ANNOUNCE_S)) <= 28


def test_what_is_not_known_is_not_announced() -> None:
    talk = Talk()
    talk.own.set_listening([Address(key(1), "0.0.0.0", 9_733, TLS), Address(key(2), "192.168.0.5", 9_733, TLS)])
    assert announced(talk, peer(1)) == []


def test_three_dialled_peers_of_different_groups_are_believed_and_inbound_ones_never() -> None:
    talk = Talk()
    talk.own.set_listening([Address(key(1), "0.0.0.0", 9_733, TLS)])
    seen = endpoint("20.9.0.1", 40_000)
    for n in range(20):
        talk.meet(peer(n, f"30.{n}.0.1", observed=seen))
        talk.meet(peer(100 + n, f"31.1.{n}.1", inbound=False, observed=seen))  # one network
    assert talk.own.announced(Face.CLEARNET) == []
    for n in range(OBSERVERS - 1):
        talk.meet(peer(200 + n, f"32.{n}.0.1", inbound=False, observed=seen))
    assert talk.own.announced(Face.CLEARNET) == [OWN]
    assert talk.own.announced(Face.ONION) == []


def test_what_peers_saw_is_announced_with_the_port_and_key_of_what_listens_in_that_family() -> None:
    talk = Talk()
    four, six = Address(key(1), "0.0.0.0", 9_733, TLS), Address(key(2), "::", 443, TLS)
    seen = (endpoint("20.9.0.1", 40_000), endpoint("2a00:9::1", 40_000))
    for n in range(2 * OBSERVERS):
        talk.meet(peer(n, f"32.{n}.0.1", inbound=False, observed=seen[n % 2]))
    for listening, host in (([four], "20.9.0.1"), ([six], "2a00:9::1")):
        talk.own.set_listening(listening)
        assert [told.host for told in talk.own.announced(Face.CLEARNET)] == [host]
    talk.own.set_listening([four, six])
    told = talk.own.announced(Face.CLEARNET)
    assert [(a.key, a.host, a.port) for a in told] == [(key(1), "20.9.0.1", 9_733), (key(2), "2a00:9::1", 443)]


def test_the_own_address_that_peers_agree_on_is_not_learnt_when_it_comes_back() -> None:
    """It was dialled, found to be this node and forgotten, and learnt again with the next news of it."""
    talk = Talk()
    talk.own.set_listening([Address(key(1), "0.0.0.0", 9_733, TLS), Address(key(2), "::", 443, TLS)])
    dialled = [
        peer(n, f"32.{n}.0.1", inbound=False, observed=endpoint("20.9.0.1", 40_000 + n)) for n in range(OBSERVERS)
    ]
    for someone in dialled:
        talk.meet(someone)
    (own,) = talk.own.announced(Face.CLEARNET)
    others = [entry("20.9.0.2"), entry("20.9.0.1", port=443)]  # another host; where IPv6 alone listens
    talk.hear(dialled[0], entry(own.host, port=own.port), *others)
    assert {str(known.endpoint) for known in talk.book.entries()} == {"20.9.0.2:9733", "20.9.0.1:443"}
    talk.own.set_mapped(Address(key(1), "0.0.0.0", 9_733, TLS), Address(key(1), "20.9.0.1", 50_000, TLS))
    assert talk.own.is_own(endpoint("20.9.0.1", 50_000))
    assert not talk.own.is_own(endpoint("20.9.0.1", 9_733)), "of another machine behind that router"


def test_what_dialled_peers_saw_goes_with_them() -> None:
    talk = Talk()
    talk.own.set_listening([Address(key(1), "0.0.0.0", 9_733, TLS)])
    seen = endpoint("20.9.0.1", 40_000)
    for n in range(OBSERVERS):
        talk.meet(peer(n, f"32.{n}.0.1", inbound=False, observed=seen))
        talk.meet(peer(100 + n, f"32.{n}.0.2", inbound=False, observed=seen))
        talk.meet(peer(200 + n, f"33.{n}.0.1", inbound=False, observed=endpoint(f"20.9.1.{n}", 40_000)))
    talk.core.closed(0, "gone", 0.0)
    assert talk.own.announced(Face.CLEARNET) == [OWN], "one of that group is left"
    talk.core.closed(100, "gone", 0.0)
    assert talk.own.announced(Face.CLEARNET) == []
    talk.meet(peer(300, "34.1.0.1", inbound=False, observed=seen))
    assert talk.own.announced(Face.CLEARNET) == [OWN]


def test_peers_that_came_before_the_address_was_known_are_told_once_it_is() -> None:
    talk = Talk()
    talk.own.set_listening([Address(key(1), "0.0.0.0", 9_733, TLS)])
    seen = endpoint("20.9.0.1", 40_000)
    early = peer(1, "30.1.0.1")
    assert announced(talk, early) == []
    told = []
    for n in range(OBSERVERS + 3):
        effects = talk.meet(peer(100 + n, f"32.{n}.0.1", inbound=False, observed=seen))
        told += [e.link for e in effects if isinstance(e, Send) and isinstance(e.message, Addr)]
    assert told.count(early.link) == 1
    assert set(told) == {1, *range(100, 100 + OBSERVERS + 3)}


def test_an_unlisted_node_says_nothing_and_knows_itself_all_the_same() -> None:
    talk = Talk()
    talk.own.set_listening([OWN], is_listed=False)
    assert announced(talk, peer(1)) == []
    talk.meet(someone := peer(2, inbound=False))
    talk.hear(someone, entry("20.9.0.1"))
    assert len(talk.book) == 0


def test_each_face_hears_of_its_own_address_only() -> None:
    onion = Endpoint(Network.TORV3, bytes(range(32)), 9_733)
    talk = Talk(faces=(Face.CLEARNET, Face.ONION), external=(OWN,))
    talk.own.add_external(Address(None, onion.host_text, 9_733))
    talk.own.set_listening([])  # in either order
    (clear,) = announced(talk, peer(1))
    (hidden,) = announced(talk, peer(2, face=Face.ONION))
    assert (clear.endpoint, hidden.endpoint) == (OWN.endpoint, onion)
