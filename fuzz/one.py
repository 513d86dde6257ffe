"""One target under Atheris, in a process of its own: ``python -m fuzz.one MODULE NAME CORPUS... OPTIONS``."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["obscura"]):
    from fuzz import load

    TARGET = load(sys.argv[1])[sys.argv[2]]


def main() -> None:
    atheris.Setup([sys.argv[0], *sys.argv[3:]], lambda data: TARGET.try_one(data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
