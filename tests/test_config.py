"""Configuration: precedence, strictness, and error messages that name the place, the value and what is expected."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta

from obscura.daemon import config as config_module
from obscura.daemon import layers
from obscura.daemon.config import Config, default_data_dir, find_file, load, template, user_file
from obscura.errors import ConfigError


class Inner(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    depth: Annotated[int, Meta(ge=1, le=9)] = 3


class Pool(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    max_bytes: Annotated[int, Meta(ge=1)] = 64
    share: float = 0.5
    names: tuple[str, ...] = ()
    inner: Inner = Inner()

    def __post_init__(self) -> None:
        if "bad" in self.names:
            raise ConfigError("pool.names must not contain bad: leave it out")


class Root(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    level: Literal["low", "high"] = "low"
    is_on: bool = False
    folder: Path = Path("/x")
    optional: str | None = None
    pool: Annotated[Pool, Meta(description="a section")] = Pool()


def write(folder: Path, text: str) -> Path:
    path = folder / "obscura.toml"
    path.write_text(text)
    return path


def root_of(folder: Path, text: str, **environ: str) -> layers.Loaded[Root]:
    settings = layers.from_toml(Root, write(folder, text)) + layers.from_environment(Root, environ)
    return layers.merge(Root, settings)


TOML = """# a comment
level = "high"

[pool]
names = [
  "a",  # with = signs and [brackets] in comments
  "b",
]
share = 1
[pool.inner]
depth = 7
"""


def test_every_value_remembers_where_it_came_from(tmp_path: Path) -> None:
    loaded = root_of(tmp_path, TOML, OBSCURA_POOL__INNER__DEPTH="8", OBSCURA_IS_ON="true", HOME="/nowhere")
    path = tmp_path / "obscura.toml"
    assert loaded.value == Root(level="high", is_on=True, pool=Pool(names=("a", "b"), share=1.0, inner=Inner(depth=8)))
    assert loaded.origins == {
        "level": f"{path}:2",
        "is-on": "environment variable OBSCURA_IS_ON",
        "folder": "default",
        "optional": "default",
        "pool.max-bytes": "default",
        "pool.share": f"{path}:9",
        "pool.names": f"{path}:5",
        "pool.inner.depth": "environment variable OBSCURA_POOL__INNER__DEPTH",
    }


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('levle = "low"', 1, ["unknown key levle", "did you mean level?"]),
        ("\n\nis_on = true", 3, ["unknown key is_on", "did you mean is-on?"]),
        ("[pool]\n\nmax-byte = 1", 3, ["unknown key pool.max-byte", "did you mean pool.max-bytes?"]),
        ("max-bytes = 1", 1, ["unknown key max-bytes", "did you mean pool.max-bytes?"]),
        ("[pool.iner]\ndepth = 1", 1, ["unknown key pool.iner", "did you mean pool.inner?"]),
        ("pool.inner.width = 1", 1, ["unknown key pool.inner.width", "pool.inner.depth"]),
        ("[zzzzzzzz]", 1, ["unknown key zzzzzzzz", "known here: level, is-on"]),
        ('x = """\nlevel = 1\n"""', 1, ["unknown key x"]),
        ('optional = """\nfake = 1\n"""\nreal = 2', 4, ["unknown key real"]),
        ("[[pool]]\nshare = 1", 1, ["pool is", "it is a section: write [pool]"]),
        ("pool = 3", 1, ["pool is 3", "it is a section: write [pool]"]),
        ("[level]", 1, ["level is {}", "one of"]),
        ('level = "hi"', 1, ['level is "hi"', "one of high, low is expected"]),
        ("is-on = 1", 1, ["is-on is 1", "true or false is expected"]),
        ('is-on = "true"', 1, ['is-on is "true"', "true or false is expected"]),
        ("[pool]\nmax-bytes = 0", 2, ["pool.max-bytes is 0", "a whole number from 1 is expected"]),
        ("[pool]\nmax-bytes = 1.5", 2, ["pool.max-bytes is 1.5"]),
        ("[pool.inner]\n\ndepth = 10", 3, ["pool.inner.depth is 10", "a whole number from 1 to 9"]),
        ("pool.share = nan", 1, ["pool.share is nan", "a number is expected"]),
        ('pool.names = "a"', 1, ['pool.names is "a"', "a list, each item a text"]),
        ('pool.names = [\n"a",\n3]', 1, ['pool.names is ["a", 3]', "a list, each item a text"]),
        ("folder = 3", 1, ["folder is 3", "a path is expected"]),
        ("optional = 1979-05-27", 1, ["optional is 1979-05-27", "a text is expected"]),
    ],
)
def test_a_wrong_file_is_told_by_line_and_key(tmp_path: Path, text: str, line: int, words: list[str]) -> None:
    for ends in (text, text.replace("\n", "\r\n")):
        (tmp_path / "obscura.toml").write_bytes(ends.encode())
        with pytest.raises(ConfigError) as raised:
            layers.merge(Root, layers.from_toml(Root, tmp_path / "obscura.toml"))
        assert str(raised.value).startswith(f"{tmp_path}/obscura.toml:{line}: ")
        assert all(word in str(raised.value) for word in words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"level = ", "not TOML"),
        (b"level = 1\nlevel = 2\n", "not TOML: .*line 2"),
        (b"# ok\n\xff", "obscura.toml:2: not UTF-8"),
        (b"#" * 70_000, "larger than 65536 bytes"),
        (b"x = " + b"[" * 30_000, "not TOML"),
    ],
)
def test_what_is_no_configuration_file_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "obscura.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        layers.from_toml(Root, path)


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "obscura.toml"
    path.write_bytes(b"\xef\xbb\xbflevel = 'x'\r\n")
    assert [(setting.key, setting.value) for setting in layers.from_toml(Root, path)] == [(("level",), "x")]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        layers.from_toml(Root, tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("OBSCURA_POOL__NAMES", "a, b,c", ("a", "b", "c")),
        ("OBSCURA_POOL__NAMES", "", ()),
        ("OBSCURA_POOL__SHARE", "0.25", 0.25),
        ("OBSCURA_POOL__MAX_BYTES", "12", 12),
        ("OBSCURA_IS_ON", "1", True),
        ("OBSCURA_IS_ON", "false", False),
        ("OBSCURA_OPTIONAL", "12", "12"),
        ("OBSCURA_FOLDER", "/a b", Path("/a b")),
    ],
)
def test_environment_values_are_parsed_by_their_type(name: str, text: str, value: object) -> None:
    (setting,) = layers.from_environment(Root, {name: text, "OBSCURA_CONFIG": "x", "OTHER": "y"})
    assert config_module.value_at(layers.merge(Root, [setting]).value, setting.key) == value


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("OBSCURA_LEVLE", "low", "OBSCURA_LEVLE: unknown key levle; did you mean level?"),
        ("OBSCURA_POOL__MAXBYTES", "1", "did you mean pool.max-bytes?"),
        ("OBSCURA_POOL", "1", "OBSCURA_POOL: unknown key pool"),
        ("OBSCURA_", "1", "unknown key"),
        ("OBSCURA_POOL__MAX_BYTES", "many", 'pool.max-bytes is "many", but a whole number from 1'),
        ("OBSCURA_POOL__SHARE", "inf", 'pool.share is "inf", but a number'),
        ("OBSCURA_IS_ON", "maybe", 'is-on is "maybe", but true or false'),
    ],
)
def test_a_wrong_variable_is_named(name: str, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        layers.merge(Root, layers.from_environment(Root, {name: text}))
    assert words in str(raised.value)
    assert name in str(raised.value)


def test_a_section_checks_itself() -> None:
    with pytest.raises(
        ConfigError, match=r"^environment variable OBSCURA_POOL__NAMES: pool.names must not contain bad"
    ):
        layers.merge(Root, layers.from_environment(Root, {"OBSCURA_POOL__NAMES": "bad"}))


def test_a_wrong_value_is_an_error_even_where_a_flag_wins() -> None:
    settings = layers.from_environment(Root, {"OBSCURA_LEVEL": "hi"}) + layers.from_flags({"level": "low"})
    with pytest.raises(ConfigError, match="OBSCURA_LEVEL"):
        layers.merge(Root, settings)


def test_flags_win_over_environment_over_file_over_default(tmp_path: Path) -> None:
    path = write(tmp_path, 'network = "dev"\nprivacy = "high"\nlog-level = "debug"\n')
    environ = {"HOME": str(tmp_path), "OBSCURA_PRIVACY": "standard", "OBSCURA_LOG_LEVEL": "error"}
    flags: dict[str, object] = {"log-level": "warning", "listen": ("127.0.0.1:0",), "network": None}
    loaded = load(path, flags, {"max-inbound": "7"}, environ)
    found = loaded.value
    assert (found.network, found.privacy, found.log_level) == ("dev", "standard", "warning")
    assert (found.listen, found.unlisted, found.max_inbound) == (("127.0.0.1:0",), False, 7)
    assert loaded.origins["network"] == f"{path}:1"
    assert loaded.origins["privacy"] == "environment variable OBSCURA_PRIVACY"
    assert loaded.origins["log-level"] == "flag --log-level"
    assert loaded.origins["max-inbound"] == "flag --set max-inbound"
    assert loaded.origins["unlisted"] == loaded.origins["data-dir"] == "default"
    assert found.data_dir == tmp_path / ".local/share/obscura"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('\nprune = "ten"', ":2: prune: 'ten' is not a size"),
        ('log-level = "loud"', ":1: log-level: 'loud'"),
        ('log-level = "tro=debug"', ":1: log-level: there is no module 'tro'"),
        ('metrics = "0.0.0.0:1"', ":1: metrics: 0.0.0.0:1 is reached from other machines"),
        ("\n\nonly-net = ['tor']", ':3: only-net = ["tor"] needs tor'),
        ("[rotation]\nmin-hours = 90.0", ":2: rotation: min-hours = 90.0 is more than"),
        ('privacy = "high"\nrequired-features = ["x"]', ":2: required-features: there is no feature 'x'"),
        ('required-privacy-features = ["x"]', ":1: required-privacy-features: there is no feature 'x'"),
        ('\nexperimental = ["x"]', ":2: experimental: there is no feature 'x'"),
        ("[zzz]\n", ":1: unknown key zzz; `obscura config init -` lists all keys"),
    ],
)
def test_what_only_the_whole_tells_names_its_line_too(tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as raised:
        load(path, environ={"HOME": str(tmp_path)})
    assert str(raised.value).startswith(f"{path}{words}")


def test_an_unknown_flag_is_named() -> None:
    with pytest.raises(ConfigError, match="flag --set privcy: unknown key privcy; did you mean privacy"):
        load(None, {}, {"privcy": "high"}, {"HOME": "/nowhere"})


def test_where_files_and_data_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = {"HOME": str(tmp_path)}
    monkeypatch.setattr(config_module, "SYSTEM_FILE", tmp_path / "etc.toml")
    assert find_file(None, home) is None
    (tmp_path / "etc.toml").touch()
    assert find_file(None, home) == tmp_path / "etc.toml"
    user = tmp_path / ".config/obscura/obscura.toml"
    user.parent.mkdir(parents=True)
    user.touch()
    assert find_file(None, home) == user == user_file(home)
    assert user_file({**home, "XDG_CONFIG_HOME": "/c"}) == Path("/c/obscura/obscura.toml")
    assert user_file({**home, "XDG_CONFIG_HOME": "not/absolute"}) == user
    user.unlink()
    user.symlink_to(user)  # where it is cannot be told: to go on with defaults would drop what the user has set
    with pytest.raises(
        ConfigError, match=r"obscura\.toml: cannot be read: Too many .*; run this as the user .*--config"
    ):
        find_file(None, home)
    named = tmp_path / "named.toml"
    with pytest.raises(ConfigError, match="does not exist; `obscura config init"):
        find_file(named, home)
    named.touch()
    assert find_file(None, {**home, "OBSCURA_CONFIG": str(named)}) == named
    assert default_data_dir({**home, "XDG_DATA_HOME": "/d"}) == Path("/d/obscura")
    assert default_data_dir({**home, "OBSCURA_DATA_DIR": "/e"}) == Path("/e")


def test_the_home_of_somebody_who_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    path = write(tmp_path, '\ndata-dir = "~nobody-of-this-name/x"')
    with pytest.raises(ConfigError, match=r':2: data-dir is "~nobody-of-this-name/x", but a path is expected'):
        load(path, environ=home)
    for asks in (
        lambda: load(None, {"data-dir": "~nobody-of-this-name"}, environ=home),
        lambda: load(None, environ={**home, "OBSCURA_DATA_DIR": "~nobody-of-this-name"}),
        lambda: Config(asmap=Path("~nobody-of-this-name")),
        lambda: find_file("~nobody-of-this-name/x", home),
        lambda: find_file(None, {**home, "OBSCURA_CONFIG": "~nobody-of-this-name/x"}),
        lambda: default_data_dir({"OBSCURA_DATA_DIR": "~nobody-of-this-name"}),
    ):
        with pytest.raises(ConfigError, match="~nobody-of-this-name"):
            asks()


def test_an_empty_path_is_not_the_directory_that_somebody_happens_to_be_in(tmp_path: Path) -> None:
    for variable in ("OBSCURA_DATA_DIR", "OBSCURA_CAPTURE"):
        with pytest.raises(ConfigError, match=f'variable {variable}: .* is "", but a path is expected'):
            load(None, environ={"HOME": str(tmp_path), variable: ""})


def test_a_config_made_in_python_is_checked_too(tmp_path: Path) -> None:
    made = Config(network="dev", data_dir=tmp_path, listen=["127.0.0.1:0"])  # type: ignore[arg-type]
    assert made.listen == ("127.0.0.1:0",)
    assert made.network_name == "dev"
    with pytest.raises(AttributeError):
        made.network = "main"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given_values", "words"),
    [
        ({"privacy": "hgih"}, 'Config: privacy is "hgih"'),
        ({"unlisted": 1}, "Config: unlisted is 1"),
        ({"connect": "obscura://a:1"}, "a list, each item a text"),
        ({"connect": ["nonsense"]}, "connect: 'nonsense' lacks a port"),
        ({"network": "man"}, "there is none called 'man'; did you mean main?"),
        ({"required_features": ["Nonsense"]}, "no feature 'Nonsense'"),
        ({"max_inbound": -1}, "a whole number from 0 to 10000"),
        ({"max_inbound": 2, "tor": "auto", "i2p": "auto"}, "max-inbound: 2 leaves no slot for any of the 3 networks"),
        ({"capture": ""}, 'capture is "", but a path is expected'),
        ({"asmap": "a\0b"}, r'asmap is "a\u0000b", but a path is expected'),
    ],
)
def test_what_no_node_can_be_told(given_values: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        Config(data_dir=tmp_path, **given_values)  # type: ignore[arg-type]
    assert words in str(raised.value)


def test_a_network_file_gives_the_network_its_name(tmp_path: Path) -> None:
    missing = Config(data_dir=tmp_path, network=f"{tmp_path}/net.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        _ = missing.network_name


def test_all_keys_are_kebab_case_have_a_meaning_and_a_default() -> None:
    for key, field in layers.leaves(Config):
        assert ".".join(key) == ".".join(key).lower().replace("_", "-")
        assert layers.description(field), key
        assert not field.required, key


def test_the_template_is_the_default_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OBSCURA_DATA_DIR", str(tmp_path))
    text = template()
    assert not layers.from_toml(Config, write(tmp_path, text))
    lines = [
        line.removeprefix("# ")
        for line in text.splitlines()
        if line.startswith("[") or (" = " in line and tomllib_accepts(line.removeprefix("# ")))
    ]
    assert layers.merge(Config, layers.from_toml(Config, write(tmp_path, "\n".join(lines)))).value == Config()
    assert len(lines) > 15


def tomllib_accepts(line: str) -> bool:
    try:
        tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return False
    return True


TEXT = st.text(st.characters(codec="utf-8"), max_size=20)


@settings(deadline=None, max_examples=100)
@given(st.recursive(TEXT | st.booleans() | st.integers(-(2**63), 2**63 - 1), st.lists))
def test_shown_values_are_toml(value: object) -> None:
    assert tomllib.loads(f"x = {layers.to_toml(value)}") == {"x": value}


@settings(deadline=None, max_examples=100)
@given(st.lists(TEXT.map(layers.to_toml), min_size=1, max_size=4), TEXT.map(layers.to_toml))
def test_any_text_in_a_value_leaves_lines_right(values: list[str], last: str) -> None:
    listed = ",\n".join(values)
    text = f"optional = '''\n[pool]\nx = 1\n'''\n[pool]\nnames = [\n{listed}\n]\nwrong = {last}"
    assert layers._key_lines(text)[("pool", "wrong")] == text.count("\n") + 1


@pytest.mark.parametrize("line", ["password = 31337", 'client-keys = "31337.onion:31337"', "client-keys = [31337]"])
def test_an_error_does_not_repeat_a_secret(tmp_path: Path, line: str) -> None:
    """It goes to standard error at a start, and into the log where a configuration is read again."""
    file = tmp_path / "obscura.toml"
    file.write_text(f"[tor-daemon]\n{line}\n")
    with pytest.raises(ConfigError, match=r"obscura.toml:2: tor-daemon\.[a-z-]+ is what is not shown here") as told:
        load(file, environ={"HOME": str(tmp_path)})
    assert "31337" not in str(told.value)
