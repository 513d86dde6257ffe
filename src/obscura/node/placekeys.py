"""What is known of one place's channel key (design 10, *Keys in the book*)."""

from __future__ import annotations

import random

import msgspec

from obscura.limits import BURNT_KEYS, BURNT_S, KEY_FAILURES, KEY_FAILURES_S, MAX_CANDIDATE_KEYS, MAX_KEY_SOURCES


class Candidate(msgspec.Struct):
    """A key that others told. ``sources``: the groups that did, one of them = the place itself where ``is_own_word``."""

    key: bytes
    sources: tuple[bytes, ...]
    is_own_word: bool = False


class Keys(msgspec.Struct):
    """One ``verified`` key, from an own completed handshake alone; a ``hard`` one from a signed list; up to 3 ``candidates``.

    Gossip never touches the first two. Each source group has one vote, so that one network cannot take all three places.
    """

    verified: bytes | None = None
    hard: bytes | None = None
    is_listed: bool = False  # the hard key is of a signed list, and not of the network's file, which may be older
    candidates: tuple[Candidate, ...] = ()
    burnt: tuple[tuple[bytes, float], ...] = ()  # keys that failed, and until when they are not taken again
    failures: int = 0  # of the verified key, since it last was proven
    failing_since: float = 0.0  # unix seconds

    @property
    def is_hard(self) -> bool:
        """Whether a signed list vouches for the key: it is never given up."""
        return self.hard is not None

    @property
    def is_trusted(self) -> bool:
        """Whether the best key is more than hearsay."""
        return self.hard is not None or self.verified is not None

    @property
    def is_known(self) -> bool:
        """Whether there is any key to try."""
        return self.is_trusted or bool(self.candidates)

    def best(self, rng: random.Random) -> bytes | None:
        """The key to dial with: hard, verified, else what most groups say, the place's own word above all."""
        if self.hard is not None or self.verified is not None:
            return self.hard or self.verified
        if not self.candidates:
            return None
        weight = max((c.is_own_word, len(c.sources)) for c in self.candidates)
        return rng.choice([c.key for c in self.candidates if (c.is_own_word, len(c.sources)) == weight])

    def told(self, key: bytes, source: bytes, unix: float, *, is_own_word: bool) -> None:
        """Somebody of a group says that this is the key."""
        if any(burnt == key and 0 < until - unix <= BURNT_S for burnt, until in self.burnt):
            return
        if any(source in c.sources for c in self.candidates if c.key != key):
            if not is_own_word:
                return  # that group has had its vote
            self._drop_votes(source)
        known = next((c for c in self.candidates if c.key == key), None)
        if known is not None:
            known.is_own_word |= is_own_word
            if source not in known.sources and len(known.sources) < MAX_KEY_SOURCES:
                known.sources = (*known.sources, source)
        elif len(self.candidates) < MAX_CANDIDATE_KEYS or is_own_word:
            kept = sorted(self.candidates, key=lambda c: len(c.sources), reverse=True)[: MAX_CANDIDATE_KEYS - 1]
            self.candidates = (*(kept if is_own_word else self.candidates), Candidate(key, (source,), is_own_word))

    def prove(self, key: bytes) -> None:
        """An own handshake proved the key."""
        self.verified = key
        self.failures = 0
        self.candidates = ()

    def fail(self, key: bytes, unix: float) -> None:
        """An own handshake failed with the key, though somebody answered."""
        if key == self.hard:
            return
        if key == self.verified:
            if not self.failures or self.failing_since > unix:  # in the future: the clock was wrong then
                self.failing_since = unix
            self.failures += 1
            if self.failures >= KEY_FAILURES and unix - self.failing_since >= KEY_FAILURES_S:
                self.verified = None
                self.candidates = (*self.candidates[: MAX_CANDIDATE_KEYS - 1], Candidate(key, ()))
            return
        self.candidates = tuple(c for c in self.candidates if c.key != key)
        self.burnt = (*self.burnt, (key, unix + BURNT_S))[-BURNT_KEYS:]

    def forget(self) -> bool:
        """Drop every key that was learnt, on the operator's word. False if none was known."""
        was_known = self.verified is not None or bool(self.candidates)
        self.verified, self.candidates, self.burnt, self.failures = None, (), (), 0
        return was_known

    def _drop_votes(self, source: bytes) -> None:
        for c in self.candidates:
            c.sources = tuple(s for s in c.sources if s != source)
        self.candidates = tuple(c for c in self.candidates if c.sources or c.is_own_word)
