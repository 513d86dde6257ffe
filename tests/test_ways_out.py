"""The ways out of a node: who may be dialled how, what a configuration of networks amounts to, and what contradicts itself."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from obscura.cli import root
from obscura.cli.frame import Globals
from obscura.daemon.config import Config
from obscura.daemon.i2p_settings import I2pSettings
from obscura.daemon.ways import TorSettings
from obscura.errors import AddressError, ConfigError
from obscura.node.dialable import Way, Ways, check_dialable, face_of
from obscura.node.face import Face
from obscura.wire.address import Address, Endpoint, Network
from sam_fakes import private_destination

KEY = "a" * 52
ONION_PLACE = Endpoint(Network.TORV3, hashlib.sha256(b"nobody").digest(), 19733)
ONION = f"obscura://{ONION_PLACE}"
GARLIC_NAME = f"obscura://{private_destination(99).public.host}:0"
EXIT = Ways(clearnet=Way.PROXY, onion=True)
GARLIC = Ways(clearnet=Way.CLOSED, i2p=True)
DIALS = [
    (ONION, Ways(), "tor is not used"),
    (ONION, EXIT, None),
    (f"obscura://{KEY}@{ONION_PLACE}", EXIT, None),
    (f"obscura://{KEY}@{ONION_PLACE}?carrier=tls", EXIT, "are reached with carrier=plain"),
    (f"obscura://{KEY}@203.0.113.5:443?carrier=tls", EXIT, None),
    (f"obscura://{KEY}@node.example:443?carrier=tls", EXIT, None),
    (f"obscura://{KEY}@node.example:443?carrier=tls", Ways(), "names are not looked up"),
    ("obscura://203.0.113.5:443?carrier=tls", EXIT, "needs its key"),
    (f"obscura://{KEY}@203.0.113.5:80?carrier=http", EXIT, "needs carrier=tls"),
    (f"obscura://{KEY}@203.0.113.5:53?carrier=dns", EXIT, "needs carrier=tls"),
    ("obscura://203.0.113.5:443", EXIT, "carrier plain is for loopback"),
    ("obscura://127.0.0.1:19733", EXIT, "nothing is dialled directly"),
    ("obscura://127.0.0.1:19733?carrier=bare", EXIT, "nothing is dialled directly"),
    ("obscura://127.0.0.1:19733", Ways(onion=True), None),
    (GARLIC_NAME, Ways(), "I2P is not used"),
    (GARLIC_NAME, GARLIC, None),
    (GARLIC_NAME.replace("//", f"//{KEY}@"), GARLIC, None),
    ("obscura://name.i2p:0", GARLIC, None),
    ("obscura://name.i2p:80", GARLIC, "I2P has no ports"),
    (f"{GARLIC_NAME}?carrier=tls", GARLIC, "are reached with carrier=plain"),
    (f"{GARLIC_NAME}19", GARLIC, "I2P has no ports"),
    (f"obscura://{KEY}@203.0.113.5:443?carrier=tls", GARLIC, "only-net leaves clearnet out"),
    (f"obscura://{KEY}@node.example:443?carrier=tls", GARLIC, "only-net leaves clearnet out"),
    ("obscura://127.0.0.1:19733", GARLIC, "only-net leaves clearnet out"),
    (ONION, GARLIC, "tor is not used"),
    ("obscura://127.0.0.1:19733", Ways(i2p=True), None),
]


@pytest.mark.parametrize(("text", "ways", "why"), DIALS)
def test_who_may_dial_what(text: str, ways: Ways, why: str | None) -> None:
    address = Address.parse(text)
    if why is None:
        check_dialable(address, face_of(address), ways)
        return
    with pytest.raises(AddressError, match=why):
        check_dialable(address, face_of(address), ways)


@pytest.mark.parametrize("face", [Face.CLEARNET, Face.ONION])
def test_an_i2p_address_learnt_elsewhere_is_not_dialled_there(face: Face) -> None:
    with pytest.raises(AddressError, match=r"own network only|carrier plain is for"):
        check_dialable(Address.parse(GARLIC_NAME), face, Ways(onion=True, i2p=True))


@pytest.mark.parametrize("face", [Face.ONION, Face.I2P])
def test_a_clearnet_address_is_not_dialled_as_another_face(face: Face) -> None:
    """Its socket would leave by clearnet, and the link would show what that other face shows."""
    for text in ("obscura://203.0.113.5:443?carrier=plain", "obscura://203.0.113.5:443?carrier=tls"):
        with pytest.raises(AddressError, match="own network only"):
            check_dialable(Address.parse(text), face, Ways(onion=True, i2p=True))


PLANS: list[tuple[dict[str, Any], set[Face], Way, bool, bool]] = [
    ({}, {Face.CLEARNET}, Way.DIRECT, False, True),
    ({"tor": "auto"}, {Face.CLEARNET, Face.ONION}, Way.DIRECT, True, False),
    ({"tor": "managed", "only_net": ("tor",)}, {Face.ONION}, Way.PROXY, True, False),
    ({"tor": "auto", "only_net": ("clearnet",)}, {Face.CLEARNET}, Way.DIRECT, False, True),
    ({"tor": "auto", "only_net": ("clearnet",), "proxy": "tor"}, {Face.CLEARNET}, Way.PROXY, True, False),
    ({"tor": "auto", "proxy": "tor"}, {Face.CLEARNET, Face.ONION}, Way.PROXY, True, False),
    ({"proxy": "127.0.0.1:1080"}, {Face.CLEARNET}, Way.PROXY, True, False),
    ({"i2p": "auto"}, {Face.CLEARNET, Face.I2P}, Way.DIRECT, False, True),
    ({"i2p": "auto", "only_net": ("i2p",)}, {Face.I2P}, Way.CLOSED, False, False),
    ({"i2p": "auto", "tor": "auto", "only_net": ("i2p",)}, {Face.I2P}, Way.CLOSED, False, False),
    ({"i2p": "auto", "tor": "auto", "only_net": ("i2p", "tor")}, {Face.I2P, Face.ONION}, Way.PROXY, True, False),
    ({"i2p": "auto", "tor": "auto"}, set(Face), Way.DIRECT, True, False),
    ({"i2p": "auto", "only_net": ("clearnet",)}, {Face.CLEARNET}, Way.DIRECT, False, True),
    ({"i2p": "auto", "proxy": "127.0.0.1:1080"}, {Face.CLEARNET, Face.I2P}, Way.PROXY, True, False),
]


@pytest.mark.parametrize(("keys", "faces", "clearnet", "hides_lookups", "asks"), PLANS)
def test_what_a_configuration_amounts_to(
    keys: dict[str, Any], faces: set[Face], clearnet: Way, hides_lookups: bool, asks: bool
) -> None:
    plan = Config(network="dev", **keys).plan
    assert (set(plan.faces), plan.ways.clearnet) == (faces, clearnet)
    assert (plan.hides_lookups, plan.may_ask_directly) == (hides_lookups, asks)
    assert plan.uses_i2p == (Face.I2P in faces)


CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    ({"only_net": ("tor",)}, 'needs tor: set tor = "auto"'),
    ({"proxy": "tor"}, 'needs tor: set tor = "auto"'),
    ({"only_net": ("onion",)}, "'onion' is no network"),
    ({"only_net": ("garlic",)}, "'garlic' is no network: use clearnet, tor or i2p"),
    ({"proxy": "proxy.example:1080"}, "names are not looked up"),
    ({"tor": "auto", "only_net": ("tor",), "proxy": "127.0.0.1:1080"}, "remove one of them"),
    (
        {"tor": "auto", "only_net": ("tor",), "listen": ("0.0.0.0:9733?carrier=tls",)},
        "listens on 127.0.0.1 and ::1 only",
    ),
    ({"tor": "auto", "only_net": ("tor",), "external_address": ("203.0.113.5:9733?carrier=tls",)}, "must not be told"),
    ({"tor_daemon": TorSettings(control="tor.example:9051")}, "tor-daemon.control = tor.example:9051: give IP:PORT"),
    ({"tor_daemon": TorSettings(socks="9050")}, "tor-daemon.socks = 9050: give IP:PORT"),
    ({"tor_daemon": TorSettings(clients=("A" * 52,))}, "not all zero"),
    ({"tor_daemon": TorSettings(client_keys=("node.example:" + KEY,))}, "an entry is NAME.onion:KEY"),
    ({"only_net": ("i2p",)}, 'needs I2P: set i2p = "auto"'),
    ({"i2p": "managed"}, "i2p"),
    ({"i2p": "auto", "only_net": ("i2p",), "proxy": "tor", "tor": "auto"}, "remove one of them"),
    ({"i2p": "auto", "only_net": ("i2p",), "proxy": "127.0.0.1:1080"}, "remove one of them"),
    ({"i2p": "auto", "only_net": ("i2p",), "listen": ("0.0.0.0:9733?carrier=tls",)}, "127.0.0.1 and ::1 only"),
    ({"i2p": "auto", "only_net": ("i2p",), "external_address": ("203.0.113.5:9733?carrier=tls",)}, "must not be told"),
    ({"i2p_router": I2pSettings(sam="router.example:7656")}, "names are not looked up"),
    ({"i2p_router": I2pSettings(sam="7656")}, "give IP:PORT"),
    ({"i2p_router": I2pSettings(sam="198.51.101.7:7656")}, "SAM is not encrypted"),
    ({"i2p_router": I2pSettings(lease_set_type=5)}, "lease-set-type"),
    ({"i2p_router": I2pSettings(lease_set_encryption=(7,))}, "lease-set-encryption"),
]


@pytest.mark.parametrize(("keys", "why"), CONTRADICTIONS)
def test_what_contradicts_itself_is_refused(keys: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Config(network="dev", **keys)


def test_tunnels_have_seven_hops_at_most() -> None:
    with pytest.raises(ConfigError, match="inbound"):
        I2pSettings(inbound_length=8)


def test_a_secret_key_is_not_repeated_in_an_error() -> None:
    secret = "b" * 51
    with pytest.raises(ConfigError) as caught:
        Config(network="dev", tor_daemon=TorSettings(client_keys=(f"{ONION_PLACE.host_text}:{secret}",)))
    assert secret not in str(caught.value)


@pytest.mark.parametrize(
    "keys", [{"TOR": "auto"}, {"PROXY": "127.0.0.1:1080"}, {"I2P": "auto", "ONLY_NET": "i2p"}], ids=" ".join
)
def test_seeds_are_not_asked_directly_where_another_way_is_set(
    keys: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in keys.items():
        monkeypatch.setenv(f"OBSCURA_{key}", value)
    words = ["--network", "dev", "--data-dir", str(tmp_path), "seeds", "ask"]
    result = CliRunner().invoke(root, words, obj=Globals())
    assert result.exit_code
    assert "this would ask directly" in str(result.exception) + result.output
