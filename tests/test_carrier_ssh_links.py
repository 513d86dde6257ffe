"""Links over carrier ssh between real nodes on loopback, and AsyncSSH as a server for our client."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from random import Random

import asyncssh
import pytest

from obscura.daemon.config import Config
from obscura.daemon.node import Node
from obscura.errors import Unreachable
from obscura.morph.carrier import Data, Finished, Flight, Ready
from obscura.morph.ssh import SshClient
from obscura.morph.ssh_kex import METHODS
from obscura.morph.ssh_mac import MACS
from obscura.morph.ssh_names import CLIENT_PROPOSAL
from obscura.wire.address import Address

DEADLINE_S = 30.0


def config(folder: Path, **more: object) -> Config:
    return Config(network="dev", data_dir=folder, max_outbound=0, **more)  # type: ignore[arg-type]


def listening(folder: Path, **more: object) -> Config:
    return config(folder, listen=("127.0.0.1:0?carrier=ssh",), **more)


# --- Nodes ------------------------------------------------------------------------------------------------------------


def test_a_link_with_the_key(tmp_path: Path) -> None:
    async def go() -> None:
        async with Node(listening(tmp_path / "a")) as alice, Node(config(tmp_path / "b", listen=())) as bob:
            peer = await bob.connect(alice.addresses[0])
            assert (peer.pattern, peer.carrier.name) == ("NK", "SSH")
            assert await bob.ping(peer) < 5
            (seen,) = alice.peers()
            assert seen.session_id == peer.session_id

    asyncio.run(asyncio.wait_for(go(), DEADLINE_S))


@pytest.mark.parametrize("unlisted", [False, True])
def test_joining_without_the_key_where_strangers_may(tmp_path: Path, unlisted: bool) -> None:
    async def go() -> str:
        server = listening(tmp_path / "a", unlisted=unlisted)
        async with Node(server) as alice, Node(config(tmp_path / "b", listen=())) as bob:
            place = alice.addresses[0]
            try:
                return (await bob.connect(Address(None, place.host, place.port, place.carrier))).pattern
            except Unreachable:
                return "none"

    assert asyncio.run(asyncio.wait_for(go(), DEADLINE_S)) == ("none" if unlisted else "NXpsk0")


def test_a_server_that_is_none_of_ours_is_no_peer(tmp_path: Path) -> None:
    async def go() -> None:
        key = asyncssh.generate_private_key("ssh-ed25519")
        server = await asyncssh.listen("127.0.0.1", 0, server_host_keys=[key], authorized_client_keys=None)
        async with server, Node(config(tmp_path / "b", listen=())) as bob:
            with pytest.raises(Unreachable):
                await bob.connect(Address.parse(f"obscura://127.0.0.1:{server.get_port()}?carrier=ssh"))

    asyncio.run(asyncio.wait_for(go(), DEADLINE_S))


# --- AsyncSSH -----------------------------------------------------------------------------------------------------------


class Open(asyncssh.SSHServer):
    """Lets everybody in, so that its channel is to be had."""

    def begin_auth(self, username: str) -> bool:
        return False


async def _echo(process: asyncssh.SSHServerProcess[bytes]) -> None:
    assert process.command is not None
    assert process.command.startswith("git-upload-pack '")
    process.stdout.write(b"hello")
    while data := await process.stdin.read(65_536):
        process.stdout.write(data)
    process.exit(0)


async def _session(port: int, data: bytes) -> tuple[bytes, bytes, bool]:
    """Our client against a server: the first answer, the echo of ``data``, and whether it ended in order."""
    client, loop = SshClient(Random(1)), asyncio.get_running_loop()
    first, echo, is_over = b"", b"", False
    with socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", port))
        client.start(0.0)
        while not is_over:
            await loop.sock_sendall(sock, b"".join(client.take()))
            piece = await loop.sock_recv(sock, 65_536)
            assert piece, "the server hung up"
            events = client.receive(piece, 0.0)
            events += client.due(0.0) if client.deadline() <= 0.0 else []
            for event in events:
                if isinstance(event, Flight):
                    first = event.data
                    client.send(data, 0.0)
                elif isinstance(event, Data):
                    echo += event.data
                elif isinstance(event, Ready):
                    raise AssertionError("it wants a key")
                is_over = is_over or isinstance(event, Finished)
            if len(echo) == len(data) and first:
                client.end(0.0)
    return first, echo, is_over


async def _against(data: bytes, **options: object) -> None:
    keys = [asyncssh.generate_private_key(kind) for kind in ("ssh-ed25519", "ecdsa-sha2-nistp256")]
    server = await asyncssh.listen(
        "127.0.0.1", 0, server_factory=Open, server_host_keys=keys, process_factory=_echo, encoding=None, **options
    )
    async with server:
        assert await _session(server.get_port(), data) == (b"hello", data, True)


@pytest.mark.parametrize("exchange", [name for name in METHODS if "group1" not in name])
def test_a_session_with_asyncssh_by_every_exchange(exchange: str) -> None:
    asyncio.run(asyncio.wait_for(_against(b"x" * 100, kex_algs=[exchange]), DEADLINE_S))


@pytest.mark.parametrize("cipher", CLIENT_PROPOSAL.encryption_up)
def test_a_session_with_asyncssh_by_every_cipher(cipher: str) -> None:
    async def go() -> None:
        for mac in MACS if cipher == "aes256-ctr" else ["hmac-sha2-256"]:
            await _against(Random(1).randbytes(5_000), encryption_algs=[cipher], mac_algs=[mac])

    asyncio.run(asyncio.wait_for(go(), DEADLINE_S))


def test_windows_and_new_keys_against_asyncssh() -> None:
    data = Random(1).randbytes(5 << 20)
    asyncio.run(asyncio.wait_for(_against(data, rekey_bytes=1 << 20), DEADLINE_S))
