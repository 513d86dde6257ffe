"""Links over TCP between the second implementation and a running node, and what the node shows to an attacker.

An attacker here is given even more than on the wire: the private ephemeral key of the flight that is tampered with.
With it an answer can be opened, so that it is known, not guessed, what the node said.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from second_implementation import channel, frames, link
from second_implementation.node_process import NodeProcess, exhaust, is_quiet, key_text

NETWORKS = json.loads((Path(__file__).parent / "vectors/ledger/networks.json").read_text())["networks"]
DEV = channel.network_id("dev", bytes.fromhex(NETWORKS[0]["genesis_id"])[::-1])
PIECES = (1, 7, 1 << 20)
PING = frames.encode("ping", nonce="1")
STATIC = bytes(range(32))
HOSTS = {bytes([127, 7, number, 9]).hex() for number in range(40)}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path_factory.mktemp("node"), "--allow-unauthenticated") as process:
        with socket.create_server(("127.0.0.1", 0)) as listening, dialled(process, listening, STATIC) as stream:
            listening.settimeout(20)
            to_node = link.respond(stream, DEV, STATIC, channel.ReplayCache())
            to_node.handshake()
            tell_addresses(to_node)
            to_node.end()
        yield process


@pytest.fixture(scope="module")
def unlisted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A node with NX off."""
    with NodeProcess(tmp_path_factory.mktemp("unlisted"), "--unlisted") as process:
        yield process


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(20)
        yield listening


@contextmanager
def dialled(
    node: NodeProcess, server: socket.socket, secret: bytes, *, key: bool = True, piece: int = 1 << 20
) -> Iterator[link.Stream]:
    """The connection of a node that is told to connect, with `key` to the static key of `secret`."""
    told = f"{key_text(channel.public_of(secret))}@" if key else ""
    with node.connecting(f"obscura://{told}127.0.0.1:{server.getsockname()[1]}"):
        connection, _ = server.accept()
        with connection:
            yield link.Stream(connection, piece)


def opened_link(node: NodeProcess, *, key: bool = True, piece: int = 1 << 20) -> link.Link:
    return link.initiate(node.dial(piece), link.initiator(DEV, node.public if key else b""))


def established(node: NodeProcess) -> link.Link:
    to_node = opened_link(node)
    to_node.handshake()
    return to_node


def tell_addresses(to_node: link.Link) -> None:
    """A node asks the peer that it has dialled; on loopback it keeps addresses of loopback."""
    entry = {"time": int(time.time()) - 600, "services": "3", "network": 1, "port": 9733, "carrier": 0, "key": None}
    to_node.receive_until("getaddr")
    to_node.send("addr", entries=[{**entry, "host": host} for host in sorted(HOSTS)])


def let_node_act(node: NodeProcess) -> None:
    """Returns when the node has dealt with everything that it had received: a whole link came and went after it."""
    established(node).end()


def flipped(data: bytes, bit: int) -> bytes:
    """`bit` counts from the first byte's lowest, or backwards from the end."""
    at, bit = divmod(bit % (8 * len(data)), 8)
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def peer_of(node: NodeProcess, to_node: link.Link) -> dict[str, object]:
    session = to_node.opened.h.hex()
    (peer,) = [peer for peer in node.ask("peers") if peer["session_id"] == session]
    return dict(peer)


# Links


def use(to_node: link.Link) -> None:
    """Ping and pong over a change of keys between the halves of a frame."""
    to_node.send_record(b"")
    to_node.send_record(PING[:11], channel.REKEY)
    to_node.send_record(PING[11:])
    assert to_node.receive_until("pong") == {"nonce": "1"}


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("key", [True, False], ids=["NK", "NX"])
def test_node_answers_a_second_implementation(node: NodeProcess, key: bool, piece: int) -> None:
    to_node = opened_link(node, key=key, piece=piece)
    version = to_node.handshake()
    assert version["protocol_version"] == 1
    assert version["feature_flags"] & link.FEATURES == link.FEATURES
    assert version["privacy_feature_flags"] & link.PRIVACY_FEATURES == link.PRIVACY_FEATURES
    assert peer_of(node, to_node)["pattern"] == ("NK" if key else "NX")
    use(to_node)
    to_node.send("getaddr")
    answer: set[str] = set()
    while not answer & HOSTS:
        answer = {entry["host"] for entry in to_node.receive_until("addr")["entries"]}
    to_node.end()


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("key", [True, False], ids=["NK", "NX"])
def test_node_dials_a_second_implementation(node: NodeProcess, server: socket.socket, key: bool, piece: int) -> None:
    secret = os.urandom(32)
    with dialled(node, server, secret, key=key, piece=piece) as stream:
        to_node = link.respond(stream, DEV, secret, channel.ReplayCache())
        assert to_node.opened.pattern == ("NK" if key else "NX")
        to_node.handshake()
        tell_addresses(to_node)
        use(to_node)
        assert node.ask("status")["known_addresses"] >= len(HOSTS) - 5  # two may meet in one cell of the book
        node.ask("disconnect", str(peer_of(node, to_node)["peer"]))
        with pytest.raises(link.EndOfStreamError):
            to_node.receive_until("nothing that it sends")
        assert to_node.into.ended
        to_node.send_record(b"", channel.LAST)
        assert stream.sock.recv(1) == b""


def test_node_pads_to_cells_where_they_are_agreed(node: NodeProcess) -> None:
    to_node = opened_link(node)
    to_node.handshake({**link.SHAPE, "rules": [1], "record_size": [1024, 65536]})
    assert to_node.into.size == 1024, "of the first record behind verack"
    to_node.stream.write(to_node.out.seal(b"", 1024) + to_node.out.seal(PING, 1024))
    to_node.receive_until("pong")
    assert to_node.into.size == 1024
    assert peer_of(node, to_node)["points"] == 0
    to_node.end()


def test_network_id_is_made_as_written() -> None:
    assert DEV.hex() == NETWORKS[0]["id"]


# Flight 1, tampered with: what the responder shows

Flight = tuple[channel.Ephemeral, bytes]


def flight_1(
    node: NodeProcess, size: int = 300, epoch_off: int = 0, place: channel.Place | None = None, public: bytes = b""
) -> Flight:
    side = link.initiator(DEV, node.public)
    epoch = link.epoch_now() + epoch_off
    static = public or node.public
    made = channel.Initiator(place or side.place, side.e, size - 72, static_public=static, epoch=epoch)
    return side.e, made.flight_1


def replayed(node: NodeProcess) -> Flight:
    side = link.initiator(DEV, node.public)
    link.initiate(node.dial(), side).handshake()
    return side.e, side.flight_1


def with_bit_flipped(node: NodeProcess, bit: int) -> Flight:
    e, flight = flight_1(node)
    flight = flipped(flight, bit)
    return channel.Ephemeral(e.secret, flight[:32]), flight


STRANGERS: dict[str, Callable[[NodeProcess], Flight]] = {
    "replayed": replayed,
    "two epochs ago": lambda node: flight_1(node, epoch_off=-3),
    "two epochs ahead": lambda node: flight_1(node, epoch_off=3),
    "another network": lambda node: flight_1(node, place=channel.Place(channel.network_id("test"))),
    "another kind of listener": lambda node: flight_1(node, place=channel.Place(DEV, listener_kind=2)),
    "another carrier": lambda node: flight_1(node, place=channel.Place(DEV, carrier=2)),
    "another responder": lambda node: flight_1(node, public=channel.public_of(os.urandom(32))),
    "bit 254 of R_i, which is not part of the key": lambda node: with_bit_flipped(node, 254),
    "bit 255 of R_i, which is not part of the key": lambda node: with_bit_flipped(node, 255),
    "first bit of the sealed header": lambda node: with_bit_flipped(node, 8 * 32),
    "last bit of the header's tag": lambda node: with_bit_flipped(node, 8 * 56 - 1),
    "shorter than may be": lambda node: flight_1(node, size=255),
    "longer than may be": lambda node: flight_1(node, size=1281),
    "random": lambda node: (e := channel.Ephemeral.make(), e.representative + os.urandom(268)),
}
SILENCED: dict[str, Callable[[NodeProcess], Flight]] = {
    "first bit of the sealed zeros": lambda node: with_bit_flipped(node, 8 * 56),
    "last bit of the flight": lambda node: with_bit_flipped(node, -1),
    "R_i of low order": lambda _: (channel.Ephemeral(b"", bytes(32)), bytes(32) + os.urandom(1248)),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_whatever_is_not_nk_gets_the_answer_to_a_stranger(node: NodeProcess, name: str) -> None:
    e, flight = STRANGERS[name](node)
    flight = flight.ljust(256, b"\x5a")
    stream = node.dial()
    stream.write(flight)
    stranger = channel.Initiator(channel.Place(DEV), e, flight[32:])
    stranger.read_flight_2(stream.read)
    assert stranger.static_public == node.public
    assert exhaust(stream) == b"", "it says more before it has found the end mark"


@pytest.mark.parametrize("name", STRANGERS)
def test_whatever_is_not_nk_becomes_an_nx_link_for_who_holds_the_key(node: NodeProcess, name: str) -> None:
    e, flight = STRANGERS[name](node)
    if len(flight) > channel.GREATEST_FLIGHT:
        flight = flight[: channel.GREATEST_FLIGHT]
    stranger = channel.Initiator(channel.Place(DEV), e, flight.ljust(256, b"\x5a")[32:])
    to_node = link.initiate(node.dial(), stranger)
    to_node.handshake()
    to_node.end()


@pytest.mark.parametrize("bit", [0, 77, 253])
def test_a_changed_key_is_answered_to_someone_else(node: NodeProcess, bit: int) -> None:
    e, flight = with_bit_flipped(node, bit)
    stream = node.dial()
    stream.write(flight)
    answer = exhaust(stream)
    assert 256 <= len(answer) <= 1280
    with pytest.raises(channel.ChannelError):
        channel.Initiator(channel.Place(DEV), e, flight[32:]).read_flight_2(lambda size: answer[:size])


@pytest.mark.parametrize("piece", [1, 1 << 20])
@pytest.mark.parametrize("key", [True, False], ids=["NK", "NX"])
def test_the_answer_is_sent_whatever_comes_right_behind_the_flight(node: NodeProcess, key: bool, piece: int) -> None:
    side = link.initiator(DEV, node.public if key else b"")
    stream = node.dial(piece)
    stream.write(side.flight_1 + os.urandom(1500))
    side.read_flight_2(stream.read)
    assert exhaust(stream) == b""


@pytest.mark.parametrize("name", SILENCED)
def test_silence(node: NodeProcess, name: str) -> None:
    _, flight = SILENCED[name](node)
    stream = node.dial()
    stream.write(flight)
    assert exhaust(stream) == b""


@pytest.mark.parametrize("name", [*STRANGERS, *SILENCED])
def test_without_strangers_there_is_only_silence(unlisted: NodeProcess, name: str) -> None:
    _, flight = (STRANGERS | SILENCED)[name](unlisted)
    stream = unlisted.dial()
    stream.write(flight)
    assert exhaust(stream) == b""


def test_without_strangers_the_key_still_opens(unlisted: NodeProcess) -> None:
    established(unlisted).end()


@pytest.mark.parametrize("off", [-1, 1])
def test_clocks_may_be_one_epoch_apart(node: NodeProcess, off: int) -> None:
    side = link.initiator(DEV, node.public, epoch=link.epoch_now() + off)
    to_node = link.initiate(node.dial(), side)
    assert to_node.opened.pattern == "NK"
    to_node.handshake()


def test_nothing_is_said_before_the_flight_is_there(node: NodeProcess) -> None:
    e, whole = flight_1(node, size=1280)
    stranger = channel.Initiator(channel.Place(DEV), channel.Ephemeral.make(), os.urandom(400))
    known, unknown = node.dial(), node.dial()
    known.write(whole[:-1])
    unknown.write(stranger.flight_1[:255])
    let_node_act(node)
    assert is_quiet(known)
    assert is_quiet(unknown)
    known.write(whole[-1:])
    unknown.write(stranger.flight_1[255:256])
    stranger.read_flight_2(unknown.read)
    assert len(known.read(256)) == 256
    assert e.representative == whole[:32]


@pytest.mark.parametrize("size", [256, 257, 1280])
def test_the_end_mark_is_found_where_the_flight_ends(node: NodeProcess, size: int) -> None:
    side = channel.Initiator(channel.Place(DEV), channel.Ephemeral.make(), os.urandom(size - 32))
    link.initiate(node.dial(), side).handshake()


@pytest.mark.parametrize(("size", "bit"), [(1281, None), (300, 0), (300, 127)])
def test_a_missing_or_changed_end_mark_is_silence(node: NodeProcess, size: int, bit: int | None) -> None:
    side = channel.Initiator(channel.Place(DEV), channel.Ephemeral.make(), os.urandom(size - 32))
    to_node = link.initiate(node.dial(), side)
    if bit is not None:
        to_node.unsent = flipped(to_node.unsent, bit)
    to_node.send("version", **to_node.version())
    assert exhaust(to_node.stream) == b""


def test_the_random_bytes_of_nx_are_bound_to_record_0(node: NodeProcess) -> None:
    side = channel.Initiator(channel.Place(DEV), channel.Ephemeral.make(), os.urandom(300))
    stream = node.dial()
    stream.write(flipped(side.flight_1, -1))
    to_node = link.Link(stream, side.read_flight_2(stream.read), initiator=True)
    to_node.send("version", **to_node.version())
    assert exhaust(stream) == b""


def test_who_failed_reads_on_for_a_while(node: NodeProcess) -> None:
    _, flight = with_bit_flipped(node, -1)
    stream = node.dial()
    stream.write(flight + os.urandom(4000))
    let_node_act(node)
    assert is_quiet(stream), "it closed before it had discarded 4 KiB"


# Flight 2, tampered with: what the initiator shows


def check_initiator_is_silent(
    node: NodeProcess, server: socket.socket, key: bool, padding: int, spoil: Callable[[bytes], bytes]
) -> None:
    secret = os.urandom(32)
    with dialled(node, server, secret, key=key) as stream:
        flight = stream.read(256)
        let_node_act(node)
        flight += stream.read_ready()
        side = channel.Responder(channel.Place(DEV), secret, channel.Ephemeral.make())
        if key:
            noise, _, zeros = side.read_header("NK", flight[:56])
            assert noise.open(flight[56:]) == bytes(zeros)
        else:
            noise = side.stranger(flight[:32])
        answer, _ = side.flight_2(noise, flight[:32], padding)
        stream.write(spoil(answer))
        assert exhaust(stream) == b""


@pytest.mark.parametrize("bit", [0, 255, 32 * 8, 81 * 8, -1])
@pytest.mark.parametrize("key", [True, False], ids=["NK", "NX"])
def test_flight_2_with_a_changed_bit(node: NodeProcess, server: socket.socket, key: bool, bit: int) -> None:
    check_initiator_is_silent(node, server, key, 300, lambda answer: flipped(answer, bit))


@pytest.mark.parametrize("size", [255, 1281])
@pytest.mark.parametrize("key", [True, False], ids=["NK", "NX"])
def test_flight_2_of_a_wrong_size(node: NodeProcess, server: socket.socket, key: bool, size: int) -> None:
    check_initiator_is_silent(node, server, key, size - (68 if key else 116), lambda answer: answer)


def test_another_key_than_the_address_has(node: NodeProcess, server: socket.socket) -> None:
    told, held = os.urandom(32), os.urandom(32)
    with dialled(node, server, told) as stream:
        flight = stream.read(256)
        let_node_act(node)
        stream.read_ready()
        side = channel.Responder(channel.Place(DEV), held, channel.Ephemeral.make())
        stream.write(side.flight_2(side.stranger(flight[:32]), flight[:32], 300)[0])
        assert exhaust(stream) == b""


# Records, tampered with


def ping_record(to_node: link.Link) -> bytes:
    return to_node.out.seal(frames.encode("ping", nonce="1"), 64)


def plain_record(flags: int, next_size: int, used: int, rest: bytes = b"") -> Callable[[link.Link], bytes]:
    fields = bytes([flags]) + (next_size - 1).to_bytes(2, "little") + used.to_bytes(2, "little")
    return lambda to_node: to_node.out.seal_plaintext(fields + rest)


BAD_RECORDS: dict[str, Callable[[link.Link], bytes]] = {
    "first bit": lambda to_node: flipped(ping_record(to_node), 0),
    "last bit of the tag": lambda to_node: flipped(ping_record(to_node), -1),
    "a record left out": lambda to_node: (to_node.out.seal(b"", 64), ping_record(to_node))[1],
    "flag 4": plain_record(4, 64, len(PING), PING),
    "flag 128": plain_record(128, 64, len(PING), PING),
    "next size 63": plain_record(0, 63, len(PING), PING),
    "next size 1": plain_record(0, 1, len(PING), PING),
    "more used than there is": plain_record(0, 64, 65535, PING),
}


def said_before_the_end(to_node: link.Link, sealed: bytes) -> bytes:
    """Frame bytes of whole records in `sealed`, none of which may be the last."""
    said = b""
    while sealed:
        record, sealed = sealed[: to_node.into.size], sealed[to_node.into.size :]
        said += to_node.into.open(record).frame_bytes
    assert not to_node.into.ended, "it ended with flag 2"
    return said


@pytest.mark.parametrize("name", BAD_RECORDS)
def test_bad_record_on_an_established_link(node: NodeProcess, name: str) -> None:
    to_node = established(node)
    to_node.stream.write(BAD_RECORDS[name](to_node))
    assert b"pong" not in said_before_the_end(to_node, exhaust(to_node.stream))


@pytest.mark.parametrize("name", BAD_RECORDS)
def test_bad_record_0(node: NodeProcess, name: str) -> None:
    to_node = opened_link(node)
    to_node.stream.write(BAD_RECORDS[name](to_node))
    assert exhaust(to_node.stream) == b""


def test_used_may_fill_the_record_to_its_end_and_not_one_byte_more(node: NodeProcess) -> None:
    ping = frames.encode("ping", nonce="5")
    for over in (0, 1):
        to_node = established(node)
        to_node.send_record(b"")
        room = to_node.out.size - 21
        pings = (ping * (room // len(ping) + 1))[:room]
        fields = bytes([0, 63, 0]) + (room + over).to_bytes(2, "little")
        to_node.stream.write(to_node.out.seal_plaintext(fields + pings))
        if over:
            assert b"pong" not in said_before_the_end(to_node, exhaust(to_node.stream))
        else:
            assert to_node.receive_until("pong") == {"nonce": "5"}


def test_what_was_answered_before_the_bad_byte_stays_said(node: NodeProcess) -> None:
    to_node = established(node)
    to_node.stream.write(to_node.out.seal(PING, 64) + ping_record(to_node)[:20])
    assert to_node.receive_until("pong") == {"nonce": "1"}
    to_node.stream.write(os.urandom(44))
    assert b"pong" not in said_before_the_end(to_node, exhaust(to_node.stream))


@pytest.mark.parametrize("rekeys", [True, False])
def test_a_key_seals_4096_records(node: NodeProcess, rekeys: bool) -> None:
    to_node = established(node)
    if not rekeys:
        to_node.out.under_key = -(10**6)
    sent = to_node.out.counter
    records = [to_node.out.seal(b"", 64) for _ in range(channel.RECORDS_PER_KEY - sent)]
    to_node.stream.write(b"".join(records))
    if rekeys:
        to_node.send("ping", nonce="9")
        assert to_node.receive_until("pong") == {"nonce": "9"}
    else:
        assert b"pong" not in said_before_the_end(to_node, exhaust(to_node.stream))


def test_what_follows_flag_2_is_discarded(node: NodeProcess) -> None:
    to_node = established(node)
    to_node.stream.write(to_node.out.seal(PING, 64, channel.LAST) + os.urandom(500))
    with pytest.raises(link.EndOfStreamError):
        to_node.receive_until("nothing that it sends")
    assert to_node.into.ended


# Frames, tampered with

VIOLATIONS = {
    "size over the type's maximum": PING.replace(b"\x08\0\0\0ping", b"\x09\0\0\0ping"),
    "unknown type over 4 MiB": b"\x01\0\x40\0" + b"foo".ljust(12, b"\0") + bytes(4),
    "upper case": PING.replace(b"ping", b"Ping"),
    "no type": PING.replace(b"ping", bytes(4)),
    "bytes behind the first NUL": PING.replace(b"ping\0\0", b"ping\0x"),
    "a message of the opening": frames.encode("verack"),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_violation_ends_the_link_without_an_answer(node: NodeProcess, name: str) -> None:
    to_node = established(node)
    to_node.send_record(b"")
    to_node.send_record(VIOLATIONS[name] + PING)
    with pytest.raises(link.EndOfStreamError):
        to_node.receive_until("pong")


@pytest.mark.parametrize("frame", [flipped(PING, 8 * 16), frames.framed("ping", bytes(7)), frames.framed("foo", b"x")])
def test_malformed_and_unknown_frames_cost_only_themselves(node: NodeProcess, frame: bytes) -> None:
    to_node = established(node)
    to_node.send_record(b"")
    to_node.send_record(frame)
    to_node.send("ping", nonce="6")
    assert to_node.receive_until("pong") == {"nonce": "6"}


@pytest.mark.parametrize("frame", [PING, frames.encode("verack"), frames.framed("foo", b""), flipped(PING, 8 * 16)])
def test_nothing_but_version_opens(node: NodeProcess, frame: bytes) -> None:
    to_node = opened_link(node)
    to_node.send_record(frame)
    with pytest.raises(link.EndOfStreamError):
        to_node.receive()
