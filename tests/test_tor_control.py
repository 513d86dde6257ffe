"""Tor's control protocol: authentication in all its forms, onion services, and answers that no tor gives."""

from __future__ import annotations

import asyncio
import base64
import os
import random
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obscura.daemon.keys import KeyStore
from obscura.daemon.ways import TorSettings
from obscura.transport.tor import TorControl, TorFault
from obscura.transport.tor_words import (
    client_key,
    endpoint_of,
    is_private_key,
    progress_of,
    quoted,
    unquoted,
    x25519_key,
)
from obscura.wire.address import Address
from tor_fakes import FakeTor, local

DEADLINE_S = 20.0
COOKIE = bytes(range(32))


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await scenario()

    asyncio.run(bounded())


def cookie(folder: Path, content: bytes = COOKIE, name: str = "control_auth_cookie") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def talk(tor: FakeTor, talk_to: Callable[[TorControl], Awaitable[None]], password: str | None = None) -> None:
    async def scenario() -> None:
        async with tor.running(), TorControl.open(tor.place, password=password) as control:
            await talk_to(control)

    run(scenario)


async def nothing(control: TorControl) -> None:
    """It was enough to be admitted."""


def refused(tor: FakeTor, password: str | None = None) -> str:
    """The sentence with which authentication fails."""
    with pytest.raises(TorFault) as caught:
        talk(tor, nothing, password)
    return str(caught.value)


# --- Authentication -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("methods", ["NULL", "SAFECOOKIE", "COOKIE,SAFECOOKIE", "COOKIE,SAFECOOKIE,HASHEDPASSWORD"])
@pytest.mark.parametrize("name", ["control_auth_cookie", 'a "quoted" \\ name'])
def test_every_way_to_be_admitted(methods: str, name: str, tmp_path: Path) -> None:
    tor = FakeTor(cookie(tmp_path, name=name), methods=methods)
    talk(tor, nothing)
    has_proved = any(line.startswith("AUTHCHALLENGE SAFECOOKIE ") for line in tor.asked)
    assert has_proved == ("SAFECOOKIE" in methods)  # the better one where both are offered
    if has_proved:
        assert COOKIE.hex() not in " ".join(tor.asked)


def test_the_cookie_itself_goes_through_a_unix_socket(tmp_path: Path) -> None:
    tor, path = FakeTor(cookie(tmp_path), methods="COOKIE"), tmp_path / "control"

    async def scenario() -> None:
        async with tor.running(path=path), TorControl.open(path):
            pass

    run(scenario)
    assert f"AUTHENTICATE {COOKIE.hex()}" in tor.asked


def test_a_password_with_quotes_goes_in_as_it_is(tmp_path: Path) -> None:
    tor = FakeTor(tmp_path / "none", methods="HASHEDPASSWORD", password='a\\"b')  # as it must be written
    talk(tor, nothing, 'a"b')
    assert tor.asked[-1] == 'AUTHENTICATE "a\\"b"'


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    good = cookie(tmp_path)
    assert "the cookie is wrong" in refused(
        FakeTor(good, answers=lambda line: "515 Authentication failed" if line.startswith("AUTHENTICATE") else None)
    )
    assert "wants the cookie itself" in refused(FakeTor(good, methods="COOKIE"))
    assert "does not know tor's cookie" in refused(FakeTor(good, methods="SAFECOOKIE", secret=bytes(32)))
    assert "the password is wrong" in refused(FakeTor(good, methods="HASHEDPASSWORD", password="x"), "y")
    assert "set tor-daemon.password" in refused(FakeTor(good, methods="HASHEDPASSWORD"))
    assert "cannot be read: no such file" in refused(FakeTor(tmp_path / "absent"))
    assert "is it tor?" in refused(FakeTor(good, answers=lambda line: "250 OK"))


def test_someone_who_does_not_know_the_cookie_never_sees_a_proof_of_it(tmp_path: Path) -> None:
    tor = FakeTor(cookie(tmp_path), secret=bytes(32))
    refused(tor)
    assert not any(line.startswith("AUTHENTICATE") for line in tor.asked)


def test_no_file_is_given_away_to_whoever_listens_in_place_of_tor(tmp_path: Path) -> None:
    """A program of another user has the port while tor is down, and names a file of ours: a channel key has 32 bytes too."""
    keys = KeyStore(tmp_path, random.Random(1))
    place = Address(None, "127.0.0.1", 9733)
    secret = keys.of(place).secret()
    (file,) = tmp_path.iterdir()
    assert file.read_bytes() == secret
    tor = FakeTor(file, methods="COOKIE", secret=secret)
    refused(tor)
    assert secret.hex() not in " ".join(tor.asked)
    assert not any(line.startswith("AUTHENTICATE") for line in tor.asked)


@pytest.mark.parametrize("size", [0, 31, 33, 4_096])
def test_nothing_is_proved_of_a_file_that_is_no_cookie(size: int, tmp_path: Path) -> None:
    tor = FakeTor(cookie(tmp_path, b"s" * size))
    assert "it is no cookie of tor" in refused(tor)
    assert not any(line.startswith("AUTH") for line in tor.asked)


def test_a_pipe_in_place_of_the_cookie_holds_nothing_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "cookie")
    assert "it is no cookie of tor" in refused(FakeTor(tmp_path / "cookie"))


def test_a_tor_whose_machine_lost_its_power_is_missed(tmp_path: Path) -> None:
    """It sends no end, and an onion service is made anew only once the connection to the old one is seen to be lost."""

    async def scenario(control: TorControl) -> None:
        assert control._writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)

    talk(FakeTor(cookie(tmp_path)), scenario)


def test_a_directory_in_place_of_the_cookie_costs_no_descriptor(tmp_path: Path) -> None:
    """Else whoever has the port of a tor that is down uses them all up, one with each try."""
    assert "cannot be read: is a directory" in refused(FakeTor(tmp_path))
    kept = [entry for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    assert str(tmp_path) not in [os.path.realpath(entry) for entry in kept]


def test_the_usual_places_begin_with_the_one_where_only_tor_can_be() -> None:
    socket, port = TorSettings().control_places()
    assert socket == Path("/run/tor/control")
    assert str(port) == "127.0.0.1:9051"


@pytest.mark.parametrize(
    ("named", "taken"),
    [("127.0.0.1:9150", "127.0.0.1:9150"), ("0.0.0.0:9150", "127.0.0.1:9150"), ("192.0.2.1:9150", None)],
)
@pytest.mark.parametrize("by_socket", [False, True])
def test_socks_ports_elsewhere_are_not_taken(named: str, taken: str | None, by_socket: bool, tmp_path: Path) -> None:
    """Whoever is taken for tor would else hear of everything that is dialled, from anywhere."""
    tor = FakeTor(cookie(tmp_path), socks=endpoint_of(named))
    path = tmp_path / "control" if by_socket else None

    async def scenario() -> None:
        async with tor.running(path=path), TorControl.open(path or tor.place) as control:
            assert [str(place) for place in await control.socks()] == ([] if taken is None else [taken])

    run(scenario)


def test_nobody_listens(tmp_path: Path) -> None:
    async def scenario() -> None:
        for place in (local(1), tmp_path / "socket"):
            with pytest.raises(TorFault, match=r"no tor listens for control at .*: is ControlPort set"):
                async with TorControl.open(place):
                    pass

    run(scenario)


# --- Onion services -------------------------------------------------------------------------------------------------


def test_a_new_service_gives_its_key_and_the_key_gives_the_same_service(tmp_path: Path) -> None:
    tor = FakeTor(cookie(tmp_path))

    async def publish(control: TorControl) -> None:
        made = await control.add_onion(19733, local(4000))
        assert is_private_key(made.private_key)
        assert "NEW:ED25519-V3 PoWDefensesEnabled=1" in tor.asked[-1]
        assert tor.asked[-1].endswith("Port=19733,127.0.0.1:4000")
        assert await control.add_onion(19733, local(4001), made.private_key) == made
        await control.remove_onion(made.name)
        assert tor.asked[-1] == f"DEL_ONION {made.name}"

    talk(tor, publish)


def test_a_tor_without_proof_of_work_publishes_all_the_same(tmp_path: Path) -> None:
    tor = FakeTor(cookie(tmp_path), knows_pow=False)

    async def publish(control: TorControl) -> None:
        await control.add_onion(19733, local(4000))
        assert "PoW" not in tor.asked[-1]

    talk(tor, publish)


def test_only_those_with_a_key_are_admitted(tmp_path: Path) -> None:
    tor = FakeTor(cookie(tmp_path))
    key = bytes(range(1, 33))
    word = base64.b32encode(key).decode().rstrip("=")

    async def publish(control: TorControl) -> None:
        await control.add_onion(19733, local(4000), clients=[key])
        assert "Flags=V3Auth" in tor.asked[-1]
        assert f"ClientAuthV3={word}" in tor.asked[-1]
        await control.admit_to("a" * 56 + ".onion", key)
        assert tor.asked[-1] == f"ONION_CLIENT_AUTH_ADD {'a' * 56} x25519:{base64.b64encode(key).decode()}"
        asked = len(tor.asked)
        for bad in (bytes(32), key[:31], key + b"x"):  # zeros make tor abort
            with pytest.raises(ValueError, match="not all zero"):
                await control.add_onion(19733, local(4000), clients=[bad])
            with pytest.raises(ValueError, match="not all zero"):
                await control.admit_to("a" * 56, bad)
        assert len(tor.asked) == asked

    talk(tor, publish)


# --- Answers --------------------------------------------------------------------------------------------------------


def test_a_refusal_is_in_tors_own_words(tmp_path: Path) -> None:
    tor = FakeTor(cookie(tmp_path))

    async def ask(control: TorControl) -> None:
        with pytest.raises(TorFault, match='Unrecognized key "nonsense"') as caught:
            await control.get("nonsense")
        assert caught.value.status == 552
        with pytest.raises(ValueError, match="one line"):
            await control.ask("GETINFO version\r\nSIGNAL HALT")

    talk(tor, ask)


def test_data_blocks_and_events_between_answers(tmp_path: Path) -> None:
    streams = (
        "250+stream-status=\n1 SUCCEEDED 7 a.onion:1\n2 SUCCEEDED 8 b.onion:1\n3 NEW 0 c.onion:1\n..dot\n.\n250 OK"
    )
    event = "650+HS_DESC_CONTENT x\nline\n.\n650 OK\n"
    told: list[str] = []
    tor = FakeTor(cookie(tmp_path), answers=lambda line: event + streams if line == "GETINFO stream-status" else None)

    async def scenario() -> None:
        async with tor.running(), TorControl.open(tor.place, on_event=told.append) as control:
            assert await control.circuits_by_target() == {"a.onion:1": {"7"}, "b.onion:1": {"8"}}
            assert (await control.get("stream-status")).splitlines()[-1] == ".dot"
            assert await control.bootstrapped() == (100, "Done")

    run(scenario)
    assert told == ["HS_DESC_CONTENT x\nline\nOK"] * 2


@pytest.mark.parametrize("answer", ["HTTP/1.1 400 Bad Request", "", "250", "250?what", "x" * 70_000, "25"])
def test_what_is_no_control_port_ends_in_a_sentence(answer: str, tmp_path: Path) -> None:
    assert "tor" in refused(FakeTor(cookie(tmp_path), answers=lambda line: answer or "\n"))


@pytest.mark.parametrize("line", ["y" * 60_000, ""])
def test_an_answer_has_an_end(line: str, tmp_path: Path) -> None:
    """Neither many data blocks nor many lines of one may fill the memory."""
    lines = f"{line}\n" * 150
    long = f"250+a=\n{lines}.\n" * (80 if not line else 1) + "250 OK"
    tor = FakeTor(cookie(tmp_path), answers=lambda asked: long if asked == "GETINFO a" else None)

    async def ask(control: TorControl) -> None:
        with pytest.raises(TorFault, match="is gone"):
            await control.get("a")

    talk(tor, ask)


def test_an_answer_to_nothing_is_not_kept_for_the_next_question(tmp_path: Path) -> None:
    def answers(line: str) -> str | None:
        return "250 OK\n250 OK\n250 OK" if line.startswith("AUTHENTICATE") else None

    async def ask(control: TorControl) -> None:
        with pytest.raises(TorFault, match="is gone"):
            await control.bootstrapped()
        assert control.closed.is_set()

    talk(FakeTor(cookie(tmp_path), answers=answers), ask)


def test_who_is_cancelled_leaves_its_answer_to_nobody(tmp_path: Path) -> None:
    """Such as by a time limit around the question: the next one must not be told what was asked before."""
    asked = asyncio.Event()

    def answers(line: str) -> str | None:
        if line == "GETINFO late":
            asked.set()
            return "250-late=one\n250 OK"
        return "250-next=two\n250 OK" if line == "GETINFO next" else None

    async def ask(control: TorControl) -> None:
        for _ in range(2):
            late = asyncio.ensure_future(control.get("late"))
            await asyncio.sleep(0)
            late.cancel()
            with pytest.raises(asyncio.CancelledError):
                await late
        await asked.wait()
        assert [await control.get("next") for _ in range(3)] == ["two"] * 3
        assert not control.closed.is_set()

    talk(FakeTor(cookie(tmp_path), answers=answers), ask)


def test_a_connection_that_ends_is_noticed_by_who_waits_and_who_asks_later(tmp_path: Path) -> None:
    tor = FakeTor(cookie(tmp_path))

    async def scenario() -> None:
        async with tor.running(), TorControl.open(tor.place) as control:
            tor.hang_up()
            await control.closed.wait()
            for _ in range(2):
                with pytest.raises(TorFault, match="is gone"):
                    await control.ask("GETINFO version")

    run(scenario)


# --- Words ----------------------------------------------------------------------------------------------------------


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
@settings(deadline=None, max_examples=100)
def test_quoting_is_undone_by_unquoting(text: str) -> None:
    assert unquoted(quoted(text)) == text


def test_words() -> None:
    assert unquoted('"\\141\\n\\t"') == "a\n\t"
    assert unquoted("plain") == "plain"
    assert progress_of('NOTICE BOOTSTRAP PROGRESS=50 TAG=x SUMMARY="Loading \\"it\\""') == (50, 'Loading "it"')
    assert progress_of("nonsense") == (0, "")
    for text in ("", "9050", "tor.example:9050", "127.0.0.1:0", "127.0.0.1:70000", "unix:/x", f"{'a' * 56}:1"):
        assert endpoint_of(text) is None, text
    assert str(endpoint_of("[::1]:9050")) == "[::1]:9050"
    assert not is_private_key("RSA1024:" + base64.b64encode(bytes(64)).decode())
    assert not is_private_key("ED25519-V3:" + base64.b64encode(bytes(63)).decode())
    assert not is_private_key("ED25519-V3:?")


def test_client_keys_as_tors_own_files_have_them() -> None:
    key = bytes(range(32))
    word = base64.b32encode(key).decode().rstrip("=")
    for text in (word, word.lower(), f"descriptor:x25519:{word}", f" {word} "):
        assert client_key(text) == key
    for bad in ("", "a" * 51, "1" * 52, "A" * 52):
        with pytest.raises(ValueError):
            client_key(bad)
    assert x25519_key(key) == key
