"""What is shipped: wheel and sdist, man page, completion, unit, container; each as its reader will meet it."""

from __future__ import annotations

import email.policy
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import BytesParser
from pathlib import Path

import pytest
import yaml

from check_dist import check
from make_man import PAGE, page
from obscura import limits
from obscura.cli import COMMANDS
from obscura.cli.completion import SHELLS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
UNIT = ROOT / "packaging" / "systemd" / "obscura.service"
CONTAINER = ROOT / "packaging" / "container"
WAIT_S = 120


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheel and sdist, the wheel made from the sdist as `python -m build` does it."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(dist: Path) -> None:
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    package = {
        str(path.relative_to(ROOT / "src"))
        for path in (ROOT / "src" / "obscura").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert "obscura/py.typed" in package
    inside = {name for name in names if name.startswith("obscura/")}
    # What git does not know is none of a release.
    assert {name for name in package if is_known(f"src/{name}")} <= inside
    beside = {name.split("/", 1)[1] for name in names - inside}
    assert {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"} <= beside
    assert "data/share/man/man1/obscura.1" in beside
    assert not [name for name in names if name.endswith((".pyc", ".orig", ".sqlite")) or "test" in Path(name).name]


def is_known(path: str) -> bool:
    if not (ROOT / ".git").exists():
        return True  # an sdist: all that is there is the release
    return path in _known()


def _known(found: list[set[str]] = []) -> set[str]:  # noqa: B006 (asked once)
    if not found:
        command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "src"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        found.append(set(done.stdout.splitlines()))
    return found[0]


def test_the_metadata_says_what_it_is(dist: Path) -> None:
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith("/METADATA"))
        told = BytesParser(policy=email.policy.compat32).parsebytes(wheel.read(name))
        entry = wheel.read(name.replace("METADATA", "entry_points.txt")).decode()
    assert told["License-Expression"] == "Apache-2.0"
    assert told["License-File"] == "LICENSE"
    assert told["Requires-Python"] == ">=3.11"
    assert told["Description-Content-Type"] == "text/markdown"
    assert str(told.get_payload()).startswith("# Obscura")
    assert "obscura = obscura.cli:main" in entry
    extras = set(told.get_all("Provides-Extra") or ())
    assert {"fast", "sim", "lab", "dev", "docs"} <= extras
    assert "Typing :: Typed" in told.get_all("Classifier", [])


def test_every_extra_and_dependency_is_pinned_for_ci() -> None:
    named = [*PROJECT["dependencies"], *(each for extra in PROJECT["optional-dependencies"].values() for each in extra)]
    pinned = {line.partition("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    wanted = {re.split(r"[<>=;\[ ]", each)[0].lower() for each in named}
    assert wanted - pinned == set()


def test_the_sdist_has_what_make_needs(dist: Path) -> None:
    with tarfile.open(next(dist.glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    wanted = {"Makefile", "pyproject.toml", "constraints.txt", "LICENSE", "README.md", "CHANGELOG.md", "SECURITY.md"}
    wanted |= {"CONTRIBUTING.md", ".ci/run", "docs/conf.py", "tests/test_packaging.py", "tools/make_venv.py"}
    wanted |= {"packaging/systemd/obscura.service", "packaging/man/obscura.1", "examples/two_nodes.py"}
    assert wanted - names == set()
    assert not [name for name in names if "__pycache__" in name or name.startswith((".venv", "out/", ".git/"))]


def test_the_wheel_runs_for_a_new_user(dist: Path, tmp_path: Path) -> None:
    assert check(next(dist.glob("*.whl")), tmp_path, borrow=True).startswith(f"obscura {PROJECT['version']} ")


# --- Man page and completion


def test_the_man_page_is_what_the_commands_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run make man"


def test_the_man_page_has_every_command_and_no_line_that_roff_takes_for_a_request() -> None:
    text = page()
    for commands in COMMANDS.values():
        for name in commands:
            assert "obscura " + name.replace("-", "\\-") in text
    requests = {line.split()[0] for line in text.splitlines() if line.startswith((".", "'"))}
    assert requests <= {
        '.\\"',
        ".TH",
        ".SH",
        ".SS",
        ".TP",
        ".B",
        ".BI",
        ".BR",
        ".IR",
        ".IP",
        ".RS",
        ".RE",
        ".nf",
        ".fi",
    }
    assert "\b" not in text


def obscura(home: Path, *words: str, **environ: str) -> str:
    done = subprocess.run(
        (sys.executable, "-m", "obscura.cli", *words),
        env={"PATH": os.environ["PATH"], "HOME": str(home), **environ},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize(
    ("shell", "mark"), [("bash", "complete -o nosort"), ("zsh", "#compdef obscura"), ("fish", "complete ")]
)
def test_each_shell_gets_its_script(tmp_path: Path, shell: str, mark: str) -> None:
    script = obscura(tmp_path, "completion", shell)
    assert mark in script
    assert f"_OBSCURA_COMPLETE={shell}_complete" in script


def test_there_are_no_other_shells() -> None:
    assert set(SHELLS) == {"bash", "zsh", "fish"}


def test_bash_completes_commands_and_options(tmp_path: Path) -> None:
    program = tmp_path / "obscura"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m obscura.cli "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    script = """
        eval "$(obscura completion bash)"
        complete -p obscura >&2
        COMP_WORDS=(obscura config re); COMP_CWORD=2; _obscura_completion obscura; echo "${COMPREPLY[@]}"
        COMPREPLY=(); COMP_WORDS=(obscura run --unl); COMP_CWORD=2; _obscura_completion obscura; echo "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        ("bash", "--norc", "-c", script),
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=True,
    )
    assert done.stdout.split() == ["reload", "--unlisted"]


# --- The unit


def unit() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text(encoding="utf-8").splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def test_the_unit_gives_the_node_time_to_end_and_no_more_rights_than_it_needs() -> None:
    said = unit()
    assert said["Type"] == ["notify"]
    assert said["StandardOutput"] == ["null"]  # `run` prints the node's addresses: they are nothing for the journal
    assert int(said["TimeoutStopSec"][0].removesuffix("s")) > 2 * limits.STOP_S
    for key in (
        "NoNewPrivileges",
        "DynamicUser",
        "ProtectHome",
        "PrivateTmp",
        "MemoryDenyWriteExecute",
        "RestrictNamespaces",
    ):
        assert said[key] == ["yes"]
    assert said["ProtectSystem"] == ["strict"]
    assert said["CapabilityBoundingSet"] == ["CAP_NET_BIND_SERVICE"]
    words = said["ExecStart"][0].split()
    assert words[0] == "/usr/bin/obscura"
    assert words[-1] == "run"


@pytest.mark.parametrize("verb", ["verify", "security"])
def test_systemd_itself_has_nothing_to_object(tmp_path: Path, verb: str) -> None:
    """Where systemd is installed; elsewhere the test above has to do."""
    program = shutil.which("systemd-analyze")
    if program is None:
        return
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text(encoding="utf-8").replace("/usr/bin/obscura", "/bin/true"), encoding="utf-8")
    options = {"verify": ["--man=no"], "security": ["--offline=true", "--no-pager", "--threshold=20"]}[verb]
    done = subprocess.run((program, verb, *options, copy), capture_output=True, text=True, timeout=WAIT_S, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert f"{UNIT.name}:" not in done.stderr, said


# --- The container


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", (CONTAINER / "Containerfile").read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(None, 1)[0], " ".join(line.split(None, 1)[1].split())) for line in lines]


def test_the_container_file_builds_from_what_is_there_and_ends_unprivileged() -> None:
    found = instructions()
    known = {
        "FROM",
        "WORKDIR",
        "COPY",
        "RUN",
        "ENV",
        "USER",
        "VOLUME",
        "STOPSIGNAL",
        "HEALTHCHECK",
        "ENTRYPOINT",
        "CMD",
    }
    assert {word for word, _ in found} <= known
    images = [rest.split()[0] for word, rest in found if word == "FROM"]
    assert all(re.fullmatch(r"docker\.io/library/python:3\.\d+-slim", image) for image in images), (
        "whole name, fixed tag"
    )
    for word, rest in found:
        if word == "COPY" and not rest.startswith("--from"):
            for name in rest.split()[:-1]:
                assert (ROOT / name).exists(), name
    last = [word for word, _ in found]
    last = last[len(last) - last[::-1].index("FROM") :]
    assert last.index("USER") < last.index("ENTRYPOINT")
    words = dict(found)
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", words["USER"])
    assert words["STOPSIGNAL"] == "SIGTERM"
    for word in ("ENTRYPOINT", "CMD", "VOLUME"):
        assert isinstance(json.loads(words[word]), list), (
            "no shell between the engine and the node: it would eat the signals"
        )


def test_the_compose_file_takes_everything_away_that_the_node_does_not_need() -> None:
    told = yaml.safe_load((CONTAINER / "compose.yaml").read_text(encoding="utf-8"))
    node = told["services"]["node"]
    assert (node["read_only"], node["cap_drop"], node["security_opt"]) == (True, ["ALL"], ["no-new-privileges:true"])
    assert (CONTAINER / node["build"]["context"] / node["build"]["dockerfile"]).resolve() == CONTAINER / "Containerfile"
    assert int(node["stop_grace_period"].removesuffix("s")) > 2 * limits.STOP_S
    mounted = node["volumes"][0].split(":")
    assert mounted[0] in told["volumes"]
    assert ("VOLUME", json.dumps([mounted[1]])) in instructions()
    listening = node["command"][node["command"].index("--listen") + 1]
    assert node["ports"][0].partition(":")[2] == listening.partition("?")[0].rpartition(":")[2]
    assert all(name.startswith("OBSCURA_") for name in node["environment"])
