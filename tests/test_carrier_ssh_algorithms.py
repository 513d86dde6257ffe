"""Carrier ssh has what its lists name: UMAC by the vectors of RFC 4418, every name of the lists, and what follows without Nettle.

Needs libnettle.so.8, which Debian's libnettle8 has.
"""

from __future__ import annotations

import json
import logging
import os
import random
from pathlib import Path

import pytest

from obscura.daemon.ssh_cover import shown, ssh_host
from obscura.morph.ssh_hostkey import verify
from obscura.morph.ssh_kex import METHODS
from obscura.morph.ssh_mac import MACS, lacks_umac, umacs
from obscura.morph.ssh_names import CLIENT_PROPOSAL, EXT_INFO_C, Choice, Proposal, choose, server_proposal
from obscura.morph.ssh_packet import Broken, cipher_of, string
from obscura.wire.address import Address
from ssh_pair import HOST_KEYS

VECTORS = json.loads((Path(__file__).parent / "vectors/umac.json").read_text())
IS_THERE = not lacks_umac()
NAMED = [name for name in CLIENT_PROPOSAL.macs_up if IS_THERE or not name.startswith("umac")]
UMACS = [name for name in NAMED if name.startswith("umac")]
SERVER = server_proposal([name for key in HOST_KEYS for name in key.algorithms])
PLACE = Address.parse("obscura://127.0.0.1:2222?carrier=ssh")


# --- UMAC ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", VECTORS["tags"], ids=[f"{row['message']} x {row['times']}" for row in VECTORS["tags"]])
@pytest.mark.parametrize("name", UMACS)
def test_tags_are_those_of_rfc_4418(name: str, row: dict[str, str]) -> None:
    mac = MACS[name]
    sequence = int.from_bytes(VECTORS["nonce"].encode(), "big")
    tag = mac.keyed(VECTORS["key"].encode())(sequence, row["message"].encode() * int(row["times"]))
    known = bytes.fromhex(row["umac-64" if "umac-64" in name else "umac-96"])
    assert tag[: len(known)] == known
    assert len(tag) == mac.tag_bytes == (8 if "umac-64" in name else 16)


@pytest.mark.parametrize("name", UMACS)
def test_a_tag_depends_on_nothing_but_key_number_and_packet(name: str) -> None:
    """Nettle keeps half a pad for the next number, and counts by itself."""
    keyed = MACS[name].keyed
    used = keyed(b"k" * 16)
    numbers = [0, 1, 2, 3, 3, 1, 0, 7, 6, (1 << 32) - 1, 0]
    tags = [used(number, b"packet" * (number % 5)) for number in numbers]
    assert tags == [keyed(b"k" * 16)(number, b"packet" * (number % 5)) for number in numbers]
    assert len(set(tags)) == len(set(numbers))
    assert keyed(b"K" * 16)(0, b"") != tags[0]


def test_the_library_is_there_or_its_tests_say_that_they_did_not_run() -> None:
    if not IS_THERE:
        assert os.environ.get("TEST_REQUIRE_SHARED_DATA") != "1", "libnettle.so.8 is not there, but it is required"
        print("did not run: the tests of UMAC, since libnettle.so.8 is not there")


@pytest.mark.parametrize("name", [name for name in UMACS if name == "umac-128@openssh.com"])
def test_two_directions_do_not_share_a_context(name: str) -> None:
    keyed = MACS[name].keyed
    one, other = keyed(b"1" * 16), keyed(b"2" * 16)
    before = one(5, b"x")
    other(5, b"y")
    assert one(5, b"x") == before


# --- The lists ----------------------------------------------------------------------------------------------------------


def test_every_exchange_cipher_mac_and_host_key_of_a_server_is_there() -> None:
    assert list(METHODS) == SERVER.kex == [name for name in CLIENT_PROPOSAL.kex if name != EXT_INFO_C]
    assert set(MACS) == set(NAMED) & set(SERVER.macs_up)
    for encryption in SERVER.encryption_up:
        for mac in MACS:
            cipher = cipher_of(encryption, mac, lambda which, size: bytes([which]) * size)
            assert len(cipher.seal(0, bytes(36))) == 36 + cipher.tag
    for key in HOST_KEYS:
        for algorithm in key.algorithms:
            verify(algorithm, key.blob, key.sign(algorithm, b"exchange"), b"exchange")


@pytest.mark.parametrize("point", [b"\x02" + bytes(31) + b"\x01", b"\x04" + bytes(64), b"\x04", b""])
def test_a_host_key_that_is_no_plain_point_of_its_curve_is_wrong(point: bytes) -> None:
    name = "ecdsa-sha2-nistp256"
    with pytest.raises(Broken):
        verify(name, string(name) + string("nistp256") + string(point), string(name) + string(bytes(8)), b"exchange")


def asking(mac: str) -> Proposal:
    """A prober's lists."""
    return CLIENT_PROPOSAL._replace(
        encryption_up=["aes128-ctr"], encryption_down=["aes128-ctr"], macs_up=[mac], macs_down=[mac]
    )


@pytest.mark.parametrize("name", NAMED)
def test_who_insists_on_a_mac_gets_it(name: str) -> None:
    choice = choose(asking(name), SERVER)
    assert isinstance(choice, Choice)
    assert (choice.mac_up, choice.mac_down) == (name, name)


# --- Without the library ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["libnettle.so.none", "libc.so.6"])
def test_a_library_that_is_not_there_or_has_no_umac_gives_none(library: str) -> None:
    assert umacs(library) == {}


def test_with_the_library_nothing_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert ("lacks" in shown(PLACE, ssh_host(PLACE, (), tmp_path, random.Random(1)))) == lacks_umac()
    assert bool(caplog.records) == lacks_umac()


def test_without_the_library_the_operator_is_told_and_the_rest_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in UMACS:
        monkeypatch.delitem(MACS, name)
    with caplog.at_level(logging.WARNING):
        told = shown(PLACE, ssh_host(PLACE, (), tmp_path, random.Random(1)))
    assert "libnettle.so.8 is not there" in told["lacks"]
    assert [record.getMessage() for record in caplog.records] == [f"carrier=ssh: {told['lacks']}"]
    with pytest.raises(Broken, match="no common algorithm"):
        choose(asking("umac-64@openssh.com"), SERVER)
    assert choose(asking("hmac-sha1"), SERVER).mac_up == "hmac-sha1"
    assert choose(CLIENT_PROPOSAL, SERVER).mac_up == ""
