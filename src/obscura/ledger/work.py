"""Proof of work and difficulty: compact targets, work, the retarget (Bitcoin's published rules)."""

from __future__ import annotations

from functools import lru_cache

from obscura import limits


@lru_cache(maxsize=1024)
def target_of(bits: int) -> int:
    """The target that compact ``bits`` mean; 0, which no hash meets, where negative or over 256 bits."""
    size, mantissa = bits >> 24, bits & 0x7FFFFF
    if bits & 0x800000:
        return 0
    target = mantissa << 8 * (size - 3) if size > 3 else mantissa >> 8 * (3 - size)
    return target if target < 1 << 256 else 0


def bits_of(target: int) -> int:
    """Compact bits of a target, rounded down to their 23 bits."""
    size = (target.bit_length() + 7) // 8
    mantissa = target >> 8 * (size - 3) if size > 3 else target << 8 * (3 - size)
    if mantissa & 0x800000:  # the sign bit: one byte more
        mantissa >>= 8
        size += 1
    return size << 24 | mantissa


@lru_cache(maxsize=1024)
def work_of(bits: int) -> int:
    """Expected hashes to meet ``bits``; 0 where nothing can meet them."""
    target = target_of(bits)
    return (1 << 256) // (target + 1) if target else 0


def meets(block_id: bytes, bits: int, limit_bits: int) -> bool:
    """Whether the hash is at most the target, and the target at most the network's limit."""
    target = target_of(bits)
    return 0 < target <= target_of(limit_bits) and int.from_bytes(block_id, "little") <= target


def retarget(bits: int, first_time: int, last_time: int, span_s: int, limit_bits: int) -> int:
    """Bits after an interval: scaled by the time it took, within a factor of four, never above the limit.

    ``first_time`` is of the interval's first header and ``last_time`` of its last one, so the time of one
    header fewer than the interval has is measured: Bitcoin's off-by-one, kept because every block depends on
    it.
    """
    factor = limits.RETARGET_FACTOR
    took = min(max(last_time - first_time, span_s // factor), span_s * factor)
    return bits_of(min(target_of(bits) * took // span_s, target_of(limit_bits)))


def may_change_to(bits: int, new_bits: int, span_s: int, limit_bits: int) -> bool:
    """Whether any retarget can lead from ``bits`` to ``new_bits``, whatever time the interval took."""
    took = (0, span_s * limits.RETARGET_FACTOR)
    hardest, easiest = (target_of(retarget(bits, 0, each, span_s, limit_bits)) for each in took)
    return hardest <= target_of(new_bits) <= easiest
