"""Real chain data in ../shared/data, which is never copied into the repository.

Where the folder is missing, a test that needs it says so in one line and passes by; with
TEST_REQUIRE_SHARED_DATA=1 it fails.
"""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "../shared/data"
BLOCK_FILES = ("mainnet-blocks-0-255.bin", "mainnet-block-277647.bin")
_MISSING = "did not run: ../shared/data is not there"


def shared_file(name: str) -> bytes | None:
    """A file of the folder; ``None``, after saying so, where it is missing."""
    path = FOLDER / name
    if path.is_file():
        return path.read_bytes()
    assert os.environ.get("TEST_REQUIRE_SHARED_DATA") != "1", f"{_MISSING} ({name}), but it is required"
    print(_MISSING)
    return None


def real_blocks(name: str = BLOCK_FILES[0]) -> list[bytes]:
    """The blocks of one file, in order; an empty list, after saying so, where the folder is missing."""
    data = shared_file(name) or b""
    blocks, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        blocks.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    assert at == len(data), f"{name} is cut short"
    return blocks
