"""One typed value out of several layers: TOML < environment < flags, checked, each value with its origin.

The schema is a ``msgspec.Struct`` with ``rename="kebab"``. A field whose type is another such struct is a
*section*: a table in TOML, ``OBSCURA_SECTION__KEY`` in the environment, ``section.key`` as a flag. No key is
known here by name.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
from msgspec import inspect

from obscura.errors import ConfigError
from obscura.limits import CONFIG_FILE_BYTES

T = TypeVar("T", bound=msgspec.Struct)
Schema = type[msgspec.Struct]
Key = tuple[str, ...]

PREFIX = "OBSCURA_"
RESERVED = frozenset({"OBSCURA_CONFIG"})  # names the file itself, so it is no key of it
DEFAULT = "default"
NAMES_SHOWN = 16  # more than one reads in the line of an error


class Setting(NamedTuple):
    """One value of one layer. ``text`` values (environment, flags) are parsed by the type of their field."""

    key: Key
    value: object
    origin: str
    text: bool = False


class Loaded(NamedTuple, Generic[T]):
    """What the layers amount to, and where each dotted key came from."""

    value: T
    origins: dict[str, str]


# --- The schema ---


def _bare(kind: Any) -> Any:
    while hasattr(kind, "__metadata__"):  # Annotated[...]
        kind = kind.__origin__
    return kind


def section_of(field: msgspec.structs.FieldInfo) -> Schema | None:
    """The struct behind a field that is a section, else None."""
    kind = _bare(field.type)
    return kind if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else None


def leaves(schema: Schema, prefix: Key = ()) -> Iterator[tuple[Key, msgspec.structs.FieldInfo]]:
    """Every key that holds a value, in the order of the source, sections descended into."""
    for field in msgspec.structs.fields(schema):
        key = (*prefix, field.encode_name)
        section = section_of(field)
        if section is None:
            yield key, field
        else:
            yield from leaves(section, key)


def nearest(word: str, known: Iterable[str]) -> str:
    """The tail of an error message about an unknown name."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]}?"
    if len(names) > NAMES_SHOWN:
        return "`obscura config init -` lists all keys"
    return f"known here: {', '.join(names)}"


def _unknown(schema: Schema, key: Key, origin: str) -> ConfigError:
    siblings, at = schema, 0
    while at < len(key):
        fields = {field.encode_name: field for field in msgspec.structs.fields(siblings)}
        inner = section_of(fields[key[at]]) if key[at] in fields else None
        if inner is None:
            break
        siblings, at = inner, at + 1
    elsewhere = [".".join(path) for path, _ in leaves(schema) if path[-1] == key[-1]]
    here = [".".join((*key[:at], field.encode_name)) for field in msgspec.structs.fields(siblings)]
    dotted = ".".join(key)
    hint = f"did you mean {elsewhere[0]}?" if elsewhere else nearest(dotted, here)
    return ConfigError(f"{origin}: unknown key {dotted}; {hint}")


# --- Layers ---


def from_toml(schema: Schema, path: Path) -> list[Setting]:
    """The settings of a TOML file. Raises ``ConfigError`` naming file and line."""
    try:
        with path.open("rb") as file:
            raw = file.read(CONFIG_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(raw) > CONFIG_FILE_BYTES:
        raise ConfigError(f"{path}: larger than {CONFIG_FILE_BYTES} bytes; is it a configuration file?")
    try:
        text = raw.decode("utf-8-sig").replace("\r\n", "\n")
        tree = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}:{raw[: error.start].count(10) + 1}: not UTF-8 text") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    lines = _key_lines(text)
    return list(_walk(schema, schema, tree, (), lambda key: f"{path}:{lines.get(key, 1)}"))


def _walk(
    root: Schema, schema: Schema, table: Mapping[str, Any], prefix: Key, origin: Callable[[Key], str]
) -> Iterator[Setting]:
    fields = {field.encode_name: field for field in msgspec.structs.fields(schema)}
    for name, value in table.items():
        key = (*prefix, name)
        field = fields.get(name)
        if field is None:
            raise _unknown(root, key, origin(key))
        section = section_of(field)
        if section is None:
            yield Setting(key, value, origin(key))
        elif isinstance(value, dict):
            yield from _walk(root, section, value, key, origin)
        else:
            dotted = ".".join(key)
            raise ConfigError(f"{origin(key)}: {dotted} is {_shown(value)}, but it is a section: write [{dotted}]")


def _key_lines(text: str) -> dict[Key, int]:
    """The line of each key of a valid TOML text.

    ``tomllib`` keeps no positions; but a statement of TOML ends with its line unless an array or a multi-line
    string is open, and then its beginning alone does not parse. So the parser tells where statements end.
    """
    found: dict[Key, int] = {}
    header: Key = ()
    start, held = 1, ""
    for number, line in enumerate(text.split("\n"), 1):
        is_open = bool(held)
        held = f"{held}\n{line}" if held else line
        if is_open and line.endswith(",") and "#" not in line:
            continue  # in the middle of an array; long ones would take quadratic time
        try:
            statement = tomllib.loads(held)
        except tomllib.TOMLDecodeError:
            continue
        keys = list(_keys(statement))
        if held.lstrip().startswith("["):
            header = keys[-1]
        else:
            keys = [(*header, *key) for key in keys]
        for key in keys:
            found.setdefault(key, start)
        start, held = number + 1, ""
    return found


def _keys(tree: Mapping[str, Any], prefix: Key = ()) -> Iterator[Key]:
    for name, value in tree.items():
        yield (*prefix, name)
        if isinstance(value, dict):
            yield from _keys(value, (*prefix, name))


def from_environment(schema: Schema, environ: Mapping[str, str]) -> list[Setting]:
    """The settings of ``OBSCURA_KEY`` and ``OBSCURA_SECTION__KEY``; commas separate the items of a list."""
    settings = []
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in RESERVED:
            key = name.removeprefix(PREFIX).lower().replace("__", ".").replace("_", "-")
            settings.append(Setting(tuple(key.split(".")), environ[name], f"environment variable {name}", True))
    return settings


def from_flags(flags: Mapping[str, object], label: str = "flag --") -> list[Setting]:
    """The settings of flags by dotted key; ``None`` = not given. Texts are parsed as in the environment."""
    return [
        Setting(tuple(key.split(".")), value, f"{label}{key}", isinstance(value, str))
        for key, value in flags.items()
        if value is not None
    ]


# --- Merging ---


def merge(schema: type[T], settings: Iterable[Setting]) -> Loaded[T]:
    """The value of all layers, later settings over earlier ones; every one is checked, overridden or not."""
    fields = dict(leaves(schema))
    values: dict[Key, object] = {}
    origins = {".".join(key): DEFAULT for key in fields}
    for setting in settings:
        field = fields.get(setting.key)
        if field is None:
            raise _unknown(schema, setting.key, setting.origin)
        values[setting.key] = converted(setting, field.type)
        origins[".".join(setting.key)] = setting.origin
    try:
        return Loaded(_build(schema, values, ()), origins)
    except ConfigError as error:
        raise placed(error, origins) from None


def placed(error: ConfigError, origins: Mapping[str, str]) -> ConfigError:
    """An error whose sentence begins with a key, as those of whole structs do, with the place that the key's value came from."""
    found = re.match(r"[a-z0-9.-]+", str(error))
    key = found[0] if found else ""
    given = (origin for name, origin in origins.items() if f"{name}.".startswith(f"{key}.") and origin != DEFAULT)
    origin = next(given, None)
    return error if origin is None else ConfigError(f"{origin}: {error}")


def _build(schema: type[T], values: Mapping[Key, object], prefix: Key) -> T:
    arguments: dict[str, object] = {}
    for field in msgspec.structs.fields(schema):
        key = (*prefix, field.encode_name)
        section = section_of(field)
        if section is not None:
            arguments[field.name] = _build(section, values, key)
        elif key in values:
            arguments[field.name] = values[key]
    return schema(**arguments)


def converted(setting: Setting, kind: Any) -> object:
    """The setting's value as its field's type. Raises ``ConfigError``: key, value, what is expected."""
    dotted, value = ".".join(setting.key), setting.value
    told = "what is not shown here" if is_secret(kind) else _shown(value)  # an error goes into logs
    wrong = ConfigError(f"{setting.origin}: {dotted} is {told}, but {expected(kind)} is expected")
    listed = _listed(inspect.type_info(kind))
    if setting.text and listed:
        value = [part.strip() for part in str(value).split(",") if part.strip()]
    try:
        result = msgspec.convert(value, kind, strict=not setting.text, dec_hook=_decode)
    except msgspec.ValidationError:
        raise wrong from None
    if isinstance(result, float) and not math.isfinite(result):
        raise wrong
    return result


def check(value: msgspec.Struct) -> None:
    """Check the fields of a struct made in Python as those of a file; lists become tuples, texts paths."""
    for field in msgspec.structs.fields(type(value)):
        if section_of(field) is None:
            setting = Setting((field.name,), getattr(value, field.name), type(value).__name__)
            msgspec.structs.force_setattr(value, field.name, converted(setting, field.type))


def _decode(kind: type, value: object) -> object:
    """What msgspec has no form for. Its ``ValidationError`` is what becomes of a ``ValueError``."""
    assert issubclass(kind, Path), f"no setting can be a {kind.__name__}"
    if not isinstance(value, str | Path):
        raise ValueError("a path is a text")
    if value == "" or "\0" in str(value):  # nothing is not the directory that somebody happens to be in
        raise ValueError("no file has such a name")
    try:
        return expanded(value)
    except ConfigError as error:
        raise ValueError(str(error)) from None


def expanded(text: str | Path) -> Path:
    """A path that somebody typed, ``~`` and ``~user`` replaced. Raises ``ConfigError`` where this machine knows no such user."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ConfigError(f"{text}: there is no such home directory") from None


def _listed(kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.Metadata):
        return _listed(kind.type)
    if isinstance(kind, inspect.UnionType):
        return any(_listed(part) for part in kind.types)
    return isinstance(kind, inspect.ListType | inspect.VarTupleType | inspect.SetType | inspect.FrozenSetType)


def _shown(value: object) -> str:
    text = to_toml(value)
    return text if len(text) <= 60 else text[:57] + "..."


# --- Words ---


def expected(kind: Any) -> str:
    """What a field takes, in words."""
    return _words(inspect.type_info(kind))


def is_secret(kind: Any) -> bool:
    """Whether a field of this type says ``Meta(extra={"secret": True})``: no error repeats its value."""
    return any((meta.extra or {}).get("secret", False) for meta in getattr(kind, "__metadata__", ()))


def _words(kind: inspect.Type) -> str:
    match kind:
        case inspect.Metadata():
            return _words(kind.type)
        case inspect.UnionType():
            return " or ".join(_words(part) for part in kind.types if not isinstance(part, inspect.NoneType))
        case inspect.LiteralType():
            return "one of " + ", ".join(str(value) for value in kind.values)
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return "a whole number" + _range(kind)
        case inspect.FloatType():
            return "a number" + _range(kind)
        case inspect.StrType():
            return "a text" + (f" of at most {kind.max_length} characters" if kind.max_length is not None else "")
        case inspect.ListType() | inspect.VarTupleType() | inspect.SetType() | inspect.FrozenSetType():
            return f"a list, each item {_words(kind.item_type)}"
        case inspect.CustomType():
            return "a path" if issubclass(kind.cls, Path) else kind.cls.__name__
        case _:
            return "a table"


def _range(kind: inspect.IntType | inspect.FloatType) -> str:
    bounds = ((kind.ge, "from"), (kind.gt, "over"), (kind.le, "to"), (kind.lt, "below"))
    return "".join(f" {word} {bound}" for bound, word in bounds if bound is not None)


def description(field: msgspec.structs.FieldInfo) -> str:
    """The text of the field's ``msgspec.Meta(description=...)``."""
    return next((meta.description or "" for meta in getattr(field.type, "__metadata__", ())), "")


def _toml_escape(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"  # there is no \x before TOML 1.1


def to_toml(value: object) -> str:
    """A value as TOML would have it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | Path):
        quoted = json.dumps(str(value), ensure_ascii=False)
        # Basic strings bar DEL, terminals more.
        return "".join(c if c.isprintable() else _toml_escape(c) for c in quoted)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(to_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{to_toml(name)} = {to_toml(item)}" for name, item in value.items()) + "}"
    return str(value)
