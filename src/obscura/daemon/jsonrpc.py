"""JSON-RPC 2.0 as both ends see it: codes, requests, answers. One JSON text per line, objects or batches.

Source: https://www.jsonrpc.org/specification
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from obscura.errors import AddressError, ConfigError, ObscuraError, Unreachable, UserError
from obscura.limits import RPC_LINE_BYTES

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
# -32000 to -32099 are left to the implementation.
USER_ERROR = -32000
CONFIG_ERROR = -32001
ADDRESS_ERROR = -32002
UNREACHABLE = -32003
TOO_MANY_CLIENTS = -32010
TOO_LARGE = -32011
FORBIDDEN = -32012

ANSWER_BYTES = 4 * RPC_LINE_BYTES  # of one text; a batch whose answers have as many is not carried on

_USER_CODES: tuple[tuple[type[UserError], int], ...] = (
    (ConfigError, CONFIG_ERROR),
    (AddressError, ADDRESS_ERROR),
    (Unreachable, UNREACHABLE),
    (UserError, USER_ERROR),
)

Id = str | int | float | None


class Request(msgspec.Struct):
    """One call; without ``id`` a notification, which is never answered."""

    jsonrpc: Literal["2.0"]
    method: str
    params: list[Any] | dict[str, Any] | UnsetType = UNSET
    id: Id | UnsetType = UNSET


class RpcError(ObscuraError):
    """An error answer: its code, its message and what it adds."""

    def __init__(self, code: int, message: str, data: object = UNSET) -> None:
        super().__init__(message)
        self.code = code
        self.data = data


class RemoteError(RpcError, UserError):
    """An error answer as the caller gets it: the message is the node's sentence."""


def code_of(error: UserError) -> int:
    """The code under which an error that the user can mend is told."""
    return next(code for kind, code in _USER_CODES if isinstance(error, kind))


def request(method: str, params: list[Any] | dict[str, Any] | None, id: Id) -> bytes:
    """The line of a call, with its line end. Raises ``UserError`` for text with bytes that are not UTF-8: JSON cannot hold it."""
    try:
        return msgspec.json.encode({"jsonrpc": "2.0", "method": method, "params": params or {}, "id": id}) + b"\n"
    except UnicodeEncodeError as error:
        raise UserError(
            f"'{escaped(error.object)[:80]}' is not UTF-8 text, and no call can carry anything else"
        ) from None


def answer(result: object, id: Id | UnsetType) -> dict[str, object]:
    """The answer to a call that succeeded."""
    return {"jsonrpc": "2.0", "result": result, "id": id}


def failure(error: RpcError, id: Id | UnsetType = None) -> dict[str, object]:
    """An error answer; ``id`` is null where the request's could not be read."""
    told: dict[str, object] = {"code": error.code, "message": str(error)}
    if error.data is not UNSET:
        told["data"] = error.data
    return {"jsonrpc": "2.0", "error": told, "id": None if id is UNSET else id}


def notification(method: str, params: object) -> dict[str, object]:
    """A call that wants no answer."""
    return {"jsonrpc": "2.0", "method": method, "params": params}


def line(value: object) -> bytes:
    """A value as one line. JSON escapes line ends, so the only one is the last byte."""
    try:
        return msgspec.json.encode(value) + b"\n"
    except UnicodeEncodeError:  # a path of this machine may have bytes that are no text
        return msgspec.json.encode(escaped(value)) + b"\n"


def escaped(value: Any) -> Any:
    r"""The value with what its texts hold of bytes that are not UTF-8 written out.

    >>> print(escaped("/home/j\udcf6rg"))
    /home/j\udcf6rg
    """
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {escaped(name): escaped(item) for name, item in value.items()}
    return [escaped(item) for item in value] if isinstance(value, list | tuple) else value


def result(reply: dict[str, Any]) -> Any:
    """The result of an answer, or ``RemoteError``."""
    error = reply.get("error")
    if error is None:
        return reply.get("result")
    if not isinstance(error, dict):
        raise RemoteError(INTERNAL_ERROR, "the node gave an answer that is not JSON-RPC")
    raise RemoteError(error.get("code", INTERNAL_ERROR), str(error.get("message")), error.get("data", UNSET))


def one_or_many(kinds: Collection[str]) -> Collection[str]:
    """Kinds of events: a text is one of them, not its letters."""
    return (kinds,) if isinstance(kinds, str) else kinds
