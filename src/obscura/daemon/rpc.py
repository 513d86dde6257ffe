"""Methods by name, and what a JSON-RPC text gets for an answer. Knows no transport.

A method is a function with typed parameters and a docstring::

    registry = MethodRegistry()

    @registry.method("ping")
    async def ping(peer: str, count: int = 1) -> dict[str, float]:
        "Send pings to a peer."

Parameters arrive by position or by name and are checked against the annotations. A parameter annotated
``Session`` is not the caller's: it receives the connection. A ``UserError`` becomes an error answer with its
sentence; any other exception an internal error that says nothing outside.
"""

from __future__ import annotations

import asyncio
import difflib
import inspect
import logging
import traceback
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple, Protocol, TypeVar, get_type_hints

import msgspec
from msgspec import UNSET

from obscura.daemon import jsonrpc
from obscura.daemon.jsonrpc import Request, RpcError
from obscura.daemon.scope import Scope
from obscura.errors import UserError
from obscura.limits import RPC_BATCH

log = logging.getLogger(__name__)
Handler = TypeVar("Handler", bound=Callable[..., Any])


class Session(Protocol):
    """The connection that a call came over, as far as a method may use it."""

    def subscribe(self, kinds: Collection[str] | None) -> None:
        """Send events as notifications from now on, in place of an earlier subscription."""

    def unsubscribe(self) -> bool:
        """Stop that; whether there was a subscription."""


class Parameter(NamedTuple):
    """One parameter of a method, its annotation resolved."""

    name: str
    annotation: Any
    is_required: bool
    default: Any


class Method:
    """One registered function with its parameters as a checked struct."""

    def __init__(self, name: str, function: Callable[..., Any], scope: Scope) -> None:
        hints = get_type_hints(function, include_extras=True)
        parameters = inspect.signature(function).parameters.values()
        self.name = name
        self.scope = scope
        self.doc = inspect.getdoc(function) or ""
        self._function = function
        self._session = next((p.name for p in parameters if hints.get(p.name) is Session), None)
        self.parameters = [p for p in parameters if p.name != self._session]
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        if any(p.kind not in named or p.name not in hints for p in self.parameters):
            raise TypeError(f"method {name}: every parameter needs a name and an annotation")
        self.returns = hints.get("return", Any)
        self.typed = [
            Parameter(p.name, hints[p.name], p.default is p.empty, None if p.default is p.empty else p.default)
            for p in self.parameters
        ]
        fields = [
            (p.name, hints[p.name]) if p.default is p.empty else (p.name, hints[p.name], p.default)
            for p in self.parameters
        ]
        self._schema = msgspec.defstruct("params", fields, forbid_unknown_fields=True, kw_only=True)

    async def call(self, params: Any, session: Session | None) -> Any:
        """Check ``params`` (array, object or unset) and call. Raises ``RpcError`` if they do not fit."""
        arguments = msgspec.structs.asdict(self._checked(params))
        if self._session is not None:
            arguments[self._session] = session
        result = self._function(**arguments)
        return await result if inspect.isawaitable(result) else result

    def _checked(self, params: Any) -> msgspec.Struct:
        if params is UNSET:
            params = {}
        if isinstance(params, list):
            if len(params) > len(self.parameters):
                raise RpcError(jsonrpc.INVALID_PARAMS, f"{self.signature} takes no more than {len(self.parameters)}")
            params = {p.name: value for p, value in zip(self.parameters, params, strict=False)}
        try:
            return msgspec.convert(params, self._schema)
        except msgspec.ValidationError as error:
            raise RpcError(jsonrpc.INVALID_PARAMS, f"{self.signature}: {error}") from None

    @property
    def signature(self) -> str:
        """Such as ``ping(peer, count=1)``."""
        shown = [p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in self.parameters]
        return f"{self.name}({', '.join(shown)})"


class MethodRegistry:
    """The methods of one node, ``rpc.methods`` and the event subscription among them."""

    def __init__(self) -> None:
        self._methods: dict[str, Method] = {}
        self.method("rpc.methods", Scope.READ)(self._list)
        self.method("events.subscribe", Scope.READ)(_subscribe)
        self.method("events.unsubscribe", Scope.READ)(_unsubscribe)

    def __iter__(self) -> Iterator[Method]:
        """The methods, by name."""
        return iter([method for _, method in sorted(self._methods.items())])

    def method(self, name: str, scope: Scope = Scope.ADMIN) -> Callable[[Handler], Handler]:
        """Register the decorated function (plain or async, free or bound) under ``name``, for callers with that scope."""

        def register(function: Handler) -> Handler:
            if name in self._methods:
                raise ValueError(f"method {name} is registered already")
            self._methods[name] = Method(name, function, scope)
            return function

        return register

    def _list(self) -> list[dict[str, object]]:
        """All methods: name, parameters with their defaults, the scope that they need, documentation."""
        return [
            {"name": method.name, "signature": method.signature, "scope": method.scope.label, "doc": method.doc}
            for method in self
        ]

    async def respond(self, text: bytes, session: Session | None = None, scope: Scope = Scope.ADMIN) -> bytes | None:
        """The line that answers a JSON text, or None if nothing in it asks for an answer. Never raises.

        ``scope`` is the caller's; over the control socket it is the owner.
        """
        try:
            asked = msgspec.json.decode(text)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return jsonrpc.line(jsonrpc.failure(RpcError(jsonrpc.PARSE_ERROR, "this is not JSON")))
        if not isinstance(asked, list):
            return _line(await self._one(asked, session, scope))
        if not 0 < len(asked) <= RPC_BATCH:
            message = f"a batch holds 1 to {RPC_BATCH} calls"
            return jsonrpc.line(jsonrpc.failure(RpcError(jsonrpc.INVALID_REQUEST, message)))
        answers: list[bytes] = []
        room = jsonrpc.ANSWER_BYTES
        for item in asked:
            answer = _line(await self._one(item, session, scope, has_room=room > 0))
            if answer is not None:
                answers.append(answer.rstrip(b"\n"))
                room -= len(answer)
            await asyncio.sleep(0)  # most methods wait for nothing: a thousand of them would hold up every link
        return b"[" + b",".join(answers) + b"]\n" if answers else None

    async def _one(
        self, asked: Any, session: Session | None, scope: Scope, *, has_room: bool = True
    ) -> dict[str, object] | None:
        try:
            request = msgspec.convert(asked, Request)
        except msgspec.ValidationError as error:
            id = asked.get("id") if isinstance(asked, dict) else None
            id = id if isinstance(id, str | int | float) and not isinstance(id, bool) else None
            return jsonrpc.failure(RpcError(jsonrpc.INVALID_REQUEST, f"not a JSON-RPC 2.0 call: {error}"), id)
        if not has_room and request.id is not UNSET:
            told = (
                f"not called: the answers before it have {jsonrpc.ANSWER_BYTES} bytes already; ask in smaller batches"
            )
            return jsonrpc.failure(RpcError(jsonrpc.TOO_LARGE, told), request.id)
        try:
            answer = jsonrpc.answer(await self._call(request, session, scope), request.id)
        except RpcError as error:
            answer = jsonrpc.failure(error, request.id)
        return None if request.id is UNSET else answer

    async def _call(self, request: Request, session: Session | None, scope: Scope) -> Any:
        method = self._methods.get(request.method)
        if method is None:
            name = request.method[:100]  # difflib takes seconds and memory in proportion, and a name may have megabytes
            close = difflib.get_close_matches(name, self._methods, n=1)
            hint = f"did you mean {close[0]}?" if close else "rpc.methods lists all"
            raise RpcError(jsonrpc.METHOD_NOT_FOUND, f"there is no method {name!r}; {hint}")
        if scope < method.scope:
            told = f"{method.name} needs the scope {method.scope.label}; the token has {scope.label}"
            raise RpcError(jsonrpc.FORBIDDEN, told)
        try:
            return await method.call(request.params, session)
        except RpcError:
            raise
        except UserError as error:
            raise RpcError(jsonrpc.code_of(error), str(error)) from None
        except Exception as error:
            _log_fault(method.name, error)
            raise RpcError(jsonrpc.INTERNAL_ERROR, "internal error; the node's log has more") from None


def _line(answer: dict[str, object] | None) -> bytes | None:
    if answer is None:
        return None
    try:
        return jsonrpc.line(answer)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        _log_fault("encoding of an answer", error)
        told = RpcError(jsonrpc.INTERNAL_ERROR, "internal error; the node's log has more")
        return jsonrpc.line(jsonrpc.failure(told, answer["id"]))  # type: ignore[arg-type]


def _log_fault(where: str, error: Exception) -> None:
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("fault in RPC %s: %s\n%s", where, type(error).__name__, frames)  # its text may name a peer


def _subscribe(session: Session, kinds: list[str] | None = None) -> bool:
    """Send events over this connection as notifications: all kinds, or those named."""
    if session is None:
        raise RpcError(jsonrpc.INVALID_REQUEST, "events need a connection that stays open")
    session.subscribe(kinds)
    return True


def _unsubscribe(session: Session) -> bool:
    """Send no more events over this connection; whether it was subscribed."""
    return session is not None and session.unsubscribe()
