"""The data directory: private, held by one process at a time, files whole or old."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from obscura.daemon import datadir
from obscura.daemon.datadir import DataDir, make_private, socket_address, write_atomic
from obscura.daemon.scope import Scope
from obscura.daemon.tokens import TokenFile
from obscura.errors import UserError

HOLD = """
import sys
from pathlib import Path
from obscura.daemon.datadir import DataDir
with DataDir(Path(sys.argv[1]), "dev").hold():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other_node(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds ``tmp_path/dev``."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_pid_that_a_crash_left_holds_nothing(tmp_path: Path, other_node: subprocess.Popen[str]) -> None:
    """Another process may have that pid by then."""
    folder = DataDir(tmp_path, "dev")
    assert folder.locked_by() == other_node.pid
    other_node.kill()
    other_node.wait()
    assert folder.locked_by() is None
    folder.lock_file.write_text(f"{os.getpid()}\n")
    assert folder.holder() == os.getpid()
    assert folder.locked_by() is None
    with folder.hold():
        assert folder.locked_by() == os.getpid()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_directory_is_private_and_says_who_holds_it(tmp_path: Path) -> None:
    folder = DataDir(tmp_path / "a" / "b", "dev")
    assert not folder.path.exists()
    assert folder.holder() is None
    with folder.hold() as held:
        assert held.path == tmp_path / "a/b/dev"
        assert (mode(held.path), mode(held.keys), mode(held.lock_file)) == (0o700, 0o700, 0o600)
        assert held.rpc_socket.parent == held.path
        assert folder.holder() == os.getpid()
    assert folder.holder() is None
    with folder.hold():
        pass


def test_a_directory_that_others_could_read_is_made_private(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir(mode=0o755)
    with DataDir(tmp_path, "dev").hold():
        assert mode(tmp_path / "dev") == 0o700


def test_another_process_is_refused_by_pid(tmp_path: Path, other_node: subprocess.Popen[str]) -> None:
    folder = DataDir(tmp_path, "dev")
    assert folder.holder() == other_node.pid
    with pytest.raises(UserError) as raised, folder.hold():
        pass
    assert str(raised.value) == (
        f"another node (pid {other_node.pid}) uses {tmp_path}/dev: stop it or choose another --data-dir"
    )
    with DataDir(tmp_path, "test").hold():
        pass  # another network is another directory


def test_a_killed_holder_leaves_nothing_in_the_way(tmp_path: Path, other_node: subprocess.Popen[str]) -> None:
    folder = DataDir(tmp_path, "dev")
    other_node.kill()
    other_node.wait()
    assert folder.lock_file.read_text() == f"{other_node.pid}\n"
    assert folder.holder() is None
    with folder.hold():
        assert folder.holder() == os.getpid()


def test_the_same_process_is_refused_too(tmp_path: Path) -> None:
    folder = DataDir(tmp_path, "dev")
    with folder.hold(), pytest.raises(UserError, match=f"pid {os.getpid()}"), folder.hold():
        pass


@pytest.mark.parametrize("content", [b"", b"x", b"0", b"-1", b"99999999999999999999", b"\xff\n", b"4194304\n"])
def test_a_lock_file_with_nonsense_names_nobody(tmp_path: Path, content: bytes) -> None:
    folder = DataDir(tmp_path, "dev")
    folder.path.mkdir()
    folder.lock_file.write_bytes(content)
    assert folder.holder() is None


def test_a_lock_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    folder = DataDir(tmp_path, "dev")
    folder.path.mkdir()
    precious = tmp_path / "precious"
    precious.write_text("content")
    folder.lock_file.symlink_to(precious)
    with pytest.raises(UserError, match="cannot be opened"), folder.hold():
        pass
    assert precious.read_text() == "content"


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "dev").write_text("")
    with pytest.raises(UserError, match="choose another --data-dir"):
        make_private(tmp_path / "dev")


def test_a_directory_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(UserError, match="belongs to another user"):
        make_private(tmp_path / "dev")


def test_tokens_that_root_changes_stay_those_of_the_user_whose_node_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sudo obscura token remove a` took every other token of a service too: its node could not read the file any more."""
    folder = tmp_path / "dev"
    folder.mkdir(mode=0o700)
    if os.getuid() == 0:
        os.chown(folder, 65_534, 65_534)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    tokens = TokenFile(folder / "rpc.tokens")
    for name in ("a", "b"):
        tokens.add(name, Scope.READ)
    tokens.remove("a")
    assert [token.name for token in tokens.tokens()] == ["b"]
    assert (tokens.path.stat().st_uid, tokens.path.stat().st_gid) == (folder.stat().st_uid, folder.stat().st_gid)
    assert mode(tokens.path) == 0o600


def test_writing_replaces_as_a_whole(tmp_path: Path) -> None:
    folder = DataDir(tmp_path, "dev")
    with folder.hold():
        folder.write("peers", b"old")
        folder.write("peers", b"new")
        assert (folder.path / "peers").read_bytes() == b"new"
        assert mode(folder.path / "peers") == 0o600


def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "peers"
    write_atomic(path, b"old")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(datadir.os, "fsync", full)
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["peers"]


def test_what_a_crash_left_of_a_write_is_removed_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*paths: str) -> None:
        raise OSError(5, "the process was killed here")

    folder, names = DataDir(tmp_path, "dev"), ("outbox", "peers.dat", "rpc.tokens")
    with folder.hold(), monkeypatch.context() as killed:
        before = set(folder.path.iterdir())
        killed.setattr(datadir.os, "rename", crash)
        killed.setattr(datadir.os, "unlink", lambda path: None)
        for path in (*(folder.path / name for name in names), folder.keys / "a.key"):
            with pytest.raises(OSError, match="killed"):
                write_atomic(path, b"own transactions")
        mine = {folder.path / ".mine", folder.path / ".peers.dat.20261130", folder.keys / ".onion.key.original"}
        left = sorted(entry.name[:-20] for entry in set(folder.path.iterdir()) - before)
        assert left == [f".{name}" for name in names]
        for file in mine:
            file.touch()
    with folder.hold():
        kept = {*folder.path.iterdir(), *folder.keys.iterdir()} - before - mine
        assert all(file.exists() for file in mine), "a user's own copies, of which there may be no other"
    assert [file.name[:11] for file in kept] == [".rpc.tokens"], "others write tokens, and without the lock"


def test_a_full_disk_is_told_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes, at: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(datadir.os, "pwrite", full)
    with pytest.raises(UserError, match=r"/\.lock cannot be written: No space left"), DataDir(tmp_path, "dev").hold():
        pass


@pytest.mark.parametrize("length", [100, 107, 108, 250])
def test_a_socket_is_reachable_however_long_its_path(tmp_path: Path, length: int) -> None:
    path = tmp_path / "rpc.sock"
    while len(str(path)) < length - 101:
        path = path.parent / ("d" * 100) / "rpc.sock"
    path = path.parent / ("d" * max(1, length - len(str(path)) - 1)) / "rpc.sock"
    path.parent.mkdir(parents=True)
    assert len(str(path)) == max(length, len(str(tmp_path)) + 11)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as caller:
        with socket_address(path) as address:
            listener.bind(address)
        listener.listen()
        assert path.is_socket()
        with socket_address(path) as address:
            caller.connect(address)


def test_a_long_path_without_proc_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datadir.os.path, "isdir", lambda path: False)
    with pytest.raises(UserError, match="choose a shorter --data-dir"), socket_address(tmp_path / ("s" * 110)):
        pass


def test_a_new_directory_says_its_version(tmp_path: Path) -> None:
    with DataDir(tmp_path, "dev").hold() as held:
        assert held.version_file.read_bytes() == b"%d\n" % datadir.VERSION
        assert mode(held.version_file) == 0o600


def test_a_directory_from_before_versions_is_brought_forward_step_by_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = DataDir(tmp_path, "dev")
    with folder.hold():
        (folder.path / "old-name").write_bytes(b"content")
    folder.version_file.unlink()  # as every version before the first number left it
    steps: list[int] = []

    def rename(directory: Path) -> None:
        steps.append(1)
        if (directory / "old-name").exists():
            (directory / "old-name").rename(directory / "new-name")

    def fail_once(directory: Path) -> None:
        steps.append(2)
        if steps.count(2) == 1:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(datadir, "MIGRATIONS", {0: lambda directory: steps.append(0), 1: rename, 2: fail_once})
    monkeypatch.setattr(datadir, "VERSION", 3)
    with pytest.raises(UserError, match="cannot be brought to form"), folder.hold():
        pass
    assert folder.version_file.read_bytes() == b"2\n"
    with folder.hold():  # goes on where it was cut off
        assert (folder.path / "new-name").read_bytes() == b"content"
    assert steps == [0, 1, 2, 2]
    assert folder.version_file.read_bytes() == b"3\n"
    with folder.hold():
        pass
    assert steps == [0, 1, 2, 2], "a directory of this version needs nothing"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"%d\n" % (datadir.VERSION + 1), "written by a later version"),
        (b"99999999999999999999", "written by a later version"),
        (b"", "is damaged"),
        (b"-1\n", "is damaged"),
        (b"\xff\n", "is damaged"),
        ("²\n".encode(), "is damaged"),
    ],
)
def test_a_directory_that_is_not_understood_is_refused_and_not_touched(tmp_path: Path, text: bytes, said: str) -> None:
    folder = DataDir(tmp_path, "dev")
    with folder.hold():
        pass
    folder.version_file.write_bytes(text)
    with pytest.raises(UserError, match=said), folder.hold():
        pytest.fail("it was held")
    assert folder.version_file.read_bytes() == text
    assert folder.holder() is None
