"""The SAM client against a bridge that a test plays: sessions, streams, lookups, and local ports that speak something else."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import socket
from collections.abc import Awaitable, Callable

import pytest

from obscura.limits import SAM_LINE_BYTES
from obscura.transport import sam as sam_client
from obscura.transport.sam import Sam, SamFault
from obscura.wire.address import Endpoint, Network
from sam_fakes import LOOPBACK, FakeSam, private_destination

DEADLINE_S = 20.0
RNG = random.Random(1)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await scenario()

    asyncio.run(bounded())


async def until(is_so: Callable[[], object]) -> None:
    while not is_so():  # noqa: ASYNC110  # what is waited for has no event
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("version", ["3.0", "3.3"])
def test_a_stream_between_two_sessions(version: str) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with FakeSam(version=version).running() as bridge:
            sam = Sam(bridge.place)
            key = await sam.generate()
            async with sam.session(RNG, {"inbound.length": 1}, key) as alice, sam.session(RNG, {}) as bob:
                assert alice.destination == key.public
                assert await sam.lookup(key.public.host) == key.public
                incoming = asyncio.create_task(alice.accept())
                await until(lambda: any(line.startswith("STREAM ACCEPT") for line in bridge.asked))
                with await bob.connect(key.public) as there:
                    await loop.sock_sendall(there, b"\x00first bytes\n")
                    here, peer = await incoming
                    with here:
                        assert peer == bob.destination
                        # Nothing of it was taken for a line.
                        assert await loop.sock_recv(here, 100) == b"\x00first bytes\n"
            names = [line.split("ID=")[1].split()[0] for line in bridge.asked if line.startswith("SESSION")]
            assert len(set(names)) == 2
            assert sam.version == version
            await until(lambda: not bridge.sessions)

    run(scenario)


def test_a_session_is_over_when_its_control_connection_is() -> None:
    async def scenario() -> None:
        async with FakeSam().running() as bridge, Sam(bridge.place).session(RNG, {}) as session:
            waiting = asyncio.create_task(session.accept())
            bridge.lose_sessions()
            await session.closed.wait()
            with pytest.raises(SamFault):
                await waiting

    run(scenario)


def test_a_router_whose_machine_lost_its_power_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It sends no end, and who accepts waits as long as it takes: the system has to ask, and the fault is the router's."""

    async def scenario() -> None:
        async with FakeSam().running() as bridge:
            sam = Sam(bridge.place)
            with await sam.open() as sock:
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            async with sam.session(RNG, {}) as session:
                read, is_waiting = sam_client._line, False

                async def line(sock: socket.socket) -> str:
                    nonlocal is_waiting
                    if is_waiting:  # what the system says of the connection after questions without an answer
                        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
                    text = await read(sock)
                    is_waiting = text.startswith("STREAM STATUS")
                    return text

                monkeypatch.setattr(sam_client, "_line", line)
                with pytest.raises(SamFault, match="ended the connection"):
                    await session.accept()

    run(scenario)


def test_a_ping_of_the_router_is_answered() -> None:
    async def scenario() -> None:
        async with FakeSam().running() as bridge, Sam(bridge.place).session(RNG, {}):
            bridge.controls[0].write(b"PING 12345\n")
            bridge.answers = lambda line: "" if line.startswith("PONG") else None
            await until(lambda: "PONG 12345" in bridge.asked)

    run(scenario)


def test_absent_destinations_and_forgotten_sessions() -> None:
    async def scenario() -> None:
        async with FakeSam().running() as bridge:
            sam = Sam(bridge.place)
            nobody = private_destination(99).public
            with pytest.raises(SamFault, match="no such I2P destination now") as absent:
                await sam.lookup(nobody.host)
            assert not absent.value.is_offline
            async with sam.session(RNG, {}) as session:
                with pytest.raises(SamFault, match="cannot be reached now") as down:
                    await session.connect(nobody)
                assert (down.value.result, down.value.is_offline) == ("CANT_REACH_PEER", False)
                bridge.sessions.clear()
                with pytest.raises(SamFault, match="does not know our session"):
                    await session.connect(nobody)
                with pytest.raises(SamFault, match="does not know our session"):
                    await session.accept()

    run(scenario)


def test_an_answer_for_another_destination_is_not_believed() -> None:
    async def scenario() -> None:
        one, other = private_destination(1).public, private_destination(2).public
        lie = f"NAMING REPLY RESULT=OK NAME={one.host} VALUE={other.text}\n"
        async with FakeSam(lambda line: lie if line.startswith("NAMING") else None).running() as bridge:
            with pytest.raises(SamFault, match="another destination"):
                await Sam(bridge.place).lookup(one.host)

    run(scenario)


def test_a_session_with_another_key_is_not_taken() -> None:
    async def scenario() -> None:
        mine, other = private_destination(1), private_destination(2)
        lie = f"SESSION STATUS RESULT=OK DESTINATION={other.text}\n"
        async with FakeSam(lambda line: lie if line.startswith("SESSION") else None).running() as bridge:
            with pytest.raises(SamFault, match="another destination"):
                async with Sam(bridge.place).session(RNG, {}, mine):
                    pass

    run(scenario)


REFUSALS = [
    ("SESSION STATUS RESULT=DUPLICATED_DEST\n", "does a second node run with the same key"),
    ('SESSION STATUS RESULT=I2P_ERROR MESSAGE="no tunnels"\n', "reports an error: 'no tunnels'"),
    ("SESSION STATUS RESULT=SOMETHING_NEW\n", "answers 'SOMETHING_NEW'"),
    ("SESSION STATUS RESULT=OK DESTINATION=AAAA\n", "gives no Ed25519 destination"),
    (f"SESSION STATUS RESULT=OK DESTINATION={private_destination(1, kind=0).text}\n", "gives no Ed25519 destination"),
    ("", "ended the connection"),
]


@pytest.mark.parametrize(("answer", "why"), REFUSALS)
def test_a_refused_session_says_why(answer: str, why: str) -> None:
    async def scenario() -> None:
        async with FakeSam(lambda line: answer if line.startswith("SESSION") else None).running() as bridge:
            with pytest.raises(SamFault, match=why) as refused:
                async with Sam(bridge.place).session(RNG, {}):
                    pass
            assert refused.value.is_offline  # it says nothing of any peer

    run(scenario)


GARBAGE = [
    "220 mail.example ESMTP ready\n",
    "HTTP/1.1 400 Bad Request\r\n\r\n",
    "x" * (SAM_LINE_BYTES + 1),
    "\n",
    "\x00\xff\n",
    "HELLO REPLY\n",
    "HELLO REPLY RESULT=NOVERSION\n",
    "STREAM STATUS RESULT=OK\n",
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_a_port_that_is_no_bridge_is_said_to_be_none(garbage: str) -> None:
    async def scenario() -> None:
        async with FakeSam(lambda line: garbage).running() as bridge:
            with pytest.raises(SamFault, match=r"cannot be understood|no SAM version 3|answers ''") as fault:
                await Sam(bridge.place).generate()
            assert fault.value.is_offline

    run(scenario)


def test_garbage_instead_of_a_peer_is_no_stream() -> None:
    async def scenario() -> None:
        async with FakeSam().running() as bridge, Sam(bridge.place).session(RNG, {}) as session:
            for garbage in ("AAAA\n", "\n", "x" * (SAM_LINE_BYTES + 1)):
                bridge.answers = lambda line, garbage=garbage: (
                    f"STREAM STATUS RESULT=OK\n{garbage}" if "ACCEPT" in line else None
                )
                with pytest.raises(SamFault, match="cannot be understood"):
                    await session.accept()

    run(scenario)


def test_nobody_listens() -> None:
    async def scenario() -> None:
        server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        with pytest.raises(SamFault, match=r"apt install i2pd, or set i2p-router\.sam") as fault:
            await Sam(Endpoint(Network.IPV4, LOOPBACK, port)).generate()
        assert fault.value.is_offline

    run(scenario)


@pytest.mark.parametrize("what", ["STREAM CONNECT", "NAMING LOOKUP"])
def test_a_router_that_waits_long_for_a_destination_says_something_of_that_one(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else who is down is dialled again and again: that nothing could be sent is no attempt."""
    monkeypatch.setattr("obscura.transport.sam.SAM_LOOKUP_S", 0.05)

    async def scenario() -> None:
        async with FakeSam(lambda line: " " if line.startswith(what) else None).running() as bridge:
            sam, nobody = Sam(bridge.place), private_destination(99).public
            async with sam.session(RNG, {}) as session:
                with pytest.raises(SamFault, match="did not answer within") as fault:
                    await (session.connect(nobody) if what == "STREAM CONNECT" else sam.lookup(nobody.host))
                assert fault.value.is_late
                assert not fault.value.is_offline

    run(scenario)


def test_a_bridge_that_says_nothing_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("obscura.transport.sam.SAM_REPLY_S", 0.05)

    async def scenario() -> None:
        async with FakeSam(lambda line: " ").running() as bridge:
            with pytest.raises(SamFault, match="did not answer within") as fault:
                await Sam(bridge.place).greet()
            assert fault.value.is_late

    run(scenario)


def test_a_cancelled_accept_leaves_no_socket() -> None:
    async def scenario() -> None:
        async with FakeSam().running() as bridge, Sam(bridge.place).session(RNG, {}) as session:
            waiting = asyncio.create_task(session.accept())
            await until(lambda: any("ACCEPT" in line for line in bridge.asked))
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiting
            await until(lambda: bridge.clients == 1)  # the control connection is left

    run(scenario)
