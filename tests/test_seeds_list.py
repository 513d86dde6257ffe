"""Signed lists of seeds: what a reader takes, and everything that somebody without the key may try."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from obscura.errors import UserError
from obscura.limits import SEED_TEXT_BYTES
from obscura.node.seed_list import Refusal, SeedList, newest, sign, txt_strings, verify, zone_line
from obscura.wire.address import Address

VECTORS = json.loads((Path(__file__).parent / "vectors" / "seed_list.json").read_text())
SECRET = bytes.fromhex(VECTORS["secret"])
PUBLIC = bytes.fromhex(VECTORS["public"])
NETWORK = bytes.fromhex(VECTORS["network_id"])
NAME = VECTORS["name"]
NOW = VECTORS["made"]
DAY = 86_400


def address(number: int) -> Address:
    return Address.parse(f"obscura://{'a' * 52}@10.1.{number >> 8}.{number & 255}:9733?carrier=tls")


def made(count: int = 3, sequence: int = 7, expires: int = NOW + DAY, secret: bytes = SECRET) -> list[str]:
    addresses = tuple(address(number) for number in range(count))
    return sign(SeedList(sequence, expires, addresses), NAME, NETWORK, secret, NOW)


def read(text: str, name: str = NAME, network: bytes = NETWORK, public: bytes = PUBLIC, now: int = NOW):
    return verify(text.encode(), name, network, public, now)


@pytest.mark.parametrize("case", VECTORS["lists"], ids=lambda case: case["what"])
def test_vectors_both_ways(case: dict) -> None:
    seeds = SeedList(case["sequence"], case["expires"], tuple(Address.parse(text) for text in case["addresses"]))
    assert sign(seeds, NAME, NETWORK, SECRET, NOW) == case["texts"]
    parts = [read(text) for text in case["texts"]]
    assert newest(parts, 0) == seeds


@pytest.mark.parametrize("case", VECTORS["refused"], ids=lambda case: case["what"])
def test_vectors_that_are_refused(case: dict) -> None:
    assert read(case["text"]) is Refusal[case["refusal"]]


def test_the_public_key_of_the_vectors_is_that_of_the_secret() -> None:
    assert Ed25519PrivateKey.from_private_bytes(SECRET).public_key().public_bytes_raw() == PUBLIC


def test_a_long_list_is_several_texts_that_together_are_the_list() -> None:
    texts = made(60)
    assert len(texts) > 5
    assert all(len(text) <= SEED_TEXT_BYTES for text in texts)
    whole = newest([read(text) for text in reversed(texts)], 0)
    assert isinstance(whole, SeedList)
    assert set(whole.addresses) == {address(number) for number in range(60)}


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("another name", {"name": "other.example"}),
        ("another network", {"network": bytes(32)}),
        ("another key", {"public": Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw()}),
    ],
)
def test_a_list_serves_for_its_own_network_name_and_key_only(what: str, change: dict) -> None:
    (text,) = made()
    assert isinstance(read(text), SeedList)
    assert read(text, **change) is Refusal.FORGED


def test_a_list_ends_at_its_second() -> None:
    (text,) = made(expires=NOW + 10)
    assert isinstance(read(text, now=NOW + 9), SeedList)
    assert read(text, now=NOW + 10) is Refusal.EXPIRED


def test_of_several_lists_the_newest_counts_and_none_that_is_older_than_one_seen() -> None:
    old, new = read(*made(5, sequence=3)), read(*made(2, sequence=4))
    found = newest([old, new], 0)
    assert isinstance(found, SeedList)
    assert (found.sequence, len(found.addresses)) == (4, 2)
    assert newest([old], 4) is Refusal.OLD
    assert newest([new], 4) == new


@pytest.mark.parametrize(
    "bad",
    ["obscura://seed.example.org:9733?carrier=tls", f"obscura://{'a' * 52}@127.0.0.1:9733?carrier=bare"],
)
def test_names_and_plaintext_are_neither_signed_nor_taken(bad: str) -> None:
    with pytest.raises(UserError, match="a seed is"):
        sign(SeedList(1, NOW + DAY, (Address.parse(bad),)), NAME, NETWORK, SECRET, NOW)


@pytest.mark.parametrize("expires", [NOW, NOW - 1, NOW + 367 * DAY])
def test_a_list_that_nodes_would_not_take_or_that_stays_for_years_is_not_signed(expires: int) -> None:
    with pytest.raises(UserError, match="valid"):
        made(expires=expires)


def test_an_empty_list_is_not_signed() -> None:
    with pytest.raises(UserError, match="at least one"):
        made(0)


def test_the_strings_of_a_record_join_to_the_text_and_fit_a_zone_file() -> None:
    text = made(9)[0]
    strings = txt_strings(text)
    assert "".join(strings) == text
    assert all(1 <= len(part) <= 255 for part in strings)
    line = zone_line(NAME, 60, text)
    assert line.startswith(f'{NAME}. 60 IN TXT "obscura-seeds/1 7 ')
    assert "\\" not in line
    assert "'" not in line
    assert line.count('"') == 2 * len(strings)


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_no_changed_byte_is_taken(data: st.DataObject) -> None:
    (text,) = made()
    raw = bytearray(text.encode())
    at = data.draw(st.integers(0, len(raw) - 2))  # the last character of base64 has unused bits
    raw[at] ^= data.draw(st.integers(1, 255))
    assert verify(bytes(raw), NAME, NETWORK, PUBLIC, NOW) in (Refusal.FOREIGN, Refusal.FORGED)


@given(st.binary(max_size=300), st.booleans())
@settings(deadline=None, max_examples=150)
def test_any_bytes_are_refused_quietly(junk: bytes, marked: bool) -> None:
    refusal = verify(b"obscura-seeds/1 " * marked + junk, NAME, NETWORK, PUBLIC, NOW)
    assert refusal is (Refusal.FORGED if marked else Refusal.FOREIGN)
