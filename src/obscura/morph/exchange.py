"""The shape of the web carriers without WebSockets: requests and their answers, both with pictures as bodies (design 8).

One request is out at a time, as with the libraries that people use. A POST carries what the client says, and its answer what the
server has to say just then. Who has nothing to say asks by GET, and the server answers when it has something, or after some time
with nothing: a long poll, which gets longer while nobody says anything.
"""

from __future__ import annotations

import random
import re
from typing import Final

from obscura.limits import MAX_PICTURE, POLL_FIRST_S, POLL_S
from obscura.morph.request import Request

# SOI, APP0 of JFIF 1.1 with 96 dots per inch and no thumbnail, and the head of a scan with one component. What comes behind it is
# to everybody who does not decode the picture, if no byte 255 stands alone there (ITU-T T.81, B.1.1.5). EOI ends it.
PICTURE: Final = b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\1\0\x60\0\x60\0\0\xff\xda\0\x08\1\1\0\0\x3f\0"
PICTURE_END: Final = b"\xff\xd9"
LEAST_PICTURE: Final = len(PICTURE) + len(PICTURE_END)
_MOST: Final = (
    MAX_PICTURE - LEAST_PICTURE
) // 2  # bytes of one picture before they are escaped, if all of them need it
PICTURE_TYPE: Final = b"image/jpeg"  # classifiers take it as data; application/octet-stream they remark on
ANSWER_TYPE: Final = b"application/json"
_ANSWER = re.compile(rb'\{"[a-z_]{1,32}":"([A-Za-z0-9_-]{16,8192})"\}')


def encode_answer(name: bytes, token: bytes) -> bytes:
    """The body that answers a login."""
    return b'{"%s":"%s"}' % (name, token)


def decode_answer(body: bytes) -> bytes | None:
    """The token of such a body, whatever its name; None if it is none."""
    found = _ANSWER.fullmatch(body)
    return found[1] if found is not None else None


class Pile:
    """Bytes that wait to be the body of a message, in the pieces in which they came."""

    __slots__ = ("_pieces", "size")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.size = 0

    def put(self, data: bytes) -> None:
        """Add to its end."""
        if data:
            self._pieces.append(data)
            self.size += len(data)

    def take(self) -> list[bytes]:
        """The next body, in pieces: a picture of what waits, as much as one may hold."""
        left, at = _MOST, 0
        for piece in self._pieces:
            if len(piece) > left:
                break
            left -= len(piece)
            at += 1
        taken = b"".join(self._pieces[:at])
        del self._pieces[:at]
        if not at:
            taken = self._pieces[0][:left]
            self._pieces[0] = self._pieces[0][left:]
        self.size -= len(taken)
        return [PICTURE, taken.replace(b"\xff", b"\xff\0"), PICTURE_END]


class PictureReader:
    """Takes pictures apart again, a piece at a time."""

    __slots__ = ("_is_cut", "_left", "_skips")

    def __init__(self) -> None:
        self._skips = self._left = 0  # bytes before what is wanted, and of it
        self._is_cut = False  # between a byte 255 and what follows it

    def begin(self, size: int) -> None:
        """A picture of so many bytes comes, at least ``LEAST_PICTURE``."""
        self._skips, self._left, self._is_cut = len(PICTURE), size - LEAST_PICTURE, False

    def read(self, piece: bytes | memoryview) -> bytes:
        """What was said in the next piece."""
        skipped = min(self._skips, len(piece))
        self._skips -= skipped
        data = bytes(piece[skipped : skipped + self._left])
        self._left -= len(data)
        if self._is_cut:
            data = b"\xff" + data
        self._is_cut = data.endswith(b"\xff")
        if self._is_cut:
            data = data[:-1]
        return data.replace(b"\xff\0", b"\xff")


class Exchange:
    """The server's side of it, as far as it is not HTTP: what waits, and the request that waits for it."""

    __slots__ = ("_hold_s", "_longest_s", "ends", "is_held", "is_prompt", "is_silent", "pile", "reader")

    def __init__(self, rng: random.Random) -> None:
        self.pile = Pile()
        self.is_held = False  # a request waits for its answer
        self.is_prompt = False  # which it gets in this turn, with whatever there is
        self.is_silent = False  # and will wait until nginx gives up on the application
        self.ends = False  # the next answer is the last one
        self._hold_s, self._longest_s = POLL_FIRST_S, rng.uniform(*POLL_S)
        self.reader = PictureReader()

    @property
    def has_word(self) -> bool:
        """Whether the request that is held gets its answer in this turn."""
        return self.is_held and not self.is_silent and (self.is_prompt or self.pile.size > 0)

    def hold_s(self) -> float:
        """How long the next poll may wait: longer each time."""
        held = self._hold_s
        self._hold_s = min(2 * held, self._longest_s)
        return held

    def is_busy(self) -> None:
        """Somebody said something."""
        self._hold_s = POLL_FIRST_S

    @staticmethod
    def takes(request: Request) -> bool:
        """Whether this can be a message of the session."""
        return not request.is_chunked and (
            request.method == b"GET"
            if not request.length
            else request.length >= LEAST_PICTURE and request.method == b"POST"
        )
