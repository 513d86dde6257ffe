"""The last words before a reset go out as those of a program that leaves Nagle's algorithm on (RFC 9293, 3.7.4)."""

from __future__ import annotations

import asyncio
import socket

import pytest

from obscura.transport import tcp


class Keeper:
    """Keeps the socket that comes up."""

    def __init__(self) -> None:
        self.receive_buffer = memoryview(bytearray(1_024))
        self.leaving: dict[tcp.Socket, None] = {}
        self.up: asyncio.Future[tcp.Socket] = asyncio.get_running_loop().create_future()

    def socket_up(self, link: tcp.Socket) -> None:
        self.up.set_result(link)

    def socket_bytes(self, link: tcp.Socket, data: memoryview) -> None: ...

    def socket_writable(self, link: tcp.Socket, is_writable: bool) -> None: ...

    def socket_down(self, link: tcp.Socket) -> None: ...


async def _written(pieces: list[bytes], *, resets: bool) -> tuple[bytes, bool]:
    """What the other side gets of the pieces, and whether the socket sends small ones without waiting."""
    keeper, loop = Keeper(), asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as dialled:
        dialled.connect(server.getsockname())
        accepted, _ = server.accept()
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        await loop.create_connection(lambda: tcp.Socket(keeper, None), sock=accepted)
        link = await keeper.up
        link.write(pieces, resets=resets)
        is_prompt = bool(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        link.shut()
        dialled.settimeout(10)
        got = b""
        while piece := await loop.run_in_executor(None, dialled.recv, 100_000):
            got += piece
    return got, is_prompt


PIECES = [b"one", b"two", b"three"]
LARGE = [bytes([number]) * 3_000_000 for number in range(4)]  # more than the system takes at once


@pytest.mark.parametrize("pieces", [PIECES, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("resets", [True, False])
def test_only_last_words_before_a_reset_wait_and_none_is_lost_by_it(pieces: list[bytes], resets: bool) -> None:
    got, is_prompt = asyncio.run(_written(pieces, resets=resets))
    assert got == b"".join(pieces)
    assert is_prompt is not resets


def test_one_piece_before_a_reset_is_an_answer_and_does_not_wait() -> None:
    assert asyncio.run(_written([b"answer"], resets=True)) == (b"answer", True)
