"""The directory of one node: private, held by one process, written so that a crash leaves old or new."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from obscura.errors import UserError
from obscura.limits import SOCKET_PATH_BYTES

VERSION = 1  # of the directory as a whole: which files there are and in what form; the chain's file has its own (store.schema)

# MIGRATIONS[n] turns a directory of version n into n + 1. It may be cut off at any point and runs again then. Directories from
# before there was a number are 0, and their files are those of 1.
MIGRATIONS: dict[int, Callable[[Path], None]] = {0: lambda directory: None}

# Of files that are being written, by mkstemp; the ending is ours alone: a user's .onion.key.original is no leftover.
_UNFINISHED = ".unfinished"
# Tokens are written without the lock too.
_LEFT = re.compile(r"\.(?!rpc\.tokens\.).+\.[a-z0-9_]{8}" + re.escape(_UNFINISHED))


class DataDir:
    """``<data-dir>/<network>``. Making the object touches nothing; ``hold`` creates and locks it."""

    def __init__(self, root: Path, network: str) -> None:
        self.path = root / network

    @property
    def rpc_socket(self) -> Path:
        """Where the control socket is while the node runs."""
        return self.path / "rpc.sock"

    @property
    def rpc_cookie(self) -> Path:
        """Where the secret of the RPC over HTTP is while the node runs."""
        return self.path / "rpc.cookie"

    @property
    def rpc_tokens(self) -> Path:
        """Where the user's tokens for it are, hashed."""
        return self.path / "rpc.tokens"

    @property
    def keys(self) -> Path:
        """Directory of secret keys; it exists, 0700, once the directory has been held."""
        return self.path / "keys"

    @property
    def lock_file(self) -> Path:
        """What ``hold`` locks; it holds the pid of the node."""
        return self.path / ".lock"

    @property
    def version_file(self) -> Path:
        """Says in which form the rest is: a number and a line feed."""
        return self.path / "version"

    @contextlib.contextmanager
    def hold(self) -> Iterator[DataDir]:
        """Create the directory (0700) and keep every other node out of it for the length of the block.

        A directory of an earlier version is brought forward first. Raises ``UserError`` if another node holds it, if it cannot
        be private, or if a later version wrote it. The lock dies with the process.
        """
        make_private(self.path)
        make_private(self.keys)
        try:
            fd = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise UserError(f"{self.lock_file} cannot be opened: {error.strerror}") from None
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"another node (pid {self.holder() or 'unknown'}) uses {self.path}: "
                    "stop it or choose another --data-dir"
                ) from None
            try:
                os.ftruncate(fd, 0)
                os.pwrite(fd, b"%d\n" % os.getpid(), 0)
            except OSError as error:
                raise UserError(f"{self.lock_file} cannot be written: {error.strerror}") from None
            try:
                self._bring_forward()
                _remove_leftovers(self.path, self.keys)
                yield self
            finally:
                os.ftruncate(fd, 0)  # before the lock goes: afterwards the text may be the next holder's
        finally:
            os.close(fd)

    def _bring_forward(self) -> None:
        """Nothing is changed in a directory that this version does not know. Each step is recorded when it is done."""
        version = self._version()
        if version > VERSION:
            raise UserError(
                f"{self.path} was written by a later version (form {version}, this one knows {VERSION}): "
                "use that version, or choose another --data-dir"
            )
        while version < VERSION:
            try:
                MIGRATIONS[version](self.path)
                version += 1
                write_atomic(self.version_file, b"%d\n" % version)
            except OSError as error:
                raise UserError(
                    f"{self.path} cannot be brought to form {version}: {error.strerror}; it is as it was"
                ) from None

    def _version(self) -> int:
        try:
            text = self.version_file.read_bytes()[:20].strip()
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise UserError(f"{self.version_file} cannot be read: {error.strerror}") from None
        if not text.isdigit():
            raise UserError(
                f"{self.version_file} is damaged, it holds no number: write {VERSION} into it if this version wrote the rest"
            )
        return int(text)

    def holder(self) -> int | None:
        """The pid of the node that holds the directory, None if none does or it is gone. Takes no lock."""
        try:
            pid = int(self.lock_file.read_bytes()[:20])
        except (OSError, ValueError):
            return None
        return pid if 0 < pid < 1 << 31 and _is_alive(pid) else None

    def locked_by(self) -> int | None:
        """As ``holder``, and None where the lock is free: a crash leaves a pid, which another process may have by then."""
        pid = self.holder()
        if pid is None:
            return None
        try:
            fd = os.open(self.lock_file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return pid
        except OSError:  # a file system that has no locks: no node holds it either
            return None
        finally:
            os.close(fd)
        return None

    def write(self, name: str, data: bytes) -> None:
        """Replace the file ``name`` below the directory by ``data`` (see ``write_atomic``)."""
        write_atomic(self.path / name, data)


def _remove_leftovers(*folders: Path) -> None:
    """What a crash left of files that were being written: copies that stay for ever, of own transactions and keys too."""
    for entry in [entry for folder in folders for entry in folder.iterdir() if _LEFT.fullmatch(entry.name)]:
        with contextlib.suppress(OSError):
            entry.unlink()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # alive, and another user's
    return True


def make_private(path: Path) -> None:
    """Make sure that ``path`` is a directory of ours with mode 0700. Raises ``UserError``."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
        if found.st_uid != os.geteuid():
            raise UserError(f"{path} belongs to another user: choose another --data-dir")
        if stat.S_IMODE(found.st_mode) != 0o700:
            path.chmod(0o700)
    except OSError as error:
        raise UserError(f"{path} cannot be made: {error.strerror}; choose another --data-dir") from None


def other_owner(folder: Path) -> tuple[int, int] | None:
    """User and group of a node's directory where root asks and it is another's, as a service's is; else None."""
    if os.geteuid() != 0 or not folder.is_dir():
        return None
    found = folder.stat()
    return (found.st_uid, found.st_gid) if found.st_uid else None


def write_atomic(path: Path, data: bytes, owner: tuple[int, int] | None = None) -> None:
    """Write ``data`` to ``path`` with mode 0600; a crash leaves the old content or the new, no mixture.

    Durable when it returns: the file and its directory entry are synced. ``owner``: user and group who get it, for root alone.
    Raises ``OSError``, which names ``path``, leaving nothing.
    """
    fd, temporary = tempfile.mkstemp(_UNFINISHED, f".{path.name}.", path.parent)  # mkstemp makes it 0600
    try:
        with os.fdopen(fd, "wb") as file:
            if owner is not None:
                os.fchown(fd, *owner)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException as error:
        os.unlink(temporary)
        if isinstance(error, OSError):
            error.filename = str(path)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def write_new(path: Path, text: str, mode: int = 0o666) -> None:
    """Make a file that is not there yet. Raises ``FileExistsError``, and ``OSError`` with no file left.

    What a full disk left of it would be taken for the whole the next time.
    """
    fd = os.open(str(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """What to give bind or connect for a Unix socket at ``path``, valid inside the block.

    A path over 107 bytes does not fit into ``sockaddr_un``; it is reached through a descriptor of its
    directory, as ``/proc/self/fd/N/name``. Raises ``UserError`` where the system has no such thing,
    ``OSError`` if the directory is missing.
    """
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
        yield str(path)
        return
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        through = f"/proc/self/fd/{fd}"
        if not os.path.isdir(through):
            raise UserError(
                f"the path of the control socket {path} is longer than {SOCKET_PATH_BYTES} bytes: "
                "choose a shorter --data-dir"
            )
        yield f"{through}/{path.name}"
    finally:
        os.close(fd)
