"""Internal addresses of I2P destinations: injective, bounded, kept for those that were dialled, refused from outside."""

from __future__ import annotations

import random
import resource
from ipaddress import IPv6Address
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obscura.daemon.config import Config
from obscura.errors import AddressError, ConfigError
from obscura.node.dialling import may_learn
from obscura.transport import destinations
from obscura.transport.destinations import Destinations
from obscura.transport.sam_words import Destination
from obscura.wire.address import GARLI_CAT, Address, CarrierNumber, Endpoint, Network
from obscura.wire.messages.network import AddrEntry
from sam_fakes import private_destination


def made(seed: int) -> Destination:
    return private_destination(seed).public


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["dial", "come", "go"]), st.integers(0, 7)), max_size=60))
def test_the_map_is_injective_whatever_happens(steps: list[tuple[str, int]]) -> None:
    known = Destinations()
    linked: dict[int, int] = {}
    ever: dict[tuple[str, int], bytes] = {}  # an address never means two destinations, not even one after the other
    for step, seed in steps:
        destination = made(seed)
        if step == "dial":
            address = known.dialled(destination)
        elif step == "come":
            found = known.came(destination)
            assert found is not None
            address = found
            linked[seed] = linked.get(seed, 0) + 1
        elif linked.get(seed):
            known.went(destination)
            linked[seed] -= 1
            continue
        else:
            continue
        assert IPv6Address(address[0]) in GARLI_CAT
        assert ever.setdefault(address, destination.hash) == destination.hash
        assert known.at(address) == destination
    dialled = {seed for step, seed in steps if step == "dial"}
    assert known.counts == (len(dialled), sum(1 for count in linked.values() if count))
    places = [known.dialled(made(seed)) for seed in dialled]
    assert len(set(places)) == len(places)


def test_a_disk_that_is_full_costs_the_record_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "dialled.dat"
    known = Destinations(file)
    first = known.dialled(made(1))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 100, limits[1]))  # a part of the next one fits
    try:
        known.dialled(made(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    third = known.dialled(made(3))
    again = Destinations(file)
    assert again.counts == (2, 0)
    assert [again.dialled(made(seed)) for seed in (1, 3)] == [first, third]


def test_a_start_on_a_full_disk_cuts_off_what_a_crash_left_and_keeps_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "dialled.dat"
    known = Destinations(file)
    places = [known.dialled(made(seed)) for seed in range(3)]
    file.write_bytes(file.read_bytes() + b"half a record")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        again = Destinations(file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [again.dialled(made(seed)) for seed in range(3)] == places
    fourth = again.dialled(made(3))
    assert Destinations(file).dialled(made(3)) == fourth, "what is appended later is not behind the spoilt part"
    assert [found.name for found in tmp_path.iterdir()] == ["dialled.dat"]


def test_dialled_ones_keep_their_address_over_a_restart_and_inbound_ones_do_not(tmp_path: Path) -> None:
    file = tmp_path / "dialled.dat"
    first = Destinations(file)
    places = {seed: first.dialled(made(seed)) for seed in range(5)}
    came = first.came(made(77))
    second = Destinations(file)
    assert {seed: second.dialled(made(seed)) for seed in range(5)} == places
    assert second.counts == (5, 0)
    assert came is not None
    assert second.at(came) is None
    assert second.known(made(3).hash) == made(3)
    assert second.dialled(made(5)) not in places.values()
    assert file.stat().st_mode & 0o777 == 0o600


def test_there_are_never_more_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destinations, "I2P_DIALLED", 4)
    monkeypatch.setattr(destinations, "I2P_INBOUND", 2)
    known = Destinations(tmp_path / "dialled.dat")
    places = [known.dialled(made(seed)) for seed in range(4)]
    known.dialled(made(0))  # used again: the second one is now the oldest
    newest = known.dialled(made(4))
    assert known.counts[0] == 4
    assert known.at(places[1]) is None
    assert known.known(made(1).hash) is None
    assert known.dialled(made(0)) == places[0]
    assert newest not in places
    assert known.came(made(1)) is not None
    assert known.came(made(2)) is not None
    assert known.came(made(3)) is None
    known.went(made(1))
    assert known.came(made(3)) is not None
    again = Destinations(tmp_path / "dialled.dat")
    assert again.counts[0] == 4
    assert len((tmp_path / "dialled.dat").read_bytes()) == 4 * (391 + 18)


def test_however_many_one_run_dialled_the_newest_stay_and_no_number_is_given_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(destinations, "I2P_DIALLED", 4)
    file = tmp_path / "dialled.dat"
    known = Destinations(file)
    places = [known.dialled(made(seed)) for seed in [*range(38), 0, 39]]  # the first one was forgotten meanwhile
    again = Destinations(file)
    assert again.counts[0] == 4
    assert [again.dialled(made(seed)) for seed in (36, 37, 0, 39)] == places[-4:]
    assert again.dialled(made(99)) not in places
    assert file.stat().st_size == 5 * (391 + 18)


@settings(deadline=None, max_examples=60)
@given(cut=st.integers(0, 3 * 409), spoilt=st.integers(0, 3 * 409 - 1), seed=st.integers(0, 255))
def test_a_damaged_file_loses_its_end_and_nothing_else(
    cut: int, spoilt: int, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("damaged") / "dialled.dat"
    whole = Destinations(file)
    places = [whole.dialled(made(number)) for number in range(3)]
    raw = bytearray(file.read_bytes())
    raw[spoilt] ^= random.Random(seed).randrange(1, 256)
    file.write_bytes(raw[:cut])
    left = min(spoilt // 409, cut // 409)
    found = Destinations(file)
    assert found.counts[0] == left
    assert [found.dialled(made(number)) for number in range(left)] == places[:left]
    fresh = made(100)
    place = found.dialled(fresh)
    assert Destinations(file).dialled(fresh) == place


INSIDE = str(GARLI_CAT.network_address + (1 << 64 | 1))


def test_the_range_is_refused_from_the_wire_and_from_configuration() -> None:
    with pytest.raises(AddressError, match=r"inside one node only: use the 52-character \.b32\.i2p"):
        Address.parse(f"obscura://[{INSIDE}]:9733?carrier=tls")
    for key in ("connect", "external_address"):
        with pytest.raises(ConfigError, match="inside one node only"):
            Config(network="dev", **{key: (f"[{INSIDE}]:9733?carrier=tls",)})
    with pytest.raises(ValueError, match="stands for an IPv4, Tor or I2P address"):
        Endpoint(Network.IPV6, IPv6Address(INSIDE).packed, 9733)
    told = AddrEntry(1, 0, Network.IPV6, IPv6Address(INSIDE).packed, 9733, 2, None)
    assert told.endpoint is None
    assert Address.parse("obscura://[fd60:db4d:ddb6::1]:9733?carrier=tls").host == "fd60:db4d:ddb6::1"


def test_i2p_addresses_have_no_port_in_gossip() -> None:
    """Else one destination would fill the book 65,536 times."""
    for port, may in ((0, True), (1, False), (9733, False), (65_535, False)):
        endpoint = Endpoint(Network.I2P, bytes(32), port)
        assert may_learn(endpoint, CarrierNumber.PLAIN, loopback=True) is may
