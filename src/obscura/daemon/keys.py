"""Channel keys on disk: one per listening address, so that neither faces nor a changed address are linked by it (design 6)."""

from __future__ import annotations

import random
import re
from pathlib import Path

from obscura.channel.uniform import StaticKey
from obscura.daemon.datadir import write_atomic
from obscura.errors import UserError
from obscura.limits import KEY_BYTES
from obscura.wire.address import Address


class KeyStore:
    """``keys/<carrier>-<host>-<port>.key``, each 32 raw bytes, mode 0600 in a directory of mode 0700."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self._folder = folder
        self._rng = rng

    def of(self, listen: Address) -> StaticKey:
        """The key of a listening address as configured (port 0 included); made and stored at first use."""
        path = self._path(listen)
        try:
            secret = path.read_bytes()
        except FileNotFoundError:
            key = StaticKey.generate(self._rng)
            write_atomic(path, key.secret())
            return key
        except OSError as error:
            raise UserError(f"the channel key {path} cannot be read: {error.strerror}") from None
        if len(secret) != KEY_BYTES:
            raise UserError(f"the channel key {path} has {len(secret)} bytes, not {KEY_BYTES}: restore it or delete it")
        return StaticKey.from_bytes(secret)

    def _path(self, listen: Address) -> Path:
        host = re.sub(r"[^a-z0-9.]", "_", listen.host)
        return self._folder / f"{listen.carrier.name.lower()}-{host}-{listen.port}.key"
