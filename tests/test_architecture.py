"""The shape of the package: which layer may import which, what a pure one may not touch, what every file owes its reader.

One table says it all; the checker is itself tried on small bad sources, since one that finds nothing proves nothing.
"""

from __future__ import annotations

import ast
import fnmatch
import importlib
import inspect
import re
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "obscura"
MAX_LINES = 450
# Longer ones, each with the length that it must not exceed: they are to be cut, not to grow.
TOO_LONG = {"obscura.limits": 581}

# Layer -> layers that it may import beside itself. A layer is the first name below ``obscura``.
FRAME = {"errors", "limits"}
LINK = {"handshake", "channel", "shaping", "morph"}
CORE = FRAME | {"wire"} | LINK | {"linkevents", "security", "connection", "ledger", "node"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "limits": set(),
    "wire": FRAME,
    "handshake": FRAME | {"wire"},
    "channel": FRAME | {"wire"},
    "shaping": FRAME | {"wire"},
    "morph": FRAME | {"wire"},
    "outbox": FRAME | {"wire", "channel", "shaping"},
    "linkevents": FRAME | {"wire", "handshake", "channel", "shaping"},
    "security": FRAME | {"wire", "channel", "morph"},
    "arrivals": FRAME | {"wire", "channel", "linkevents"},
    "connection": FRAME | {"wire", "outbox", "linkevents", "arrivals", "security"} | LINK,
    "ledger": FRAME | {"wire"},
    "node": FRAME | {"wire"} | LINK | {"linkevents", "security", "connection", "ledger"},
    "doctor": FRAME,
    "transport": CORE,
    "store": CORE,
    "daemon": CORE | {"obscura", "transport", "store", "doctor"},
    "sim": CORE | {"outbox"},  # a replay stands in for connections
    "lab": CORE | {"sim", "daemon"},  # field/: real nodes as processes
    "cli": CORE | {"obscura", "transport", "store", "daemon", "doctor", "sim", "lab"},
    "obscura": {"daemon", "node", "wire", "errors"},  # the package itself: names for an application, loaded on use
}
PURE = {
    "errors",
    "limits",
    "wire",
    "handshake",
    "channel",
    "shaping",
    "morph",
    "outbox",
    "linkevents",
    "arrivals",
    "security",
    "connection",
    "ledger",
    "node",
    "sim",
    "doctor",
}
IMPURE_MODULES = {
    *("asyncio", "concurrent", "datetime", "logging", "multiprocessing", "queue", "select", "selectors", "signal"),
    *("secrets", "socket", "sqlite3", "ssl", "subprocess", "tempfile", "threading", "time", "uvloop"),
}
IMPURE_NAMES = {"os.urandom", "os.environ", "os.getrandom", "random.SystemRandom", "uuid.uuid4"}
# Packages of optional extras: loaded where they are used, so that sim and lab can be imported without them.
OPTIONAL = {"distributed", "matplotlib", "numpy", "scipy", "sklearn"}
# What a module of a pure layer needs of something impure, and why.
NEEDED: dict[str, set[str]] = {
    # SSLObject over MemoryBIO: TLS as values, without a socket; its chance is OpenSSL's own.
    "obscura.morph.tls": {"ssl"},
    "obscura.sim.sweep": {"concurrent", "multiprocessing"},  # hands whole runs to processes; each run stays pure
}


def layer_of(module: str) -> str:
    """``obscura.wire.frame`` -> ``wire``; the package itself -> ``obscura``."""
    names = module.split(".")
    return names[1] if len(names) > 1 else names[0]


class Source:
    """One parsed module. ``faults`` are sentences; the imports are full names of modules of this package."""

    def __init__(self, module: str, text: str) -> None:
        self.module = module
        self.layer = layer_of(module)
        self.tree = ast.parse(text)
        self.lines = text.count("\n") + 1
        self._typing_only = {id(node) for node in self._under_type_checking()}

    def _under_type_checking(self) -> Iterator[ast.AST]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                for inner in node.body:
                    yield from ast.walk(inner)

    def imports(self, *, typing_too: bool) -> set[str]:
        """Modules of this package that are imported, in any function too; at type checking alone only if asked for."""
        found: set[str] = set()
        for node in ast.walk(self.tree):
            if typing_too or id(node) not in self._typing_only:
                found |= {name for name in _imported(node) if name.split(".")[0] == "obscura"}
        return found

    def direction_faults(self) -> list[str]:
        """Imports of a layer that this one may not know."""
        may = ALLOWED.get(self.layer)
        if may is None:
            return [f"{self.module}: the layer {self.layer} has no row in the table"]
        return [
            f"{self.module} imports {name}: {self.layer} may not import {layer_of(name)}"
            for name in sorted(self.imports(typing_too=True))
            if layer_of(name) != self.layer and layer_of(name) not in may
        ]

    def hidden_imports(self) -> list[str]:
        """Imports inside functions, which only the command line may have, to be quick."""
        if self.layer == "cli":
            return []
        functions = [node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        return [
            f"{self.module}:{inner.lineno} imports inside {function.name}"
            for function in functions
            for inner in ast.walk(function)
            if isinstance(inner, ast.Import | ast.ImportFrom) and id(inner) not in self._typing_only
            if not (self.layer in ("sim", "lab") and _third_party(inner) <= OPTIONAL)
        ]

    def impurities(self) -> list[str]:
        """Async code, sockets, clocks, threads, logs and global chance in a layer that has to be replayable."""
        if self.layer not in PURE:
            return []
        return [
            f"{self.module}:{line} uses {what}"
            for line, what in self._impure()
            if what.split(".")[0] not in NEEDED.get(self.module, set())
        ]

    def _impure(self) -> Iterator[tuple[int, str]]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
                yield node.lineno, "async"
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.split(".")[0] in IMPURE_MODULES:
                        yield node.lineno, alias.name
            elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    is_chance = node.module == "random" and alias.name != "Random"
                    if node.module.split(".")[0] in IMPURE_MODULES or full in IMPURE_NAMES or is_chance:
                        yield node.lineno, full
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                full = f"{node.value.id}.{node.attr}"
                if full in IMPURE_NAMES or (node.value.id == "random" and node.attr != "Random"):
                    yield node.lineno, full
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("open", "print"):
                yield node.lineno, node.func.id


def _third_party(node: ast.Import | ast.ImportFrom) -> set[str]:
    """The top-level packages that it loads."""
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or "."]
    return {name.split(".")[0] for name in names}


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module is not None:
        # ``from obscura import limits`` names a module, ``from obscura.errors import Violation`` does not
        if node.module == "obscura":
            names = [alias.name for alias in node.names]
            return ["obscura" if name.startswith("_") else f"obscura.{name}" for name in names]
        return [node.module]
    return []


def module_name(path: Path) -> str:
    """``src/obscura/wire/frame.py`` -> ``obscura.wire.frame``."""
    names = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


def package() -> dict[str, Source]:
    """Every module of the package, parsed."""
    return {module_name(path): Source(module_name(path), path.read_text()) for path in sorted(SOURCE.rglob("*.py"))}


def cycles(sources: dict[str, Source]) -> list[str]:
    """Circles among the imports that happen when a module is loaded."""
    known = set(sources)
    graph = {
        name: {target for target in source.imports(typing_too=False) if target in known and target != name}
        for name, source in sources.items()
    }
    found: list[str] = []
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> None:
        if name in path:
            found.append(" -> ".join([*path[path.index(name) :], name]))
        elif name not in done:
            for target in sorted(graph[name]):
                walk(target, [*path, name])
            done.add(name)

    for name in sorted(graph):
        walk(name, [])
    return found


def methods_of(cls: type) -> Iterator[tuple[str, bool]]:
    """Names of the public methods and properties that a class defines, and whether each has a docstring."""
    for name, thing in vars(cls).items():
        if not name.startswith("_") and isinstance(thing, property | classmethod | staticmethod | FunctionType):
            yield name, bool(inspect.getdoc(getattr(cls, name)))


def classes_of(module: ModuleType) -> list[type]:
    """The public classes that a module defines."""
    return [
        thing
        for name, thing in vars(module).items()
        if inspect.isclass(thing) and thing.__module__ == module.__name__ and not name.startswith("_")
    ]


def undocumented(module: ModuleType, told: Collection[str] = ()) -> list[str]:
    """Public things of a module without a docstring.

    A method may have it from what it overrides; ``told`` are names that some class of the package explains for all that
    have them (``encode``, ``next_size``); a reaction ``on_<message>`` is explained by its message.
    """
    missing = [] if (module.__doc__ or "").strip() else [f"module {module.__name__}"]
    for name, thing in vars(module).items():
        is_own = getattr(thing, "__module__", None) == module.__name__
        if inspect.isfunction(thing) and is_own and not name.startswith("_") and not inspect.getdoc(thing):
            missing.append(f"{module.__name__}.{name}")
    for cls in classes_of(module):
        if not (cls.__doc__ or "").strip():
            missing.append(f"class {module.__name__}.{cls.__name__}")
        for name, has_docstring in methods_of(cls):
            if not has_docstring and name not in told and not name.startswith("on_"):
                missing.append(f"{module.__name__}.{cls.__name__}.{name}")
    return missing


PACKAGE = package()


@pytest.fixture(scope="module")
def modules() -> dict[str, ModuleType]:
    """Every module of the package, loaded."""
    return {name: importlib.import_module(name) for name in PACKAGE if not name.endswith("__main__")}


@pytest.mark.parametrize("module", PACKAGE)
def test_imports_point_downwards_and_stand_at_the_top(module: str) -> None:
    source = PACKAGE[module]
    assert source.direction_faults() + source.hidden_imports() == []


def test_no_import_goes_in_a_circle() -> None:
    assert cycles(PACKAGE) == []


@pytest.mark.parametrize("module", [name for name, source in PACKAGE.items() if source.layer in PURE])
def test_pure_layers_have_no_clock_no_socket_no_chance_of_their_own(module: str) -> None:
    assert PACKAGE[module].impurities() == []


def test_no_file_is_too_long() -> None:
    limit = {name: TOO_LONG.get(name, MAX_LINES) for name in PACKAGE}
    assert {name: source.lines for name, source in PACKAGE.items() if source.lines > limit[name]} == {}
    assert [name for name in TOO_LONG if PACKAGE[name].lines <= MAX_LINES] == [], "short enough: take it off the table"


def test_everything_public_says_what_it_is(modules: dict[str, ModuleType]) -> None:
    told = {
        name
        for module in modules.values()
        for cls in classes_of(module)
        for name, has_docstring in methods_of(cls)
        if has_docstring
    }
    assert [missing for module in modules.values() for missing in undocumented(module, told)] == []


# --- The checker itself ---------------------------------------------------------------------------------------------

BAD_DIRECTIONS = [
    ("obscura.wire.x", "from obscura.node.core import Core"),
    ("obscura.errors", "from obscura import limits"),
    ("obscura.channel.x", "import obscura.handshake.machine"),
    ("obscura.morph.x", "from obscura.shaping.padding import Cells"),
    ("obscura.ledger.x", "from obscura.store.sqlite import Store"),
    ("obscura.node.x", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from obscura.daemon.node import Node"),
    ("obscura.sim.x", "from obscura.daemon.node import Node"),
    ("obscura.daemon.x", "from obscura.cli import main"),
    ("obscura.transport.x", "from obscura.daemon.node import Node"),
    ("obscura.elsewhere.x", "x = 1"),
]
GOOD_DIRECTIONS = [
    ("obscura.wire.x", "from obscura.errors import Violation\nfrom obscura.wire.frame import Unknown"),
    ("obscura.sim.x", "from obscura.node.engine import Engine"),
    ("obscura.cli.x", "def f():\n    from obscura.daemon.node import Node"),
]
BAD_PURE = [
    "import asyncio",
    "import time",
    "from time import monotonic",
    "from datetime import datetime",
    "import socket as s",
    "import logging.handlers",
    "import os\nx = os.urandom(8)",
    "from os import urandom",
    "import random\nx = random.random()",
    "from random import randint",
    "import random\nx = random.SystemRandom()",
    "import threading",
    "async def f(): pass",
    "def f():\n    print(1)",
]
GOOD_PURE = ["import random\ndef f(rng: random.Random): ...", "from random import Random\nrng = Random('seed')"]


@pytest.mark.parametrize(("module", "text"), BAD_DIRECTIONS)
def test_a_wrong_direction_is_noticed(module: str, text: str) -> None:
    assert Source(module, text).direction_faults()


@pytest.mark.parametrize(("module", "text"), GOOD_DIRECTIONS)
def test_a_right_direction_is_let_pass(module: str, text: str) -> None:
    source = Source(module, text)
    assert source.direction_faults() + source.hidden_imports() == []


def test_an_import_inside_a_function_is_noticed() -> None:
    for text in ("def f():\n    import json", "class A:\n    async def f(self):\n        from obscura import errors"):
        assert Source("obscura.node.x", text).hidden_imports()
        assert Source("obscura.sim.x", text).hidden_imports()
    optional = "def f():\n    import numpy as np\n    from scipy.optimize import linear_sum_assignment"
    assert len(Source("obscura.node.x", optional).hidden_imports()) == 2
    assert Source("obscura.sim.x", optional).hidden_imports() == []


@pytest.mark.parametrize("text", BAD_PURE)
def test_an_impurity_is_noticed(text: str) -> None:
    assert Source("obscura.node.x", text).impurities()
    assert Source("obscura.sim.sweep", text).impurities()
    assert Source("obscura.daemon.x", text).impurities() == []


@pytest.mark.parametrize("text", GOOD_PURE)
def test_chance_that_was_given_is_let_pass(text: str) -> None:
    assert Source("obscura.node.x", text).impurities() == []


def test_a_circle_is_noticed() -> None:
    texts = {"a": "from obscura.wire.b import X", "b": "import obscura.wire.c", "c": "from obscura.wire.a import Y"}
    sources = {f"obscura.wire.{name}": Source(f"obscura.wire.{name}", text) for name, text in texts.items()}
    assert cycles(sources) == ["obscura.wire.a -> obscura.wire.b -> obscura.wire.c -> obscura.wire.a"]
    typing = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "
    sources["obscura.wire.c"] = Source("obscura.wire.c", typing + texts["c"])
    assert cycles(sources) == []


def test_a_missing_docstring_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        '"""Said."""\nclass A:\n    """Said."""\n    def told(self):\n        """Said."""\n    def silent(self): ...\n'
    )
    text += "    def on_ping(self): ...\nclass B(A):\n    def told(self): ...\ndef silent(): ...\n"
    module = ModuleType("small", "Said.")
    monkeypatch.setitem(sys.modules, "small", module)  # where inspect looks for the class of a method
    exec(text, vars(module))
    assert undocumented(module) == ["small.silent", "small.A.silent", "class small.B"]
    assert undocumented(module, {"silent"}) == ["small.silent", "class small.B"]


# --- The specification ----------------------------------------------------------------------------------------------

BULLETS = (Path(__file__).parent / "data" / "specification_bullets.txt").read_text().splitlines()
SPEC_MAP = ROOT / "docs" / "spec-map.md"


def rows(markdown: str) -> dict[str, list[str]]:
    """``Section | bullet`` -> the other cells of its row, from a document with a heading and a table per section."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in markdown.splitlines():
        if line.startswith("#"):
            section = line.lstrip("#").strip()
        elif line.startswith("|"):
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            found[f"{section} | {cells[0]}"] = cells[1:]
    return found


def test_every_bullet_of_the_specification_has_its_row() -> None:
    table = rows(SPEC_MAP.read_text())
    assert len(BULLETS) == len(set(BULLETS)) == 128
    assert [bullet for bullet in BULLETS if bullet not in table] == []
    for bullet in BULLETS:
        state, *where = table[bullet]
        assert state, bullet
        assert state == "to come" or any(where), f"{bullet} is {state}, but the row says nothing of where"


def test_every_test_that_a_row_names_is_there() -> None:
    named = set(re.findall(r"\btest_[a-z0-9_]+\*?", SPEC_MAP.read_text()))
    there = [path.stem for folder in ("tests", "tests_real") for path in (ROOT / folder).glob("test_*.py")]
    assert [name for name in sorted(named) if not fnmatch.filter(there, name)] == []


def test_what_the_map_calls_a_module_or_a_test_is_one() -> None:
    """A row that points nowhere is as good as none."""
    missing = []
    tests = ROOT / "tests"
    there = [str(path.relative_to(tests)) for path in tests.rglob("*")]
    for bullet, (state, module, test, *_) in rows(SPEC_MAP.read_text()).items():
        if bullet not in BULLETS or state == "to come":
            continue
        for name in (each.strip().partition(":")[0].strip("` ") for each in module.split(",")):
            if name and not (SOURCE / name).exists():
                missing.append(f"{bullet}: module {name}")
        for name in (each.strip("` ").rstrip("*") for each in test.split(",")):
            if name and not any(path.startswith(name) for path in there):
                missing.append(f"{bullet}: test {name}")
    assert missing == []


def test_a_missing_row_is_noticed() -> None:
    table = rows("## A\n\n| bullet | state |\n|---|---|\n| one: two | built |\n## B\n| three | to come |\n")
    assert "A | one: two" in table
    assert "B | one: two" not in table
