"""What the pages say about files, targets and commands is so."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Self

import click
import pytest

from obscura.cli import root
from obscura.daemon.config import Config
from obscura.daemon.layers import from_toml, merge
from obscura.node.dialable import check_dialable, face_of
from obscura.wire.address import Address
from obscura.wire.fields import U64, Reader
from obscura.wire.message import Message, Phase, Uint64

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
OURS = [
    "add_a_message_type",
    "testing",
    "upgrading",
    "comparison",
    *(f"howto/{path.stem}" for path in (ROOT / "docs/howto").iterdir()),
]
BEGINNINGS = {"capture", "network/1"}  # of files: after "obscura", what is in them
MADE_UP = {"tests/vectors/wire/uptime.json"}  # the example's


def text_of(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


def files_named(text: str) -> set[str]:
    """Every path in code style that begins with a folder of the repository."""
    folders = "bench|demo|docs|examples|fuzz|packaging|src|tests|tests_real|tools"
    return set(re.findall(rf"`(?:python )?((?:{folders})/[\w./-]+)", text)) - MADE_UP


@pytest.mark.parametrize("page", ["add_a_message_type", "testing", "howto/home_node", "howto/measure", "howto/service"])
def test_the_files_that_a_page_names_exist(page: str) -> None:
    named = files_named(text_of(page))
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_a_file_that_is_not_there_is_noticed() -> None:
    assert files_named("see `src/obscura/nowhere.py` and `tools/x.py --flag`") == {
        "src/obscura/nowhere.py",
        "tools/x.py",
    }


def test_the_steps_of_a_new_message_type_name_each_place_once_at_least() -> None:
    named = files_named(text_of("add_a_message_type"))
    wanted = {
        "src/obscura/wire/catalogue.py",
        "src/obscura/limits.py",
        "tests/test_wire_vectors.py",
        "docs/protocol.md",
    }
    assert wanted <= named


def test_the_example_of_a_new_message_type_works() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", text_of("add_a_message_type"), re.DOTALL)
    scope = {
        "Message": Message,
        "ClassVar": ClassVar,
        "Phase": Phase,
        "Uint64": Uint64,
        "U64": U64,
        "Reader": Reader,
        "Self": Self,
    }
    exec(compile(code, "add_a_message_type.md", "exec", dont_inherit=True), scope)
    uptime = scope["Uptime"]
    assert isinstance(uptime, type)
    assert issubclass(uptime, Message)
    assert uptime.decode(uptime(7).encode()) == uptime(7)  # type: ignore[call-arg]


def test_every_target_is_described_and_every_described_one_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    described = set(re.findall(r"^\| `make ([a-z-]+)`", text_of("testing"), re.MULTILINE))
    assert targets - described == {"help", "install", "clean", "man"}
    assert described <= targets


def unknown_words(text: str) -> list[str]:
    """Commands and options behind ``obscura`` on lines and in code of a page that the program does not have."""
    faults = []
    for shown in re.findall(r"(?:^    |`|\$ |\()obscura ((?:--?[a-z]|[a-z])[^`\n#|]*)", text, re.MULTILINE):
        command: click.Command = root
        options, is_value = set(root_options()), False
        for word in (word.rstrip(",;:.)") for word in shown.split()):
            if word.startswith("--"):
                faults += [] if word.partition("=")[0] in options | {"--help"} else [word]
                is_value = command is root and word != "--json"
            elif isinstance(command, click.Group) and not is_value:
                inner = command.get_command(click.Context(command), word)
                if inner is None:
                    faults += [] if word in BEGINNINGS else [word]
                    break
                command = inner
                options |= {name for option in inner.params for name in option.opts}
            else:
                is_value = False
    return faults


def root_options() -> list[str]:
    return [name for option in root.params for name in option.opts]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_and_options_that_a_page_shows_exist(page: Path) -> None:
    assert unknown_words(page.read_text(encoding="utf-8")) == []


def test_a_command_or_option_that_is_not_there_is_noticed() -> None:
    assert unknown_words("    obscura --network dev stats --jsn\n`obscura ban list --tor`") == ["stats", "--tor"]


@pytest.mark.parametrize("page", OURS)
def test_configurations_that_a_page_shows_are_valid(page: str, tmp_path: Path) -> None:
    for block in re.findall(r"```toml\n(.*?)```", text_of(page), re.DOTALL):
        key = "tdwqkctwg7ttz37ze6ensae5grfz64qy7ytptcq7os6t7gw5zfiq"
        block = block.replace("obscura://KEY@", f"obscura://{key}@")
        block = block.replace("PUBLIC KEY OF A FRIEND", "AB" * 26)
        tomllib.loads(block)
        file = tmp_path / "obscura.toml"
        file.write_text(block, encoding="utf-8")
        config = merge(Config, from_toml(Config, file)).value  # raises
        for text in config.connect:
            check_dialable(Address.parse(text), face_of(Address.parse(text)), config.plan.ways)  # raises


def test_links_between_pages_and_files_lead_somewhere() -> None:
    lost = []
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text(encoding="utf-8")):
            if not (page.parent / target).exists():
                lost.append(f"{page.relative_to(ROOT)}: {target}")
    assert lost == []


def test_the_comparison_has_every_source_that_it_cites() -> None:
    table, _, sources = text_of("comparison").partition("## Sources")
    cited = {int(number) for number in re.findall(r"\[(\d+)\](?!\()", table)}
    listed = {int(number) for number in re.findall(r"^(\d+)\. ", sources, re.MULTILINE)}
    assert cited == listed


def test_what_is_typed_with_the_cookie_shows_it_to_nobody(tmp_path: Path) -> None:
    """It went into /dev/shm/auth with the usual mode: every user of the machine could read it, and rule the node."""
    words = re.search(r"^With curl.*\n\n((?:    .*\n)+)", text_of("rpc"), re.MULTILINE)
    assert words is not None
    (tmp_path / "curl").write_text(
        '#!/bin/sh\nfor word; do case $word in @*) stat -c %a "${word#@}"; cat "${word#@}";; esac; done\n'
    )
    (tmp_path / "curl").chmod(0o700)
    data = tmp_path / ".local/share/obscura/dev"
    data.mkdir(parents=True)
    (data / "rpc.cookie").write_text("secret")
    places = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    said = subprocess.run(
        ["sh", "-ec", "umask 022\n" + words[1]], env=places, capture_output=True, text=True, check=True
    )
    assert said.stdout == "600\nAuthorization: Bearer secret" * 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [".local", "curl"]


def test_completion_is_written_on_a_machine_that_has_none_yet(tmp_path: Path) -> None:
    _, _, rest = text_of("howto/service").partition("Completion for the shell at hand:")
    typed = [line for line in rest.splitlines() if line.startswith("    ")]
    (tmp_path / "obscura").write_text("#!/bin/sh\necho $2\n")
    (tmp_path / "obscura").chmod(0o700)
    places = {"HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["sh", "-ec", "\n".join(typed)], env=places, check=True)
    written = [path.read_text().strip() for path in tmp_path.rglob("*obscura*") if path.parent != tmp_path]
    assert sorted(written) == ["bash", "fish", "zsh"]


def helps(command: click.Command, context: click.Context) -> Iterator[str]:
    """The help of a command and of all below it."""
    yield command.help or ""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from helps(below, context)


def test_addresses_with_a_question_mark_are_typed_in_quotes() -> None:
    """zsh takes the mark for a pattern, finds no such file and runs nothing; any shell cuts at `&`."""
    bare = re.compile(r"^ +obscura (?:[^'\"#\n]|'[^'\n]*'|\"[^\"\n]*\")*?://[^\s'\"#]*[?&].*$", re.MULTILINE)
    assert bare.findall("    obscura rotate 3 --to obscura://KEY@h:1?carrier=tls")
    assert not bare.findall("    obscura connect 'obscura://KEY@h:1?carrier=tls'")
    texts = [*(page.read_text(encoding="utf-8") for page in PAGES), *helps(root, click.Context(root))]
    assert [line for text in texts for line in bare.findall(text)] == []
