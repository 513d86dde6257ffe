"""Token buckets: what a peer may cost per second, and how much at once."""

from __future__ import annotations


class TokenBucket:
    """``rate`` tokens per second, at most ``burst`` saved up. Starts full.

    >>> bucket = TokenBucket(rate=1.0, burst=2.0, now=0.0)
    >>> [bucket.take(1.0, now=0.0) for _ in range(3)], bucket.take(1.0, now=1.0)
    ([True, True, False], True)
    """

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = now

    def take(self, cost: float, now: float) -> bool:
        """Whether ``cost`` tokens were there; they are gone then."""
        self._fill(now)
        if self._tokens < cost:
            return False
        self._tokens -= cost
        return True

    def is_full(self, now: float) -> bool:
        """Whether nothing was taken lately, so that a fresh bucket would be the same."""
        self._fill(now)
        return self._tokens >= self._burst

    def _fill(self, now: float) -> None:
        if now > self._at:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
            self._at = now
