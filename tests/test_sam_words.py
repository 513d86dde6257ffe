"""The words of SAM: lines both ways, destinations, what is no word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obscura.transport import sam_words
from obscura.transport.sam_words import Destination, PrivateDestination, parse_reply
from sam_fakes import private_destination

VECTORS = json.loads((Path(__file__).parent / "vectors" / "sam.json").read_text())


@pytest.mark.parametrize("known", VECTORS["replies"], ids=lambda known: known["line"][:40])
def test_replies_as_routers_give_them(known: dict[str, object]) -> None:
    reply = parse_reply(str(known["line"]))
    assert (reply.words, reply.values) == (known["words"], known["values"])


@pytest.mark.parametrize("known", VECTORS["destinations"], ids=lambda known: known["host"])
def test_a_destination_made_by_i2pd(known: dict[str, str]) -> None:
    """Made by i2pd 2.45.1; the name is the one that it found it under."""
    destination = Destination.parse(known["public"])
    assert (destination.host, destination.is_ed25519, len(destination.raw)) == (known["host"], True, 391)
    assert destination.text == known["public"]
    private = PrivateDestination.parse(known["private"])
    assert private.public == destination
    assert known["private"] not in repr(private)


def test_lines_that_are_sent() -> None:
    destination = private_destination(1).public
    options = sam_words.session_options(inbound=(3, 2), outbound=(1, 4), lease_set=3, encryption=(4, 0))
    tail = (
        "inbound.length=3 inbound.quantity=2 outbound.length=1 outbound.quantity=4 "
        "i2cp.leaseSetEncType=4,0 i2cp.leaseSetType=3"
    )
    assert sam_words.create("x", "TRANSIENT", options) == (
        f"SESSION CREATE STYLE=STREAM ID=x DESTINATION=TRANSIENT SIGNATURE_TYPE=7 {tail}"
    )
    assert sam_words.create("x", "KEY", {}) == "SESSION CREATE STYLE=STREAM ID=x DESTINATION=KEY"
    assert sam_words.connect("x", destination) == f"STREAM CONNECT ID=x DESTINATION={destination.text} SILENT=false"
    assert sam_words.accept("x") == "STREAM ACCEPT ID=x SILENT=false"
    assert sam_words.lookup("a.i2p") == "NAMING LOOKUP NAME=a.i2p"
    assert sam_words.generate() == "DEST GENERATE SIGNATURE_TYPE=7"


@pytest.mark.parametrize("word", ["a b", "a\nDEST GENERATE", "a\r", "a\x00", "ä"])
def test_no_word_breaks_out_of_its_line(word: str) -> None:
    with pytest.raises(ValueError, match="neither spaces nor control"):
        sam_words.lookup(word)
    with pytest.raises(ValueError, match="neither spaces nor control"):
        sam_words.create("x", word, {})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "AAAA",
        "!" * 524,
        "A" * 523,
        private_destination(1).text,
        private_destination(1).public.text[:-8],
        "A" * 8000,
    ],
)
def test_what_is_no_destination(text: str) -> None:
    with pytest.raises(ValueError, match="I2P"):
        Destination.parse(text)


def test_what_is_no_private_destination() -> None:
    for text in ("", "AAAA", private_destination(1).public.text, private_destination(1, kind=1).text):
        with pytest.raises(ValueError, match=r"I2P|Ed25519"):
            PrivateDestination.parse(text)


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=300))
def test_any_line_is_a_reply_and_nothing_raises(line: str) -> None:
    reply = parse_reply(line)
    assert isinstance(reply.why, str)
    assert len(reply.why) < 1_000


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=600))
def test_any_bytes_are_a_destination_or_refused(raw: bytes) -> None:
    text = Destination(raw).text
    try:
        found = Destination.parse(text)
    except ValueError:
        return
    assert found.raw == raw
