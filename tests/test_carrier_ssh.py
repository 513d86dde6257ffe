"""Carrier ssh by itself: a session at any fragmentation, its windows and keys, its ends, and what attackers try."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carriers import MAKERS, Wire
from obscura.channel.opening import Initiator, Prologue, Responder
from obscura.channel.replay import ReplayCache
from obscura.channel.uniform import StaticKey
from obscura.daemon.ssh_cover import fingerprint, ssh_host
from obscura.errors import ChannelFault, UserError
from obscura.limits import SSH_ANSWER, SSH_FLIGHT, SSH_HELD, SSH_LOGIN_GRACE_S, SSH_QUEUED, SSH_STARTUPS, SSH_WINDOW
from obscura.morph import ssh, ssh_kex
from obscura.morph import ssh_names as names
from obscura.morph.carrier import CarrierEvent, Finished, Flight, Ready
from obscura.morph.kinds import CLIENTS
from obscura.morph.ssh import SshClient
from obscura.morph.ssh_auth import failure, key_request, made_up_key, none_request
from obscura.morph.ssh_channel import Channel
from obscura.morph.ssh_kex import METHODS, ClientExchange, ServerExchange, choose_group, modp_group, parse_moduli
from obscura.morph.ssh_mac import MACS
from obscura.morph.ssh_names import CLIENT_PROPOSAL, server_proposal
from obscura.morph.ssh_packet import Broken, Fields, PacketReader, PacketWriter, cipher_of, mpint, string, u32
from obscura.morph.ssh_server import SshServer
from obscura.morph.ssh_transport import Disconnected, Transport
from obscura.wire.address import Address, CarrierNumber
from ssh_pair import FLIGHT_1, FLIGHT_2, HOST_KEYS, Pair, host, opened
from ssh_probes import HELLO, PROBES

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def cutter(seed: int, most: int):
    """Cuts by chance into pieces of 1..``most`` bytes."""
    rng = random.Random(seed)

    def cut(data: bytes) -> Iterable[bytes]:
        at = 0
        while at < len(data):
            size = rng.randint(1, most)
            yield data[at : at + size]
            at += size

    return cut


# --- The session ----------------------------------------------------------------------------------------------------


@QUICK
@given(st.integers(0, 1 << 30), st.integers(1, 300), st.lists(st.binary(min_size=1, max_size=3_000), max_size=8))
def test_what_is_sent_arrives_at_any_fragmentation(seed: int, most: int, messages: list[bytes]) -> None:
    pair = opened(cut=cutter(seed, most), seed=seed)
    for number, message in enumerate(messages):
        pair.client.carrier.send(message, pair.now)
        pair.server.carrier.send(message[::-1], pair.now)
        if number % 2:
            pair.turn()
    pair.run()
    assert bytes(pair.server.received) == b"".join(messages)
    assert bytes(pair.client.received) == b"".join(message[::-1] for message in messages)


def test_byte_by_byte() -> None:
    pair = opened(cut=cutter(1, 1))
    pair.client.carrier.send(b"up", pair.now)
    pair.run()
    assert bytes(pair.server.received) == b"up"


def test_the_flights_have_their_places_and_the_binding_is_the_session() -> None:
    one, other = opened(seed=1), opened(seed=2)
    ready, flight = one.client.first(Ready), one.server.first(Flight)
    assert isinstance(ready, Ready)
    assert isinstance(flight, Flight)
    assert ready == Ready(flight.binding, (SSH_FLIGHT, SSH_FLIGHT))
    assert flight == Flight(FLIGHT_1, ready.binding, SSH_ANSWER)
    assert len(ready.binding) == 32
    assert other.client.first(Ready) != ready


def test_the_row_of_the_table() -> None:
    place = Address.parse(f"obscura://{'a' * 52}@203.0.113.5:22?carrier=ssh")
    assert isinstance(CLIENTS[CarrierNumber.SSH](place, random.Random(1), bytes(32)), SshClient)


def test_data_before_the_program_runs_waits_for_it() -> None:
    pair = Pair()
    pair.server.carrier.send(b"early", pair.now)  # the channel may be quick
    pair.run()
    assert pair.client.first(Flight).data.startswith(b"early")


# --- Back-pressure ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("up", [True, False])
def test_a_peer_that_takes_nothing_stops_the_sender_at_the_window(up: bool) -> None:
    pair = opened()
    source, target = (pair.client, pair.server) if up else (pair.server, pair.client)
    sent, out = 0, []
    while not source.carrier.is_blocked:
        source.carrier.send(b"x" * 10_000, pair.now)
        sent += 10_000
        out += source.carrier.take()
        assert sent < SSH_WINDOW + SSH_QUEUED + 20_000
    assert sum(map(len, out)) < SSH_WINDOW * 1.01
    for piece in out:
        target.note(target.carrier.receive(piece, pair.now))
    pair.run()
    assert not source.carrier.is_blocked
    assert len(target.received) == sent


@pytest.mark.parametrize("is_server", [True, False])
def test_who_asks_and_does_not_read_the_answers_is_not_read(is_server: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "SSH_HELD", 10_000)
    wire = Wire(MAKERS["ssh"]).opened()
    wire.run()
    asks, answers = (wire.client, wire.server) if is_server else (wire.server, wire.client)
    for _ in range(1_000):
        if answers.carrier.is_full:
            break
        asks.carrier._transport.send(bytes((names.GLOBAL_REQUEST,)) + string("keepalive@openssh.com") + b"\1")
        answers.carrier.receive(b"".join(asks.carrier.take()), wire.now)
    assert answers.carrier.is_full
    assert 10_000 < sum(map(len, answers.carrier.take())) < 20_000
    assert not answers.carrier.is_full, "once it reads, all goes on"


@pytest.mark.parametrize("kind", ["forwarded-tcpip", "session", "x11", "auth-agent@openssh.com", "nonsense"])
def test_a_channel_that_the_server_opens_is_refused_as_by_openssh(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A man in the middle who lets the user in may try it."""
    pair = opened()
    heard: list[bytes] = []
    server, client = pair.server.carrier, pair.client.carrier
    on_payload = server._on_payload  # type: ignore[attr-defined]

    def listening(payload: memoryview, now: float, events: list[CarrierEvent]) -> None:
        heard.append(bytes(payload))
        on_payload(payload, now, events)

    monkeypatch.setattr(server, "_on_payload", listening)
    opening = bytes((names.CHANNEL_OPEN,)) + string(kind) + u32(7) + u32(1 << 21) + u32(1 << 15)
    server._transport.send(opening)  # type: ignore[attr-defined]
    pair.run()
    assert heard == [bytes((names.CHANNEL_OPEN_FAILURE,)) + u32(7) + u32(1) + string("open failed") + string("")]
    assert not pair.client.is_over
    assert client.deadline() > 0


def test_more_than_the_window_ends_the_session() -> None:
    """A server's is 0 until the program runs."""
    pair = opened()
    channel = Channel(Transport(random.Random(1)), 0)
    with pytest.raises(Broken, match="window"):
        channel.on_data(memoryview(b"\x5e" + bytes(4) + string(b"x")))
    client = pair.client.carrier
    client._transport.send(b"\x5e" + bytes(4) + u32(2) + b"x")  # type: ignore[attr-defined]  # a wrong length
    pair.turn()
    assert pair.server.is_over


# --- Keys -------------------------------------------------------------------------------------------------------------


def test_keys_change_by_time_under_traffic() -> None:
    pair = opened(cut=cutter(3, 900))
    before = pair.client.carrier._transport.reader.cipher  # type: ignore[attr-defined]
    up, down = b"", b""
    for number in range(40):
        pair.client.carrier.send(bytes([number]) * 700, pair.now)
        pair.server.carrier.send(bytes([number]) * 900, pair.now)
        up, down = up + bytes([number]) * 700, down + bytes([number]) * 900
        pair.now += 200  # 8,000 s in all
        for side in (pair.client, pair.server):
            if side.carrier.deadline() <= pair.now:
                side.note(side.carrier.due(pair.now))
        pair.turn()
    pair.run()
    assert pair.client.carrier._transport.reader.cipher is not before  # type: ignore[attr-defined]
    assert (bytes(pair.server.received), bytes(pair.client.received)) == (up, down)


def test_keys_change_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("obscura.morph.ssh_transport.SSH_REKEY_BYTES", 50_000)
    pair = opened()
    seen: list[object] = []  # kept, so that none comes where another one was
    for _ in range(30):
        pair.client.carrier.send(bytes(10_000), pair.now)
        pair.run()
        cipher = pair.server.carrier._transport.reader.cipher  # type: ignore[attr-defined]
        if all(cipher is not other for other in seen):
            seen.append(cipher)
    assert len(pair.server.received) == 300_000
    assert len(seen) > 3


CIPHERS = [(name, "") for name in CLIENT_PROPOSAL.encryption_up if "ctr" not in name]
CIPHERS += [("aes192-ctr", mac) for mac in MACS] + [("aes128-ctr", "hmac-sha1"), ("aes256-ctr", "hmac-sha2-256")]


def sealed_and_reader(encryption: str, mac: str, payloads: list[bytes]) -> tuple[list[bytes], PacketReader]:
    """Packets under one key, and who can open them."""

    def key_of(which: int, size: int) -> bytes:
        return random.Random(which).randbytes(size)

    writer, reader = PacketWriter(random.Random(1)), PacketReader()
    writer.cipher, reader.cipher = cipher_of(encryption, mac, key_of), cipher_of(encryption, mac, key_of)
    return [writer.packet(payload[:1], payload[1:]) for payload in payloads], reader


@pytest.mark.parametrize(("encryption", "mac"), CIPHERS)
def test_every_cipher_opens_what_it_sealed(encryption: str, mac: str) -> None:
    payloads = [bytes([94]) + b"x" * size for size in (0, 1, 7, 8, 15, 16, 17, 1_000, 32_768)]
    packets, reader = sealed_and_reader(encryption, mac, payloads)
    for byte in b"".join(packets[:6]):
        reader.feed(bytes([byte]))
    reader.feed(b"".join(packets[6:]))
    assert [bytes(reader.next() or b"") for _ in payloads] == payloads
    assert reader.next() is None


@pytest.mark.parametrize(("encryption", "mac"), CIPHERS)
def test_no_cipher_opens_a_packet_with_a_bit_flipped(encryption: str, mac: str) -> None:
    for position in range(0, 8 * 44, 5):
        packets, reader = sealed_and_reader(encryption, mac, [b"^" + b"x" * 20])
        packet = bytearray(packets[0])
        packet[position // 8 % len(packet)] ^= 1 << position % 8
        reader.feed(packet)
        try:
            assert reader.next() is None, "a length that is larger waits for more"
        except Broken:
            continue


@pytest.mark.parametrize("name", METHODS)
def test_both_ends_of_every_exchange_agree(name: str) -> None:
    rng = random.Random(1)
    client, server = ClientExchange(name, rng), ServerExchange(name, (), rng)
    message = client.start()
    while True:
        answer = server.receive(message[0], Fields(message))
        if not isinstance(answer, bytes):
            break
        step = client.receive(answer[0], Fields(answer))
        assert isinstance(step, bytes)
        message = step
    outcome, own = answer
    reply = bytes([server.reply_kind]) + string(b"key") + own
    theirs = client.receive(reply[0], Fields(reply))
    assert theirs == (outcome, b"key")


def test_the_groups_are_those_of_their_definition() -> None:
    for number in (14, 16, 18):
        bits, generator, prime = modp_group(number)
        assert (prime.bit_length(), generator) == (bits, 2)
        assert prime >> (bits - 64) == prime & ((1 << 64) - 1) == (1 << 64) - 1
    prime = modp_group(14)[2]
    assert pow(3, prime - 1, prime) == pow(3, (prime - 1) // 2 - 1, (prime - 1) // 2) == 1  # a safe prime


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.group in (14, 16, 18)])
def test_a_stranger_s_group_costs_no_longer_an_exponent_than_curve25519_is_worth(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exponents = []

    def counted(base: int, exponent: int, modulus: int) -> int:
        exponents.append(exponent.bit_length())
        return pow(base, exponent, modulus)

    monkeypatch.setattr(ssh_kex, "pow", counted, raising=False)
    server = ServerExchange(name, (), random.Random(1))
    server.receive(30, Fields(b"\x1e" + mpint(5)))
    assert exponents == [256, 256], "the own value and the secret"


def test_groups_of_a_file_are_chosen_as_sshd_does() -> None:
    text = "# Time Type Tests Tries Size Generator Modulus\n" + "\n".join(
        f"2022 2 6 100 {bits - 1} 2 {(1 << bits) - 1 - 2 * number:X}"
        for bits in (2_048, 3_072, 4_096)
        for number in (1, 2)
    )
    groups = parse_moduli(text + "\n2022 2 0 100 2047 2 FF\nnonsense\n2022 5 6 100 7 2 FF\n")
    assert [group[0] for group in groups] == [2_048, 2_048, 3_072, 3_072, 4_096, 4_096]
    rng = random.Random(1)
    wanted = {
        (2_048, 2_048, 8_192): 2_048,
        (2_048, 2_500, 8_192): 3_072,
        (2_048, 8_192, 8_192): 4_096,
        (2_048, 4_000, 3_500): 3_072,
    }
    for (least, wish, most), bits in wanted.items():
        assert choose_group(least, wish, most, groups, rng)[0] == bits
    assert choose_group(6_000, 7_000, 8_192, groups, rng) == modp_group(18)


# --- What OpenSSH 8.4 says ----------------------------------------------------------------------------------------------


def test_the_lists_have_the_published_fingerprint() -> None:
    """HASSH of OpenSSH 8.x: md5 of exchanges;ciphers;macs;compressions."""

    def hassh(lists: tuple[list[str], ...]) -> str:
        return hashlib.md5(";".join(",".join(each) for each in lists).encode()).hexdigest()

    mine = CLIENT_PROPOSAL
    assert (
        hassh((mine.kex, mine.encryption_up, mine.macs_up, mine.compression_up)) == "ae8bd7dd09970555aa4c6ed22adbbf56"
    )


@pytest.mark.parametrize(("data", "answer", "end"), [row[1:] for row in PROBES], ids=[row[0] for row in PROBES])
def test_a_stranger_gets_what_sshd_says(data: bytes, answer: bytes, end: bool | None) -> None:
    server = host().server(random.Random(1))
    assert server.start(0.0) == []
    events = server.receive(data, 0.0)
    greeting, _, said = b"".join(server.take()).partition(b"\r\n")
    assert greeting == names.IDENTIFICATION
    if said[5:6] == b"\x14":
        said = said[4 + int.from_bytes(said[:4], "big") :]
    assert said.hex() == answer.hex() or (said.startswith(answer[:6]) and len(said) == len(answer))
    assert events == ([] if end is None else [Finished(resets=end)])


# --- Strangers with keys ------------------------------------------------------------------------------------------------


class Stranger:
    """SSH's transport on one side, a server on the other; messages by hand."""

    def __init__(self, server: SshServer | None = None) -> None:
        self.server = server or host().server(random.Random(5))
        self.transport = Transport(random.Random(6))
        self.now = 0.0
        self.events = self.server.start(0.0)
        self.transport.start()
        assert self.exchange()[0][:1] == bytes([names.NEWKEYS])
        self.ask(b"\5" + string("ssh-userauth"))

    def exchange(self) -> list[bytes]:
        """Payloads that came; a fault of the transport is its name."""
        got: list[bytes] = []
        moved = True
        while moved:
            moved = False
            out, self.transport.out = self.transport.out, []
            for piece in out:
                self.events += self.server.receive(piece, self.now)
                moved = True
            for piece in self.server.take():
                self.transport.reader.feed(piece)
                moved = True
            try:
                while (payload := self.transport.next(self.now)) is not None:
                    got.append(bytes(payload))
            except Disconnected:
                got.append(b"disconnect")
        return got

    def ask(self, payload: bytes) -> list[bytes]:
        """Send one message, and see what is answered at once."""
        self.transport.send(payload)
        return self.exchange()

    def refused_after(self) -> float:
        """Seconds that the refusal takes; nothing may come before it."""
        assert self.exchange() == []
        before, self.now = self.now, self.server.deadline()
        self.events += self.server.due(self.now)
        assert self.exchange() == [failure()]
        return self.now - before


def request(user: str, method: str, rest: bytes = b"") -> bytes:
    """A USERAUTH_REQUEST."""
    return b"\x32" + string(user) + string("ssh-connection") + string(method) + rest


BLOB = made_up_key(0, random.Random(3))
REFUSED = {
    "none": none_request("git"),
    "a password": request("git", "password", b"\0" + string("x")),
    "a question about a key": request("git", "publickey", b"\0" + string("rsa-sha2-512") + string(BLOB)),
    "a short signature": request(
        "git",
        "publickey",
        b"\1" + string("rsa-sha2-512") + string(BLOB) + string(string("rsa-sha2-512") + string(bytes(384))),
    ),
    "another algorithm": request(
        "git",
        "publickey",
        b"\1" + string("rsa-sha2-256") + string(BLOB) + string(string("rsa-sha2-256") + string(bytes(512))),
    ),
    "an unknown algorithm": request("git", "publickey", b"\1" + string("foo") + string(BLOB) + string(b"")),
    "a blob of another kind": request("git", "publickey", b"\0" + string("ssh-ed25519") + string(BLOB)),
}


@pytest.mark.parametrize("message", REFUSED.values(), ids=REFUSED)
def test_a_stranger_is_refused_like_a_wrong_flight(message: bytes) -> None:
    """The same bytes after the same time, and no flight is looked at."""
    stranger, wrong = Stranger(), Stranger()
    assert stranger.ask(message) == []
    assert wrong.ask(key_request("git", FLIGHT_1, random.Random(1))) == []
    assert [type(event) for event in wrong.events] == [Flight]
    wrong.server.refuse(wrong.now)
    assert stranger.refused_after() == wrong.refused_after()
    assert stranger.events == []
    assert 0.005 <= stranger.now <= 0.0093


def test_the_time_of_a_refusal_is_the_users_and_the_listeners_own() -> None:
    times = set()
    for user in ("git", "root"):
        for secret in (b"a" * 32, b"b" * 32):
            stranger = Stranger(host(secret).server(random.Random(5)))
            stranger.ask(none_request(user))
            times.add(stranger.refused_after())
    assert len(times) == 4


def test_after_a_wrong_flight_no_other_is_looked_at_and_the_sixth_ends_it() -> None:
    stranger = Stranger()
    for _ in range(5):
        stranger.ask(key_request("git", FLIGHT_1, random.Random(1)))
        if len(stranger.events) == 1:
            stranger.server.refuse(stranger.now)
        stranger.refused_after()
    assert [type(event) for event in stranger.events] == [Flight]
    stranger.ask(key_request("git", FLIGHT_1, random.Random(1)))
    stranger.now = stranger.server.deadline()
    assert stranger.server.due(stranger.now) == [Finished()]
    assert stranger.exchange() == [b"disconnect"]


def test_the_first_none_is_free() -> None:
    stranger = Stranger()
    for _ in range(6):
        stranger.ask(none_request("git"))
        stranger.refused_after()
    stranger.ask(none_request("git"))
    assert stranger.server.due(stranger.server.deadline()) == [Finished()]


ENDED = {
    "another user": [none_request("git"), none_request("root")],
    "another service": [b"\5" + string("ssh-connection")],
}
SILENT = {
    "a NUL in the name": none_request("a\0b"),
    "none with more": none_request("git") + b"x",
    "no signature": request("git", "publickey", b"\1" + string("rsa-sha2-512") + string(BLOB)),
    "half a request": b"\x32" + string("git"),
    "signature with more": key_request("git", FLIGHT_1, random.Random(1)) + b"x",
}


@pytest.mark.parametrize("messages", ENDED.values(), ids=ENDED)
def test_what_sshd_ends_with_a_word(messages: list[bytes]) -> None:
    stranger = Stranger()
    for message in messages[:-1]:
        stranger.ask(message)
        stranger.refused_after()
    assert stranger.ask(messages[-1]) == [b"disconnect"]
    assert stranger.events == [Finished()]


@pytest.mark.parametrize("message", SILENT.values(), ids=SILENT)
def test_what_sshd_ends_without_one(message: bytes) -> None:
    stranger = Stranger()
    assert stranger.ask(message) == []
    assert stranger.events == [Finished()]


@pytest.mark.parametrize("kind", [*range(51, 101, 7), 7 + 1, 19, 40, 49, 99, 150])
def test_what_nobody_knows_is_unimplemented(kind: int) -> None:
    stranger = Stranger()
    before = len(stranger.server._transport.out)
    stranger.transport.send(bytes([kind]) + bytes(8))
    for piece in stranger.transport.out:
        assert stranger.server.receive(piece, 0.0) == []
    stranger.transport.out = []
    assert len(stranger.server._transport.out) == before + 1


@pytest.mark.parametrize(
    "message",
    [b"\x03", b"\x03" + bytes(3), b"\x04", b"\x04\1" + string("x"), b"\x04\1" + string("x") + u32(1)],
)
def test_what_is_passed_over_has_to_have_its_form(message: bytes) -> None:
    """As of sshd, which reads DEBUG and UNIMPLEMENTED, and ends without a word."""
    whole = b"\x03" + u32(1), b"\x04\1" + string("x") + string("") + b"more"
    stranger = Stranger()
    for each in whole:
        assert stranger.ask(each) == []
    assert stranger.events == []
    assert stranger.ask(message) == []
    assert stranger.events == [Finished()]


@pytest.mark.parametrize("payload", [CLIENT_PROPOSAL.encode(bytes(16)), b"\x14"], ids=["whole", "cut"])
def test_keys_are_not_changed_before_authentication(payload: bytes) -> None:
    """sshd knows no KEXINIT then; and each exchange would cost the loop what the stranger likes."""
    stranger = Stranger()
    for _ in range(2):
        stranger.transport.send(payload)
        for piece in stranger.transport.out:
            assert stranger.server.receive(piece, 0.0) == []
        stranger.transport.out = []
        (answer,) = stranger.server.take()
        stranger.transport.reader.feed(answer)
        told = stranger.transport.reader.next()
        assert told is not None
        assert told[0] == 3, "UNIMPLEMENTED"
    assert stranger.ask(none_request("git")) == []
    stranger.refused_after()


def test_who_ends_the_own_side_still_hears_the_refusals_that_wait() -> None:
    stranger = Stranger()
    for _ in range(3):
        stranger.transport.send(none_request("git"))
    assert stranger.exchange() == []
    for _ in range(2):  # the socket may say so twice
        assert stranger.server.eof(stranger.now) == []
    for last in (False, False, True):
        assert stranger.server.is_busy
        stranger.refused_after()
        assert (stranger.events == [Finished()]) is last


def rsa(exponent: bytes, modulus: bytes, more: bytes = b"") -> bytes:
    return string("ssh-rsa") + string(exponent) + string(modulus) + more


@pytest.mark.parametrize(
    ("algorithm", "blob", "is_key"),
    [
        ("rsa-sha2-512", BLOB, True),
        ("rsa-sha2-512", BLOB[:-1], False),
        ("rsa-sha2-512", BLOB + b"x", False),
        ("rsa-sha2-512", string("ssh-rsa"), False),
        ("rsa-sha2-512", rsa(b"\3", b"\x7f" * 127), False),
        ("rsa-sha2-512", rsa(b"\3", b"\0" + b"\xc1" * 128), True),
        ("rsa-sha2-512", rsa(b"\3", b"\xc1" * 256), False),
        ("ssh-ed25519", string("ssh-ed25519") + string(bytes(32)), True),
        ("ssh-ed25519", string("ssh-ed25519") + string(bytes(31)), False),
        ("ecdsa-sha2-nistp256", string("ecdsa-sha2-nistp256") + string("nistp256") + string(b"\4" + bytes(64)), False),
    ],
)
def test_what_follows_a_key_is_looked_at_only_where_it_is_one(algorithm: str, blob: bytes, is_key: bool) -> None:
    """sshd ends in silence over what is too much behind a key, and refuses what is none like any other."""
    for flag, rest in ((b"\0", b"x"), (b"\1", b"")):
        stranger = Stranger()
        stranger.ask(request("git", "publickey", flag + string(algorithm) + string(blob) + rest))
        assert (stranger.events == [Finished()]) is is_key
        if not is_key:
            stranger.refused_after()


def test_a_style_behind_a_user_s_name_changes_nothing() -> None:
    stranger, plain = Stranger(), Stranger()
    stranger.ask(none_request("git:a"))
    plain.ask(none_request("git"))
    assert stranger.refused_after() == plain.refused_after()
    stranger.ask(none_request("git:b"))
    stranger.refused_after()
    assert stranger.ask(none_request("root:b")) == [b"disconnect"]


@pytest.mark.parametrize("stage", ["silent", "identified", "authenticating", "refused"])
def test_whoever_does_not_authenticate_goes_after_the_grace_time(stage: str) -> None:
    if stage in ("silent", "identified"):
        server = host().server(random.Random(1))
        server.start(0.0)
        if stage == "identified":
            server.receive(HELLO, 1.0)
    else:
        server = Stranger().server
        if stage == "refused":
            server.refuse(30.0)  # the node's own patience is shorter, and must not show
            assert server.receive(b"", 31.0) == []
    assert server.deadline() == SSH_LOGIN_GRACE_S
    assert server.due(SSH_LOGIN_GRACE_S - 1) == []
    server.take()
    assert server.due(SSH_LOGIN_GRACE_S) == [Finished()]
    assert server.take() == []


def test_input_that_waits_for_an_answer_is_bounded() -> None:
    stranger = Stranger()
    stranger.ask(none_request("git"))
    assert not stranger.server.is_full
    for _ in range(9):
        events = stranger.server.receive(bytes(SSH_HELD // 8), stranger.now)
        assert events == []
    assert stranger.server.is_full
    assert stranger.server.receive(bytes(2 * SSH_HELD), stranger.now) == [Finished(resets=True)]


def test_connections_that_start_are_dropped_as_max_startups_says() -> None:
    listener = host()
    begin, _, full = SSH_STARTUPS
    servers = [listener.server(random.Random(number)) for number in range(2 * full)]
    served = [server for server in servers if server.start(0.0) == []]
    assert begin < len(served) <= full
    late = listener.server(random.Random(1))
    listener._starting.update(servers[: full + 1])
    assert late.start(0.0) == [Finished()]
    assert late.take() == [b"Exceeded MaxStartups\r\n"]
    for server in servers:
        server.eof(0.0)
    assert listener.server(random.Random(1)).start(0.0) == []


# --- Attackers ----------------------------------------------------------------------------------------------------------


def test_a_recorded_session_does_not_open_another() -> None:
    pair = opened()
    again = host().server(random.Random(9))
    again.start(0.0)
    events = again.receive(bytes(pair.client.wrote), 0.0)
    assert not any(isinstance(event, Flight) for event in events)
    assert events
    assert isinstance(events[-1], Finished)


def test_a_flight_taken_from_one_session_is_none_in_another() -> None:
    """A man in the middle of the outer session has the flight, and another exchange hash."""
    static = StaticKey.generate(random.Random(1))
    bindings = []
    for seed in (1, 2):
        ready = opened(seed=seed).client.first(Ready)
        assert isinstance(ready, Ready)
        bindings.append(ready.binding)
    prologues = [Prologue(bytes(32), 1, CarrierNumber.SSH, binding) for binding in bindings]
    size = (SSH_FLIGHT, SSH_FLIGHT)
    flight = Initiator(
        prologues[0], random.Random(2), 0, responder_key=static.public, streamed=False, flight_size=size
    ).take()

    def responder(prologue: Prologue) -> Responder:
        rng = random.Random(3)
        return Responder(
            prologue, static, rng, strangers=True, replay=ReplayCache(), streamed=False, answer_size=SSH_ANSWER
        )

    assert responder(prologues[0]).receive(flight, 0) is not None
    with pytest.raises(ChannelFault):
        responder(prologues[1]).receive(flight, 0)


@QUICK
@given(st.integers(0, 1 << 30), st.integers(0, 8_000), st.integers(0, 7))
def test_one_flipped_bit_of_a_session_never_opens_it(seed: int, position: int, bit: int) -> None:
    flipped = False
    at = 0

    def flip(data: bytes) -> Iterable[bytes]:
        nonlocal flipped, at
        start, at = at, at + len(data)
        if not flipped and start <= position < at:
            flipped = True
            changed = bytearray(data)
            changed[position - start] ^= 1 << bit
            data = bytes(changed)
        return [data]

    pair = Pair(cut=flip, seed=seed)
    pair.run(130.0)
    if flipped:
        done = [event for side in (pair.client, pair.server) for event in side.events if isinstance(event, Flight)]
        intact = all(event.data in (FLIGHT_1, FLIGHT_2) for event in done)
        assert intact
        assert pair.client.is_over or pair.server.is_over or len(done) == 2


@QUICK
@given(st.integers(0, 3), st.binary(max_size=600), st.integers(1, 200))
def test_no_bytes_make_it_raise(turns: int, data: bytes, most: int) -> None:
    for to_client in (True, False):
        pair = Pair(cut=cutter(most, most))
        for _ in range(turns):
            pair.turn()
        side = pair.client if to_client else pair.server
        if not side.is_over:
            side.note(side.carrier.receive(data, pair.now))
        pair.run(1.0)
        for event in pair.client.events + pair.server.events:
            assert not isinstance(event, Flight) or event.data in (FLIGHT_1, FLIGHT_2)


@QUICK
@given(st.lists(st.tuples(st.sampled_from(range(1, 101)), st.binary(max_size=40)), max_size=6), st.booleans())
def test_no_message_after_the_keys_makes_it_raise(messages: list[tuple[int, bytes]], from_client: bool) -> None:
    pair = opened()
    source = pair.client if from_client else pair.server
    for kind, rest in messages:
        source.carrier._transport.send(bytes([kind]) + rest)  # type: ignore[attr-defined]
    pair.run(10.0)


def test_a_key_that_nobody_has_looks_like_one() -> None:
    rng = random.Random(1)
    moduli = []
    for _ in range(5):
        flight = rng.randbytes(SSH_FLIGHT)
        fields = Fields(key_request("git", flight, rng))
        assert [fields.text() for _ in range(3)] == ["git", "ssh-connection", "publickey"]
        assert fields.flag()
        assert fields.text() == "rsa-sha2-512"
        blob = Fields(fields.string(), 0)
        assert (blob.text(), blob.mpint()) == ("ssh-rsa", 65_537)
        modulus = blob.mpint()
        assert modulus.bit_length() == 4_096
        assert modulus > int.from_bytes(flight, "big") or flight[:32] == b"\xff" * 32
        assert all(modulus % small for small in (2, 3, 5, 7, 11, 13, 997))
        moduli.append(modulus)
    assert len(set(moduli)) == 5
    with pytest.raises(ValueError, match="511"):
        key_request("git", bytes(511), rng)


def test_twenty_nodes_share_nothing_that_stock_servers_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind the identification and the lists, which are OpenSSH's: cookies, keys, signatures, groups of the machine's file."""
    monkeypatch.setattr("obscura.daemon.ssh_cover.SSH_RSA_BITS", 1_024)  # for speed
    seen: set[bytes] = set()
    for number in range(20):
        server = ssh_host(
            Address.parse(f"obscura://127.0.0.1:{9_000 + number}?carrier=ssh"), (), tmp_path, random.Random(number)
        )
        carrier = server.server(random.Random(number))
        carrier.start(0.0)
        carrier.receive(HELLO, 0.0)
        cookie = b"".join(carrier.take()).partition(b"\r\n")[2][6:22]
        parts = {key.blob[-32:] for key in server.host_keys} | {cookie, server.secret}
        assert not parts & seen
        seen |= parts
    assert len(seen) == 20 * 5


# --- Ends -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["client", "server", "both"])
def test_an_end_is_a_programs_end(by: str) -> None:
    pair = opened()
    pair.client.carrier.send(b"last up", pair.now)
    pair.server.carrier.send(b"last down", pair.now)
    if by != "server":
        pair.client.note(pair.client.carrier.end(pair.now))
    if by != "client":
        pair.server.note(pair.server.carrier.end(pair.now))
    pair.run()
    assert pair.client.is_over
    assert pair.server.is_over
    assert (bytes(pair.server.received), bytes(pair.client.received)) == (b"last up", b"last down")


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_channel_that_fails_ends_the_program(side: str) -> None:
    pair = opened()
    getattr(pair, side).carrier.refuse(pair.now)
    pair.run()
    assert pair.client.is_over
    assert pair.server.is_over


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_peer_that_does_not_close_is_waited_for_some_seconds(side: str) -> None:
    pair = opened()
    carrier = getattr(pair, side).carrier
    assert carrier.end(pair.now) == []
    assert carrier.deadline() == pair.now + 5
    assert carrier.due(pair.now + 5) == [Finished()]


def test_a_refused_client_closes_at_once() -> None:
    pair = Pair(accepts=False)
    pair.run()
    assert [type(event) for event in pair.client.events] == [Ready, Finished]
    assert not pair.server.is_over  # sshd waits for the client


@pytest.mark.parametrize("turns", range(8))
def test_the_peer_dies_in_any_state(turns: int) -> None:
    pair = Pair()
    for _ in range(turns):
        pair.turn()
    for side in (pair.client, pair.server):
        if not side.is_over:
            assert [type(event) for event in side.carrier.eof(pair.now)] == [Finished]
        assert side.carrier.receive(b"more", pair.now) == []
        assert side.carrier.due(pair.now + 1_000) == []


# --- Host keys ------------------------------------------------------------------------------------------------------------

PLACE = Address.parse("obscura://127.0.0.1:2222?carrier=ssh")


def test_host_keys_are_made_once_kept_and_private(tmp_path: Path) -> None:
    first = ssh_host(PLACE, (), tmp_path, random.Random(1))
    again = ssh_host(PLACE, (), tmp_path, random.Random(2))
    other = ssh_host(Address.parse("obscura://127.0.0.1:2223?carrier=ssh"), (), tmp_path, random.Random(1))
    kinds = [key.algorithms[-1] for key in first.host_keys]
    assert kinds == ["ssh-rsa", "ecdsa-sha2-nistp256", "ssh-ed25519"]
    assert [key.blob for key in first.host_keys] == [key.blob for key in again.host_keys]
    assert not {fingerprint(key) for key in first.host_keys} & {fingerprint(key) for key in other.host_keys}
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    algorithms = [name for key in first.host_keys for name in key.algorithms]
    assert server_proposal(algorithms).host_keys == [
        "rsa-sha2-512", "rsa-sha2-256", "ssh-rsa", "ecdsa-sha2-nistp256", "ssh-ed25519",
    ]  # fmt: skip


def test_an_operators_files_are_taken_or_complained_about(tmp_path: Path) -> None:
    ssh_host(PLACE, (), tmp_path, random.Random(1))
    rsa_file, ed25519_file = (next(tmp_path.glob(f"*-{kind}")) for kind in ("rsa", "ed25519"))
    taken = ssh_host(PLACE, (ed25519_file, rsa_file), tmp_path, random.Random(1))
    assert [key.algorithms[-1] for key in taken.host_keys] == ["ssh-rsa", "ssh-ed25519"]
    with pytest.raises(UserError, match="one file for each"):
        ssh_host(PLACE, (rsa_file, rsa_file), tmp_path, random.Random(1))
    with pytest.raises(UserError, match="cannot be read"):
        ssh_host(PLACE, (tmp_path / "none",), tmp_path, random.Random(1))
    broken = tmp_path / "broken"
    broken.write_text("nonsense")
    broken.chmod(0o644)
    with pytest.raises(UserError, match="open to others"):
        ssh_host(PLACE, (broken,), tmp_path, random.Random(1))
    broken.chmod(0o600)
    with pytest.raises(UserError, match="cannot be used"):
        ssh_host(PLACE, (broken,), tmp_path, random.Random(1))


def test_a_client_believes_no_wrong_signature() -> None:
    forged = host()
    good = HOST_KEYS[1]
    forged.host_keys = (HOST_KEYS[0], _Forger(good), HOST_KEYS[2])  # type: ignore[assignment]
    client, server = SshClient(random.Random(1)), forged.server(random.Random(2))
    client.start(0.0)
    server.start(0.0)
    events = []
    for _ in range(4):
        for piece in client.take():
            server.receive(piece, 0.0)
        for piece in server.take():
            events += client.receive(piece, 0.0)
    assert events == [Finished()]


class _Forger:
    """A host key that signs something else."""

    def __init__(self, key) -> None:
        self.algorithms, self.blob, self._key = key.algorithms, key.blob, key

    def sign(self, algorithm: str, data: bytes) -> bytes:
        return bytes(self._key.sign(algorithm, data + b"x"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", [b"Invalid SSH identification string.", b"\r\n"]),
        (b"SSH-1.5-x\r\n", [b"Protocol major versions differ.", b"\r\n"]),
    ],
)
def test_a_complaint_is_two_writes_since_a_reset_may_come_between(data: bytes, words: list[bytes]) -> None:
    server = host().server(random.Random(1))
    server.start(0.0)
    server.take()
    assert server.receive(data, 0.0) == [Finished(resets=data.startswith(b"GET"))]
    assert server.take() == words
