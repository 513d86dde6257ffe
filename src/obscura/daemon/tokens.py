"""Secrets that open the RPC over HTTP: the cookie of one run, and the user's tokens. Files hold the cookie and hashes of tokens.

A secret is 32 random bytes, so that its SHA-256 needs neither salt nor work to be safe in a file.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import secrets
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from obscura.daemon.datadir import make_private, other_owner, write_atomic
from obscura.daemon.scope import Scope
from obscura.errors import UserError
from obscura.limits import MAX_TOKENS, SECRET_BYTES, TOKENS_FILE_BYTES

log = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,40}")


class Token(msgspec.Struct, frozen=True):
    """What is stored of a user's token. ``hash`` is the SHA-256 of its text, as hex."""

    name: str
    scope: Literal["read", "write", "admin"]
    hash: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    created: str  # date in UTC


def new_secret() -> str:
    """A secret of 43 characters that go into a header and an address."""
    return secrets.token_urlsafe(SECRET_BYTES)


def digest_of(secret: str) -> bytes:
    """What is compared and stored in place of a secret."""
    return sha256(secret.encode()).digest()


@contextlib.contextmanager
def cookie_file(path: Path) -> Iterator[str]:
    """A new secret in a file with mode 0600 for the length of the block. Raises ``UserError``."""
    secret = new_secret()
    try:
        write_atomic(path, secret.encode())
    except OSError as error:
        raise UserError(f"the cookie {path} cannot be written: {error.strerror}") from None
    try:
        yield secret
    finally:
        path.unlink(missing_ok=True)


class TokenFile:
    """The user's tokens of one node, read again when their file has changed: a removed one ends at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, ...] | None = None
        self._tokens: tuple[Token, ...] = ()

    def tokens(self) -> tuple[Token, ...]:
        """All of them; none where the file cannot be read, or others could have written it (which is logged)."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            self._seen, self._tokens = None, ()
            return ()
        except OSError as error:
            log.warning("tokens: the file cannot be looked at: %s; none is accepted", error.strerror)
            return ()
        seen = (found.st_ctime_ns, found.st_mtime_ns, found.st_ino, found.st_size)  # the first one nobody can set back
        if seen != self._seen:
            self._seen, self._tokens = seen, ()
            try:
                self._tokens = self._read()
            except UserError:
                log.warning("tokens: their file is damaged or open to others; none is accepted")
        return self._tokens

    def add(self, name: str, scope: Scope) -> str:
        """A new token; its secret is shown this once. Raises ``UserError``."""
        if not _NAME.fullmatch(name):
            raise UserError(f"{name!r} is no name of a token: 1 to 40 of letters, digits, dot, dash, underscore")
        secret = new_secret()
        created = datetime.now(UTC).date().isoformat()
        token = Token(name, scope.label, digest_of(secret).hex(), created)  # type: ignore[arg-type]
        if other_owner(self.path.parent) is None:
            make_private(self.path.parent)
        with self._alone():
            kept = self.stored()
            if any(other.name == name for other in kept):
                raise UserError(f"there is a token {name} already: `obscura token remove {name}` ends it")
            if len(kept) >= MAX_TOKENS:
                raise UserError(f"there are {MAX_TOKENS} tokens already: remove one")
            self._write((*kept, token))
        return secret

    def remove(self, name: str) -> None:
        """End a token. Raises ``UserError``."""
        with self._alone():
            kept = self.stored()
            left = tuple(token for token in kept if token.name != name)
            if len(left) == len(kept):
                raise UserError(f"there is no token {name!r}: `obscura token list` shows all")
            self._write(left)

    def stored(self) -> tuple[Token, ...]:
        """What the file says now. Raises ``UserError`` where it is damaged."""
        return self._read() if self.path.exists() else ()

    def _read(self) -> tuple[Token, ...]:
        damaged = UserError(f"{self.path} is damaged or open to others: move it away and add the tokens anew")
        try:
            if stat.S_IMODE(self.path.stat().st_mode) & 0o077:
                raise damaged
            with self.path.open("rb") as file:
                raw = file.read(TOKENS_FILE_BYTES + 1)
            if len(raw) > TOKENS_FILE_BYTES:
                raise damaged
            tokens = msgspec.json.decode(raw, type=tuple[Token, ...])
        except (OSError, msgspec.MsgspecError, ValueError):
            raise damaged from None
        if len({token.name for token in tokens}) < len(tokens):
            raise damaged
        return tokens

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Two changes at once would lose one, or bring back what the other one took away."""
        try:
            directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:  # there is none: nothing to change
            yield
            return
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield
        finally:
            os.close(directory)

    def _write(self, tokens: tuple[Token, ...]) -> None:
        try:
            data = msgspec.json.format(msgspec.json.encode(tokens)) + b"\n"
            # `sudo obscura token` for a service: a file of root's could not be read by the node, and no token would open it
            write_atomic(self.path, data, other_owner(self.path.parent))
        except OSError as error:
            raise UserError(f"{self.path} cannot be written: {error.strerror}") from None
