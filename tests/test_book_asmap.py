"""The asmap interpreter: published format, an own encoder as oracle, and files that attack it."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obscura.node.asmap import Asmap, AsmapError
from obscura.node.groups import Grouping
from peer_examples import endpoint

ASN, TYPE = (1, range(15, 25)), (0, (0, 0, 1))
MATCH, JUMP = (2, range(1, 9)), (17, range(5, 31))


class Bits:
    """Writes numbers as the format has them."""

    def __init__(self) -> None:
        self.bits: list[int] = []

    def number(self, value: int, law: tuple[int, object]) -> Bits:
        low, classes = law[0], list(law[1])  # type: ignore[call-overload]
        for index, width in enumerate(classes):
            if value < low + (1 << width):
                if index < len(classes) - 1:
                    self.bits.append(0)
                self.bits += [(value - low) >> shift & 1 for shift in range(width - 1, -1, -1)]
                return self
            self.bits.append(1)
            low += 1 << width
        raise ValueError(value)

    def data(self) -> bytes:
        bits = self.bits + [0] * (-len(self.bits) % 8)
        return bytes(sum(bit << n for n, bit in enumerate(bits[at : at + 8])) for at in range(0, len(bits), 8))


def program(routes: dict[str, int]) -> list[int]:
    """A trie of prefixes, written naively: one branch per bit."""
    table = {}
    for text, asn in routes.items():
        network = ip_network(text)
        if network.version == 4:
            network = ip_network(f"::ffff:{network.network_address}/{96 + network.prefixlen}")
        bits = f"{int(network.network_address):0128b}"[: network.prefixlen]
        table[bits] = asn

    def write(prefix: str) -> list[int]:
        if prefix in table and not any(other != prefix and other.startswith(prefix) for other in table):
            return Bits().number(0, TYPE).number(table[prefix], ASN).bits
        if not any(other.startswith(prefix) for other in table):
            return []
        left, right = write(prefix + "0"), write(prefix + "1")
        if left and right:
            return Bits().number(1, TYPE).number(len(left), JUMP).bits + left + right
        bit = 1 if right else 0
        return Bits().number(2, TYPE).number(2 + bit, MATCH).bits + (left or right)

    return write("")


def asmap(routes: dict[str, int]) -> bytes:
    out = Bits()
    out.bits = program(routes)
    return out.data()


ROUTES = {"20.0.0.0/8": 64_500, "21.5.0.0/16": 7, "2a01:4f8::/32": 24_940, "2a01:500::/24": 33_000}


def test_prefixes_of_both_families_are_found_and_nothing_else() -> None:
    table = Asmap(asmap(ROUTES))
    for text, asn in ROUTES.items():
        first = ip_network(text)[5]
        packed = first.packed if first.version == 6 else IPv6Address(f"::ffff:{first}").packed
        assert table.asn(packed) == asn
    assert table.asn(IPv6Address("::ffff:22.0.0.1").packed) == 0
    assert table.asn(IPv6Address("2a02::1").packed) == 0


def test_a_default_holds_where_nothing_more_special_is_found() -> None:
    out = Bits().number(3, TYPE).number(99, ASN).number(2, TYPE).number(0b101, MATCH).number(0, TYPE).number(5, ASN)
    table = Asmap(out.data())
    assert table.asn(bytes([0b01000000]) + bytes(15)) == 5
    assert table.asn(bytes([0b11000000]) + bytes(15)) == 99


@settings(deadline=None, max_examples=40)
@given(
    st.dictionaries(st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 24)), st.integers(1, 2**24), max_size=6),
    st.integers(0, 2**32 - 1),
)
def test_lookups_agree_with_the_routes(raw: dict[tuple[int, int], int], address: int) -> None:
    routes = {str(ip_network((value, length), strict=False)): asn for (value, length), asn in raw.items()}
    nested = [r for r in routes if any(s != r and ip_network(s).overlaps(ip_network(r)) for s in routes)]
    routes = {text: asn for text, asn in routes.items() if text not in nested}
    if not routes:
        return
    place = ip_address(address)
    expected = next((asn for text, asn in routes.items() if place in ip_network(text)), 0)
    assert Asmap(asmap(routes)).asn(IPv6Address(f"::ffff:{place}").packed) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 40,
        asmap(ROUTES)[:-3],
        asmap(ROUTES) + b"\0",
        asmap(ROUTES)[:-1] + bytes([asmap(ROUTES)[-1] | 0x80]),
        Bits().number(1, TYPE).number(17, JUMP).number(0, TYPE).number(5, ASN).data(),
    ],
    ids=["empty", "endless", "cut", "more", "trailing bits", "jump beyond"],
)
def test_a_file_that_is_no_asmap_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(AsmapError):
        Asmap(data)


@settings(deadline=None, max_examples=300)
@given(st.binary(min_size=1, max_size=64), st.binary(min_size=16, max_size=16))
def test_whatever_is_accepted_can_be_looked_up_without_fault(data: bytes, address: bytes) -> None:
    try:
        table = Asmap(data)
    except AsmapError:
        return
    assert table.asn(address) >= 0


def test_with_an_asmap_two_networks_of_one_owner_are_one_group() -> None:
    grouping = Grouping(Asmap(asmap({"20.1.0.0/16": 5, "21.0.0.0/8": 5, "22.0.0.0/8": 6})))
    assert grouping.of(endpoint("20.1.0.1")) == grouping.of(endpoint("21.9.0.1")) != grouping.of(endpoint("22.9.0.1"))
    assert grouping.of(endpoint("30.1.0.1")) != grouping.of(endpoint("30.2.0.1"))  # unknown: by prefix
    assert grouping.asn(endpoint("21.9.0.1")) == 5
