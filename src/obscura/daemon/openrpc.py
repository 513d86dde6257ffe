"""The RPC described for programs: an OpenRPC document made from the registered methods and their contracts.

Source: https://spec.open-rpc.org (1.3.2). Types become JSON Schema by msgspec, so that what is checked is what is described.
"""

from __future__ import annotations

from typing import Any

import msgspec

import obscura
from obscura.daemon import jsonrpc
from obscura.daemon.contracts import CONTRACTS, PARAMETERS, Contract, Object
from obscura.daemon.rpc import Method, MethodRegistry
from obscura.daemon.scope import Scope

VERSION = "1.3.2"
ERRORS = {
    jsonrpc.INVALID_PARAMS: "the parameters do not fit",
    jsonrpc.INTERNAL_ERROR: "a defect of the node; its log has more",
    jsonrpc.USER_ERROR: "refused; the message says why and what to do",
    jsonrpc.CONFIG_ERROR: "the configuration is wrong",
    jsonrpc.ADDRESS_ERROR: "that is no address",
    jsonrpc.UNREACHABLE: "a peer could not be reached",
    jsonrpc.FORBIDDEN: "the token's scope is too small",
}


def describe_itself(registry: MethodRegistry) -> None:
    """Add ``rpc.discover`` to the methods."""

    @registry.method("rpc.discover", Scope.READ)
    def discover() -> Object:
        """This document: every method with its parameters, result and an example, as OpenRPC has it."""
        return document(registry)


def document(registry: MethodRegistry) -> Object:
    """The OpenRPC document of these methods, ready for JSON."""
    methods = list(registry)
    kinds = [kind for method in methods for kind in (_result(method), *(p.annotation for p in method.typed))]
    schemas, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    by_order = iter(schemas)
    described = [_method(method, next(by_order), [next(by_order) for _ in method.typed]) for method in methods]
    return {
        "openrpc": VERSION,
        "info": {
            "title": "Obscura",
            "version": obscura.__version__,
            "description": "JSON-RPC 2.0 over the control socket, one text per line, and over HTTP as POST /rpc.",
            "license": {"name": "Apache-2.0"},
        },
        "methods": described,
        "components": {"schemas": components},
    }


def _result(method: Method) -> Any:
    return CONTRACTS.get(method.name, Contract(method.returns)).result


def _method(method: Method, result: Object, parameters: list[Object]) -> Object:
    contract = CONTRACTS.get(method.name, Contract(method.returns))
    name = method.name.replace(".", " ")
    return {
        "name": method.name,
        "summary": method.doc,
        "paramStructure": "either",
        "params": [
            {
                "name": parameter.name,
                "description": PARAMETERS.get(f"{method.name}.{parameter.name}", PARAMETERS.get(parameter.name, "")),
                "required": parameter.is_required,
                "schema": {**schema, **({} if parameter.is_required else {"default": parameter.default})},
            }
            for parameter, schema in zip(method.typed, parameters, strict=True)
        ],
        "result": {"name": f"{name} result", "description": method.doc, "schema": result},
        "errors": [{"code": code, "message": told} for code, told in ERRORS.items()],
        "examples": [
            {
                "name": f"{name} example",
                "params": [{"name": key, "value": value} for key, value in contract.example.items()],
                "result": {"name": f"{name} result", "value": sample(contract.result)},
            }
        ],
        "x-scope": method.scope.label,
    }


def sample(kind: Any) -> Any:
    """A value of a type, as short as it can be: the example of a result."""
    return _sample(msgspec.inspect.type_info(kind))


def _sample(kind: msgspec.inspect.Type) -> Any:
    match kind:
        case msgspec.inspect.TypedDictType():
            return {field.encode_name: _sample(field.type) for field in kind.fields if field.required}
        case msgspec.inspect.ListType():
            return [_sample(kind.item_type)]
        case msgspec.inspect.DictType():
            return {}
        case msgspec.inspect.UnionType():
            return _sample(kind.types[0])
        case msgspec.inspect.LiteralType():
            return kind.values[0]
        case msgspec.inspect.BoolType():
            return True
        case msgspec.inspect.IntType():
            return 0
        case msgspec.inspect.FloatType():
            return 0.5
        case msgspec.inspect.StrType():
            return "..."
        case _:
            return None
