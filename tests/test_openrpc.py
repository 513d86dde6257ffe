"""The OpenRPC document: its form, that every method is in it wholly, and that a node does what it says when it is tried."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from obscura.daemon import jsonrpc
from obscura.daemon.config import Config
from obscura.daemon.contracts import CONTRACTS, PARAMETERS
from obscura.daemon.i2p_settings import I2pSettings
from obscura.daemon.methods import rpc_methods
from obscura.daemon.node import Node
from obscura.daemon.openrpc import document
from obscura.daemon.rpc import MethodRegistry
from obscura.daemon.scope import SCOPES, Scope
from obscura.daemon.ways import TorSettings

TYPES = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}
KEYWORDS = {
    *(
        "type",
        "properties",
        "required",
        "items",
        "anyOf",
        "enum",
        "$ref",
        "additionalProperties",
        "description",
        "title",
    ),
    *(
        "default",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "pattern",
        "maxLength",
        "minLength",
        "const",
    ),
}


def schema_faults(schema: Any, components: dict[str, Any], at: str) -> list[str]:
    """What is wrong with a schema's form."""
    if not isinstance(schema, dict):
        return [f"{at}: a schema is an object"]
    faults = [f"{at}: unknown keyword {key}" for key in schema if key not in KEYWORDS]
    if "$ref" in schema and schema["$ref"].rpartition("/")[2] not in components:
        faults.append(f"{at}: {schema['$ref']} leads nowhere")
    if "type" in schema and schema["type"] not in TYPES:
        faults.append(f"{at}: no type {schema['type']}")
    for name, inner in schema.get("properties", {}).items():
        faults += schema_faults(inner, components, f"{at}.{name}")
    faults += [
        f"{at}: {name} is required and not described"
        for name in schema.get("required", ())
        if name not in schema["properties"]
    ]
    for inner in (*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else ())):
        faults += schema_faults(inner, components, at)
    return faults


def fits(value: Any, schema: dict[str, Any], components: dict[str, Any]) -> bool:
    """Whether a value is what a schema says: as much of JSON Schema as the document uses."""
    if "$ref" in schema:
        return fits(value, components[schema["$ref"].rpartition("/")[2]], components)
    if "anyOf" in schema:
        return any(fits(value, inner, components) for inner in schema["anyOf"])
    if "enum" in schema and value not in schema["enum"]:
        return False
    kind = TYPES.get(schema.get("type", ""))
    if kind is not None and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
        return False
    if isinstance(value, dict):
        named = schema.get("properties", {})
        extra = schema.get("additionalProperties")
        return all(name in value for name in schema.get("required", ())) and all(
            fits(inner, named[name], components)
            if name in named
            else not isinstance(extra, dict) or fits(inner, extra, components)
            for name, inner in value.items()
        )
    return (
        not isinstance(value, list) or "items" not in schema or all(fits(v, schema["items"], components) for v in value)
    )


def unnamed(value: Any, schema: dict[str, Any], components: dict[str, Any], at: str) -> list[str]:
    """Fields of an answer that the document does not name, and objects of which it says nothing more."""
    if "$ref" in schema:
        return unnamed(value, components[schema["$ref"].rpartition("/")[2]], components, at)
    if "anyOf" in schema:
        return unnamed(value, next(s for s in schema["anyOf"] if fits(value, s, components)), components, at)
    if isinstance(value, list):
        return [fault for inner in value for fault in unnamed(inner, schema.get("items", {}), components, f"{at}[]")]
    if not isinstance(value, dict):
        return []
    named, extra = schema.get("properties", {}), schema.get("additionalProperties")
    faults = []
    for name, inner in value.items():
        kind = named.get(name, extra)
        faults += unnamed(inner, kind, components, f"{at}.{name}") if isinstance(kind, dict) else [f"{at}.{name}"]
    return faults


def form_faults(found: dict[str, Any]) -> list[str]:
    """What is wrong with the form of a document, by the specification's tables of fields."""
    faults = [f"no {name}" for name in ("openrpc", "info", "methods") if name not in found]
    faults += [f"info has no {name}" for name in ("title", "version") if not found["info"].get(name)]
    components = found["components"]["schemas"]
    for name, schema in components.items():
        faults += schema_faults(schema, components, name)
    names = [method["name"] for method in found["methods"]]
    faults += ["a name stands twice"] if len(set(names)) < len(names) else []
    for method in found["methods"]:
        at = method["name"]
        faults += [] if method["summary"].strip() else [f"{at}: no summary"]
        if method["paramStructure"] not in ("by-name", "by-position", "either"):
            faults.append(f"{at}: paramStructure")
        seen_optional = False
        for parameter in method["params"]:
            faults += [] if parameter["description"] else [f"{at}.{parameter['name']}: not described"]
            faults += schema_faults(parameter["schema"], components, f"{at}.{parameter['name']}")
            seen_optional |= not parameter["required"]
            if parameter["required"] and seen_optional:
                faults.append(f"{at}.{parameter['name']}: required behind an optional one")
        if not {"name", "schema"} <= method["result"].keys():
            faults.append(f"{at}: result")
        elif not method["result"]["schema"]:
            faults.append(f"{at}: the result has no type")
        else:
            faults += schema_faults(method["result"]["schema"], components, f"{at} result")
        faults += [
            f"{at}: an error"
            for error in method["errors"]
            if not isinstance(error["code"], int) or not error["message"]
        ]
        for example in method["examples"]:
            schemas = {parameter["name"]: parameter["schema"] for parameter in method["params"]}
            for given in example["params"]:
                if given["name"] not in schemas or not fits(given["value"], schemas[given["name"]], components):
                    faults.append(f"{at}: example {given}")
            if not fits(example["result"]["value"], method["result"]["schema"], components):
                faults.append(f"{at}: example of the result")
    return faults


async def scene(folder: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The document, and the answer to every method's example."""
    places = tuple(f"127.0.0.1:0?carrier={carrier}" for carrier in ("plain", "http", "tls", "ssh", "dns"))
    plain = {"network": "dev", "max_outbound": 0}
    mine = Config(
        data_dir=folder / "a",
        listen=places,
        tor="auto",
        tor_daemon=TorSettings(control="127.0.0.1:1"),  # where no tor is, nor a router
        i2p="auto",
        i2p_router=I2pSettings(sam="127.0.0.1:1"),
        **plain,  # type: ignore[arg-type]
    )
    theirs = Config(data_dir=folder / "b", listen=places[:1], **plain)  # type: ignore[arg-type]
    async with Node(mine) as node, Node(theirs) as peer:
        registry = rpc_methods(node)

        async def call(method: str, params: Any = ()) -> dict[str, Any]:
            text = {"jsonrpc": "2.0", "method": method, "params": params or {}, "id": 1}
            answer: dict[str, Any] = json.loads(await registry.respond(json.dumps(text).encode()) or b"")
            return answer

        await node.connect(peer.addresses[0])
        await call("mine", {"blocks": 2})
        described = (await call("rpc.discover"))["result"]
        order = sorted(
            (method["name"] for method in described["methods"]),
            key=lambda name: (name == "bans.remove", name == "stop"),
        )
        answers = {}
        for name in order:
            answers[name] = await call(name, CONTRACTS[name].example if name in CONTRACTS else {})
        return described, answers


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    return asyncio.run(scene(tmp_path_factory.mktemp("openrpc")))


def test_the_document_has_the_form_of_openrpc(tried: tuple[dict[str, Any], dict[str, Any]]) -> None:
    assert form_faults(tried[0]) == []
    assert tried[0]["openrpc"] == "1.3.2"


def test_every_method_has_its_contract_its_scope_and_described_parameters(
    tried: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    there = {method["name"] for method in tried[0]["methods"]}
    assert there - CONTRACTS.keys() == set(), "describe them in daemon/contracts.py"
    assert there - SCOPES.keys() == set(), "say in daemon/scope.py what they need"
    assert (CONTRACTS.keys() | SCOPES.keys()) - there == set()
    used = {
        name
        for method in tried[0]["methods"]
        for p in method["params"]
        for name in (p["name"], f"{method['name']}.{p['name']}")
    }
    assert PARAMETERS.keys() - used == set()


def test_every_example_does_what_the_document_says(tried: tuple[dict[str, Any], dict[str, Any]]) -> None:
    described, answers = tried
    components = described["components"]["schemas"]
    for method in described["methods"]:
        answer, name = answers[method["name"]], method["name"]
        if CONTRACTS[name].fails:
            assert answer["error"]["code"] in {error["code"] for error in method["errors"]} | {
                jsonrpc.INVALID_REQUEST
            }, name
            assert answer["error"]["code"] not in (jsonrpc.INVALID_PARAMS, jsonrpc.INTERNAL_ERROR), answer
        else:
            assert "result" in answer, (name, answer)
            assert fits(answer["result"], method["result"]["schema"], components), (name, answer)
            msgspec.convert(answer["result"], CONTRACTS[name].result)
            assert (
                name == "rpc.discover" or unnamed(answer["result"], method["result"]["schema"], components, name) == []
            )


@pytest.mark.parametrize(
    ("method", "params", "words"),
    [
        ("bans.add", {"subject": "203.0.113.1", "for_s": 0}, "float` > 0.0 - at `$.for_s`"),
        ("addresses.list", {"limit": -1}, "`int` >= 0 - at `$.limit`"),
        ("chain.import", {"path": "/nowhere", "offset": -1}, "`int` >= 0 - at `$.offset`"),
    ],
)
def test_a_number_out_of_range_is_refused_by_the_name_of_its_parameter(
    tmp_path: Path, method: str, params: dict[str, Any], words: str
) -> None:
    async def answer() -> dict[str, Any]:
        async with Node(Config(network="dev", data_dir=tmp_path, listen=(), max_outbound=0)) as node:
            asked = {"jsonrpc": "2.0", "method": method, "params": params, "id": 1}
            found: dict[str, Any] = json.loads(await rpc_methods(node).respond(json.dumps(asked).encode()) or b"")
            return found

    told = asyncio.run(answer())["error"]
    assert told["code"] == jsonrpc.INVALID_PARAMS
    assert words in told["message"]


def test_the_document_tells_the_scope_that_is_enforced(tried: tuple[dict[str, Any], dict[str, Any]]) -> None:
    for method in tried[0]["methods"]:
        assert Scope.of(method["x-scope"]) is SCOPES[method["name"]]


def test_the_page_about_the_rpc_has_a_row_for_each_method_with_its_scope(
    tried: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    page = (Path(__file__).parents[1] / "docs" / "rpc.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z.]+)\(.*?\)` \| (read|write|admin) \|", page, re.MULTILINE))
    assert rows == {method["name"]: method["x-scope"] for method in tried[0]["methods"]}


def test_the_page_about_the_rpc_has_a_row_for_each_kind_of_event() -> None:
    root = Path(__file__).parents[1]
    table = (root / "docs" / "rpc.md").read_text().partition("## Events")[2].partition("## Methods")[0]
    rows = [
        kind
        for cell in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
        for kind in re.findall(r"`([a-z0-9-]+)`", cell)
    ]
    said = re.compile(r'(?:Notify|_?told)\(\s*"([a-z0-9-]+)"')
    code = [path.read_text() for path in (root / "src/obscura").rglob("*.py")]
    there = {kind for text in code for kind in said.findall(text)} | {"rotated", "lost"}  # said in other words
    assert len(rows) == len(set(rows))
    assert set(rows) == there


def test_a_field_without_a_name_is_noticed() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "object"}, "b": {"type": "array", "items": {"$ref": "/B"}}},
    }
    components = {"B": {"anyOf": [{"type": "null"}, {"type": "object", "properties": {"c": {}}}]}}
    value = {"a": {"x": 1}, "b": [None, {"c": 1, "d": 2}], "e": 3}
    assert unnamed(value, schema, components, "") == [".a.x", ".b[].d", ".e"]


BAD = [
    {"type": "strange"},
    {"$ref": "#/components/schemas/Nothing"},
    {"type": "object", "required": ["x"], "properties": {}},
    {"colour": "red"},
    {"type": "array", "items": {"type": "x"}},
    [],
]


@pytest.mark.parametrize("schema", BAD)
def test_a_bad_schema_is_noticed(schema: Any) -> None:
    assert schema_faults(schema, {}, "x")


def test_a_method_that_nobody_described_is_noticed() -> None:
    registry = MethodRegistry()
    registry.method("new")(lambda: 1)
    faults = form_faults(document(registry))
    assert "new: no summary" in faults
    assert "new: the result has no type" in faults


@pytest.mark.parametrize(
    ("value", "schema", "is_so"),
    [
        (1, {"type": "integer"}, True),
        (True, {"type": "integer"}, False),
        (None, {"anyOf": [{"type": "string"}, {"type": "null"}]}, True),
        ({"a": 1}, {"type": "object", "properties": {"a": {"type": "string"}}}, False),
        ({}, {"type": "object", "required": ["a"], "properties": {"a": {}}}, False),
        ([1, "x"], {"type": "array", "items": {"type": "integer"}}, False),
        ("c", {"enum": ["a", "b"]}, False),
        ({"a": "x"}, {"type": "object", "additionalProperties": {"type": "integer"}}, False),
    ],
)
def test_the_checker_of_values_is_tried_itself(value: Any, schema: dict[str, Any], is_so: bool) -> None:
    assert fits(value, schema, {}) is is_so
