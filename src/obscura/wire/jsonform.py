"""Frames as JSON objects and back, for people and scripts: the form of ``obscura wire decode|encode``.

An object has ``type``, ``size``, ``checksum``, ``valid`` and ``payload``. The payload's fields are those of
the message class: bytes as hex in wire order, integers as numbers, u64 as decimal strings.
``encode_object(o)`` is the frame again for every object ``o`` that ``decode_stream`` gives.
"""

from __future__ import annotations

import types
from collections.abc import Hashable, Iterator
from functools import cache
from struct import Struct, calcsize
from struct import error as StructError
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec

from obscura.errors import UserError, Violation
from obscura.limits import MAX_UNKNOWN_PAYLOAD
from obscura.wire.catalogue import CATALOGUE, Catalogue
from obscura.wire.fields import U64
from obscura.wire.frame import FrameDecoder, Unknown, checksum_of, encode_raw
from obscura.wire.message import Message

_HEX = frozenset(b"0123456789abcdefABCDEF \t\r\n\v\f")


def looks_hex(data: bytes) -> bool:
    """Whether this is hex text rather than frames: every byte a hex digit or white space."""
    return _HEX.issuperset(data)


def from_hex(text: bytes) -> bytes:
    """The bytes of hex text, white space anywhere. ``UserError``."""
    try:
        return bytes.fromhex(b"".join(text.split()).decode("ascii"))
    except ValueError:
        raise UserError("the input is not hex, or has an odd number of digits: use --raw for plain bytes") from None


def decode_stream(data: bytes, catalogue: Catalogue = CATALOGUE) -> Iterator[dict[str, Any]]:
    """One JSON object per frame, in any phase; ``Violation`` at a bad header, ``UserError`` at a cut."""
    decoder = FrameDecoder(catalogue.any_phase, keep_unknown=True)
    for item in decoder.receive(data):
        if isinstance(item, Violation):
            raise item
        if isinstance(item, Message):
            payload = item.encode()
            yield _object(item.TYPE, len(payload), checksum_of(payload), True, _to_json(item, type(item)))
        else:
            raw = {"raw": (item.payload or b"").hex()}
            yield _object(item.type, item.size, item.checksum, isinstance(item, Unknown), raw)
    if decoder.pending is not None:
        there, wanted = decoder.pending
        raise UserError(f"the input ends inside a frame: {there} of {wanted} bytes are there")


def encode_object(shown: Any, catalogue: Catalogue = CATALOGUE) -> bytes:
    """The frame of one JSON object. ``UserError`` names the field that is wrong.

    ``size`` is not read: it follows from the payload. ``checksum`` is read only if ``valid`` is false, then
    used as it is. A payload of ``raw`` alone is taken as it is, whatever the type.
    """
    if not isinstance(shown, dict):
        raise UserError("a frame is a JSON object with type and payload")
    for field in shown.keys() - {"type", "size", "checksum", "valid", "payload"}:
        raise UserError(f"{field[:40]!a} is no field of a frame: use type, size, checksum, valid, payload")
    name, valid = shown.get("type"), shown.get("valid", True)
    if not isinstance(name, str):
        raise UserError("type is missing or not a string")
    if not isinstance(valid, bool):
        raise UserError("valid is true or false")
    payload = _payload(name, shown.get("payload", {}), catalogue.get(name))
    checksum = None
    if not valid:
        checksum = _from_json(shown.get("checksum"), Annotated[bytes, 4], "checksum")
    try:
        return encode_raw(name, payload, checksum)
    except ValueError as error:
        raise UserError(f"type: {error}") from error


def _object(name: str, size: int, checksum: bytes, valid: bool, payload: Any) -> dict[str, Any]:
    return {"type": name, "size": size, "checksum": checksum.hex(), "valid": valid, "payload": payload}


def _payload(name: str, shown: Any, cls: type[Message] | None) -> bytes:
    limit = MAX_UNKNOWN_PAYLOAD
    if cls is not None:
        limit = cls.MAX_SIZE
    if isinstance(shown, dict) and shown.keys() == {"raw"}:
        payload: bytes = _from_json(shown["raw"], bytes, "payload.raw")
    elif cls is None:
        raise UserError(f'payload: the type {name[:40]!a} is unknown, give its bytes as {{"raw": HEX}}')
    else:
        message = _from_json(shown, cls, "payload")
        try:
            payload = message.encode()
        except (ValueError, StructError) as error:
            raise UserError(f"payload: {error}") from error
    if len(payload) > limit:
        raise UserError(f"payload: {name[:12]} has at most {limit} bytes, not {len(payload)}")
    return payload


# The shape of a field is its annotation: Annotated[int, Struct] is an integer so large, Annotated[bytes, n]
# has n bytes; else tuple[x, ...], tuple[x, y], another Struct of msgspec, x | None, bytes, str, bool, int.


@cache
def _hints(cls: Hashable) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


def _to_json(value: Any, kind: Any) -> Any:
    """``value`` of the annotation ``kind`` as JSON."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, int):
        return str(value) if U64 in getattr(kind, "__metadata__", ()) else value
    if isinstance(value, tuple):
        return [_to_json(item, inner) for item, inner in zip(value, _item_kinds(kind, len(value)), strict=True)]
    hints = _hints(type(value))  # type: ignore[arg-type]  # type[Any] is hashable, whatever mypy says
    return {field: _to_json(getattr(value, field), hints[field]) for field in value.__struct_fields__}


def _from_json(shown: Any, kind: Any, path: str) -> Any:
    """The value of the annotation ``kind`` that JSON shows. ``UserError`` names ``path``."""
    if get_origin(kind) is types.UnionType:
        return None if shown is None else _from_json(shown, get_args(kind)[0], path)
    if get_origin(kind) is tuple:
        if not isinstance(shown, list):
            raise UserError(f"{path} is a list")
        kinds = _item_kinds(kind, len(shown))
        if len(kinds) != len(shown):
            raise UserError(f"{path} has {len(kinds)} items, not {len(shown)}")
        return tuple(
            _from_json(item, inner, f"{path}[{i}]") for i, (item, inner) in enumerate(zip(shown, kinds, strict=True))
        )
    kind, bound = get_args(kind) if get_origin(kind) is Annotated else (kind, None)
    if kind is bytes:
        return _read_hex(shown, bound, path)
    if kind is int:
        return _read_int(shown, bound, path)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _read_struct(shown, kind, path)
    if not isinstance(shown, kind):
        raise UserError(f"{path} is {'a string' if kind is str else 'true or false'}")
    return shown


def _item_kinds(kind: Any, size: int) -> tuple[Any, ...]:
    kinds = get_args(kind)
    return (kinds[0],) * size if kinds[-1] is Ellipsis else kinds


def _read_hex(shown: Any, size: int | None, path: str) -> bytes:
    try:
        value = bytes.fromhex(shown)
    except (TypeError, ValueError):
        raise UserError(f"{path} is missing or not hex") from None
    if size is not None and len(value) != size:
        raise UserError(f"{path} has {size} bytes, not {len(value)}")
    return value


def _read_int(shown: Any, form: Struct | None, path: str) -> int:
    if form is U64 and isinstance(shown, str) and shown.isascii() and shown.isdecimal() and len(shown) <= 20:
        shown = int(shown)
    if not isinstance(shown, int) or isinstance(shown, bool):
        raise UserError(f"{path} is a whole number" + (", as a decimal string" if form is U64 else ""))
    largest = (1 << 8 * (form.size if form is not None else calcsize("<Q"))) - 1
    if not 0 <= shown <= largest:
        raise UserError(f"{path} is 0 to {largest}, not {shown}")
    return shown


def _read_struct(shown: Any, cls: type[msgspec.Struct], path: str) -> msgspec.Struct:
    if not isinstance(shown, dict):
        raise UserError(f"{path} is an object")
    for field in shown.keys() - set(cls.__struct_fields__):
        raise UserError(f"{path} has no field {field[:40]!a}: use {', '.join(cls.__struct_fields__) or 'none'}")
    hints = _hints(cls)
    for field in cls.__struct_fields__[: len(cls.__struct_fields__) - len(cls.__struct_defaults__)]:
        if field not in shown:
            raise UserError(f"{path}.{field} is missing")
    return cls(**{name: _from_json(shown[name], hints[name], f"{path}.{name}") for name in shown})
