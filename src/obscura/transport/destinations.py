"""Internal socket addresses of I2P destinations (specification, *Address Mapping*; design 11): an injective map, and its file.

An I2P destination is 391 bytes; software that knows socket addresses gets an IPv6 address of ``fd60:db4d:ddb5::/48`` instead,
the range that GarliCat gave to I2P. It means something inside one node only: addresses of that range are refused from the wire
and from configuration (``obscura.wire.address``). The 80 bits below the prefix are a kind (16 bits) and a number (64 bits) that
is never given twice, so that two destinations never have one address, and one destination never two of a kind at a time.
"""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

from obscura.limits import I2P_DIALLED, I2P_INBOUND
from obscura.transport.sam_words import Destination
from obscura.wire.address import GARLI_CAT

SocketAddress = tuple[str, int]  # an IPv6 address as text, and the port 0: I2P has none

_DIALLED, _INBOUND = 1, 2
_DIGEST = 8


def _address(kind: int, number: int) -> SocketAddress:
    return str(GARLI_CAT.network_address + (kind << 64 | number)), 0


class Destinations:
    """Those that were dialled keep their address, over restarts with a ``file``; those that dial us while they are linked."""

    def __init__(self, file: Path | None = None) -> None:
        """Raises ``OSError`` if there is a file that cannot be read."""
        self._file = DialledFile(file) if file is not None else None
        self._dialled: OrderedDict[bytes, tuple[int, Destination]] = OrderedDict()  # by hash, longest unused first
        self._inbound: dict[bytes, list[int]] = {}  # by hash: number, streams
        self._hosts: dict[SocketAddress, Destination] = {}
        self._last = 0
        self._last_inbound = 0
        for number, destination in self._file.load() if self._file is not None else ():
            self._last = max(self._last, number)
            self._remember(number, destination)

    @property
    def counts(self) -> tuple[int, int]:
        """Destinations that were dialled, and that are linked to us."""
        return len(self._dialled), len(self._inbound)

    def dialled(self, destination: Destination) -> SocketAddress:
        """The address of a destination that we dial; of 65,536 the one that was not dialled for longest makes room."""
        known = self._dialled.get(destination.hash)
        if known is not None:
            self._dialled.move_to_end(destination.hash)
            return _address(_DIALLED, known[0])
        self._last += 1
        self._remember(self._last, destination)
        if self._file is not None:
            self._file.add(self._last, destination)
        return _address(_DIALLED, self._last)

    def known(self, hash: bytes) -> Destination | None:
        """A dialled destination by its hash: a lookup that is not needed."""
        found = self._dialled.get(hash)
        return None if found is None else found[1]

    def came(self, destination: Destination) -> SocketAddress | None:
        """The address of a destination from which a stream came; None if there are too many. To be matched by ``went``."""
        known = self._inbound.get(destination.hash)
        if known is None:
            if len(self._inbound) >= I2P_INBOUND:
                return None
            self._last_inbound += 1
            known = self._inbound[destination.hash] = [self._last_inbound, 0]
            self._hosts[_address(_INBOUND, self._last_inbound)] = destination
        known[1] += 1
        return _address(_INBOUND, known[0])

    def went(self, destination: Destination) -> None:
        """One of its streams is over; with the last one its address goes, for good."""
        known = self._inbound[destination.hash]
        known[1] -= 1
        if not known[1]:
            del self._inbound[destination.hash]
            del self._hosts[_address(_INBOUND, known[0])]

    def at(self, address: SocketAddress) -> Destination | None:
        """The destination of an internal address."""
        return self._hosts.get(address)

    def _remember(self, number: int, destination: Destination) -> None:
        self._dialled[destination.hash] = number, destination
        self._hosts[_address(_DIALLED, number)] = destination
        if len(self._dialled) > I2P_DIALLED:
            _, (gone, _) = self._dialled.popitem(last=False)
            del self._hosts[_address(_DIALLED, gone)]


class DialledFile:
    """Records of number u64, length u16, destination, checksum 8; appended to, rewritten at a start if some are of no use.

    Mode 0600. What a crash left unfinished at its end, or a fault of the disk spoilt, is dropped with all that follows.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> list[tuple[int, Destination]]:
        """The newest 65,536 that are whole, each number and each destination once. Raises ``OSError``."""
        found: dict[bytes, tuple[int, Destination]] = {}  # those with the lowest numbers first
        last = whole = records = 0
        try:
            with self._path.open("rb") as file:  # all of it, as its end has the highest numbers
                for number, destination in _records(file):
                    if number <= last:
                        break
                    last, whole, records = number, file.tell(), records + 1
                    found.pop(destination.hash, None)
                    found[destination.hash] = number, destination
                    if len(found) > I2P_DIALLED:
                        del found[next(iter(found))]
                size = os.fstat(file.fileno()).st_size
        except FileNotFoundError:
            return []
        kept = list(found.values())
        if whole != size or len(kept) != records:
            try:
                self._rewrite(kept)
            except (
                OSError
            ):  # a full disk has room for cutting off what is spoilt, else what is appended is lost behind it
                with contextlib.suppress(OSError):
                    os.truncate(self._path, whole)
        return kept

    def add(self, number: int, destination: Destination) -> None:
        """Append one. A disk that is full costs the record and nothing else: no part of it stays in front of later ones."""
        record = _record(number, destination)
        with contextlib.suppress(OSError), open(self._path, "ab", buffering=0, opener=_private) as file:
            end = file.tell()
            if file.write(record) < len(record):
                file.truncate(end)

    def _rewrite(self, kept: list[tuple[int, Destination]]) -> None:
        other = self._path.with_name(self._path.name + ".new")
        other.unlink(missing_ok=True)
        try:
            with open(other, "xb", opener=_private) as file:
                for number, destination in kept:
                    file.write(_record(number, destination))
            other.replace(self._path)
        except OSError:
            other.unlink(missing_ok=True)
            raise


def _record(number: int, destination: Destination) -> bytes:
    head = number.to_bytes(8, "little") + len(destination.raw).to_bytes(2, "little") + destination.raw
    return head + blake2b(head, digest_size=_DIGEST).digest()


def _records(file: BinaryIO) -> Iterator[tuple[int, Destination]]:
    """Number and destination, up to the first record that is not whole; the file stands behind the one that was given."""
    while len(head := file.read(10)) == 10:
        head += file.read(int.from_bytes(head[8:], "little"))
        if blake2b(head, digest_size=_DIGEST).digest() != file.read(_DIGEST):
            return
        try:
            destination = Destination.parse(Destination(head[10:]).text)
        except ValueError:
            return
        yield int.from_bytes(head[:8], "little"), destination


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
