"""JSON-RPC 2.0 without a transport: the specification's own examples, parameters, faults."""

from __future__ import annotations

import asyncio
import difflib
import json
import logging
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obscura.daemon import jsonrpc
from obscura.daemon.rpc import MethodRegistry, Session
from obscura.errors import AddressError, ConfigError, Unreachable, UserError
from obscura.limits import RPC_BATCH


def make_registry(calls: list[Any]) -> MethodRegistry:
    registry = MethodRegistry()

    @registry.method("subtract")
    def subtract(minuend: int, subtrahend: int) -> int:
        """Take the second from the first."""
        return minuend - subtrahend

    @registry.method("sum")
    async def add(a: int, b: int = 0, c: Annotated[int, msgspec.Meta(ge=0)] = 0) -> int:
        return a + b + c

    @registry.method("update")
    def update(values: list[int]) -> None:
        calls.append(values)

    @registry.method("get_data")
    def get_data() -> list[Any]:
        return ["hello", 5]

    @registry.method("fail")
    def fail(kind: str) -> None:
        raise {
            "user": UserError("say something else"),
            "config": ConfigError("the key is wrong"),
            "address": AddressError("no address"),
            "unreachable": Unreachable("peer away"),
            "bug": KeyError("secret-peer-address"),
        }[kind]

    @registry.method("unspeakable")
    def unspeakable() -> object:
        return object()

    return registry


def respond(text: str | bytes, calls: list[Any] | None = None) -> Any:
    raw = text.encode() if isinstance(text, str) else text
    line = asyncio.run(make_registry([] if calls is None else calls).respond(raw))
    if line is None:
        return None
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    return json.loads(line)


def call(method: str, params: Any = None, **extra: Any) -> Any:
    request = {"jsonrpc": "2.0", "method": method, "id": 1, **extra}
    return respond(json.dumps(request if params is None else {**request, "params": params}))


def result(value: Any, id: Any = 1) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "result": value, "id": id}


def code(reply: Any) -> tuple[int, Any]:
    assert reply.keys() == {"jsonrpc", "error", "id"}
    assert reply["jsonrpc"] == "2.0"
    assert isinstance(reply["error"]["message"], str)
    return reply["error"]["code"], reply["id"]


def test_positional_and_named_parameters() -> None:
    assert call("subtract", [42, 23]) == result(19)
    assert call("subtract", [23, 42]) == result(-19)
    assert call("subtract", {"subtrahend": 23, "minuend": 42}) == result(19)
    assert call("get_data") == result(["hello", 5])
    assert call("get_data", []) == call("get_data", {}) == result(["hello", 5])
    assert call("sum", [1]) == result(1)
    assert call("sum", {"c": 2, "a": 1}) == result(3)


@pytest.mark.parametrize("id", [1, "one", 1.5, None, 0, "", -(2**53)])
def test_the_id_comes_back(id: Any) -> None:
    assert call("get_data", id=id) == result(["hello", 5], id)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ([], "required field `minuend`"),
        ([1], "required field `subtrahend`"),
        ([1, 2, 3], "takes no more than 2"),
        (["1", 2], "Expected `int`, got `str`"),
        ({"minuend": 1, "subtrahend": 2, "x": 3}, "unknown field `x`"),
        ({"minuend": True, "subtrahend": 2}, "Expected `int`, got `bool`"),
    ],
)
def test_parameters_that_do_not_fit(params: Any, words: str) -> None:
    reply = call("subtract", params)
    assert code(reply) == (jsonrpc.INVALID_PARAMS, 1)
    assert reply["error"]["message"].startswith("subtract(minuend, subtrahend)")
    assert words in reply["error"]["message"]


def test_constraints_of_annotations_hold() -> None:
    assert code(call("sum", {"a": 1, "c": -1})) == (jsonrpc.INVALID_PARAMS, 1)


def test_notifications_are_executed_and_never_answered() -> None:
    calls: list[Any] = []
    assert respond('{"jsonrpc": "2.0", "method": "update", "params": [[1, 2]]}', calls) is None
    assert calls == [[1, 2]]
    assert respond('{"jsonrpc": "2.0", "method": "no such method"}') is None
    assert respond('{"jsonrpc": "2.0", "method": "subtract", "params": []}') is None
    assert respond('{"jsonrpc": "2.0", "method": "fail", "params": ["bug"]}') is None


def test_an_unknown_method_is_told_with_the_nearest() -> None:
    reply = call("substract")
    assert code(reply) == (jsonrpc.METHOD_NOT_FOUND, 1)
    assert "did you mean subtract?" in reply["error"]["message"]
    assert "rpc.methods lists all" in call("zzz")["error"]["message"]


def test_a_name_of_megabytes_is_not_compared_with_all_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop, and every link with it, would stand still for seconds at the word of a token that may only look."""
    compared: list[int] = []
    close = difflib.get_close_matches

    def counting(word: str, *rest: Any, **more: Any) -> list[str]:
        compared.append(len(word))
        return close(word, *rest, **more)

    monkeypatch.setattr(difflib, "get_close_matches", counting)
    reply = call("substract" * 1_000_000)
    assert code(reply) == (jsonrpc.METHOD_NOT_FOUND, 1)
    assert len(reply["error"]["message"]) < 300
    assert compared == [100]


@pytest.mark.parametrize(
    "text",
    [
        '{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]',
        '[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"}, {"jsonrpc": "2.0", "method"]',
        "",
        "nonsense",
        b'{"jsonrpc": "2.0", "method": "\xff", "id": 1}',
        "[" * 100_000,
        '{"a":' * 100_000,
        "9" * 5_000,
        "NaN",
        '{"jsonrpc": "2.0", "method": "get_data", "id": 1} {}',
    ],
)
def test_what_is_not_json(text: str | bytes) -> None:
    assert code(respond(text)) == (jsonrpc.PARSE_ERROR, None)


@pytest.mark.parametrize(
    ("text", "id"),
    [
        ('{"jsonrpc": "2.0", "method": 1, "params": "bar"}', None),
        ('{"jsonrpc": "1.0", "method": "get_data", "id": 1}', 1),
        ('{"method": "get_data", "id": 1}', 1),
        ('{"jsonrpc": "2.0", "id": "a"}', "a"),
        ('{"jsonrpc": "2.0", "method": "get_data", "params": "bar", "id": 2}', 2),
        ('{"jsonrpc": "2.0", "method": "get_data", "params": null, "id": 2}', 2),
        ('{"jsonrpc": "2.0", "method": "get_data", "id": {}}', None),
        ('{"jsonrpc": "2.0", "method": "get_data", "id": true}', None),
        ("1", None),
        ("null", None),
        ('"get_data"', None),
        ("{}", None),
        ("[]", None),
    ],
)
def test_what_is_no_request(text: str, id: Any) -> None:
    assert code(respond(text)) == (jsonrpc.INVALID_REQUEST, id)


def test_a_batch_is_answered_item_by_item() -> None:
    batch = """[
        {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
        {"jsonrpc": "2.0", "method": "update", "params": [[7]]},
        {"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},
        {"foo": "boo"},
        {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
        {"jsonrpc": "2.0", "method": "get_data", "id": "9"}
    ]"""
    calls: list[Any] = []
    replies = respond(batch, calls)
    assert replies[0] == result(7, "1")
    assert replies[1] == result(19, "2")
    assert code(replies[2]) == (jsonrpc.INVALID_REQUEST, None)
    assert code(replies[3]) == (jsonrpc.METHOD_NOT_FOUND, "5")
    assert replies[4:] == [result(["hello", 5], "9")]
    assert calls == [[7]]


def test_a_batch_ends_where_its_answers_are_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand calls in some kilobytes may ask for a thousand times the address book."""
    monkeypatch.setattr("obscura.daemon.jsonrpc.ANSWER_BYTES", 200)
    calls: list[Any] = []
    many = [{"jsonrpc": "2.0", "method": "get_data", "id": number} for number in range(20)]
    told = {"jsonrpc": "2.0", "method": "update", "params": [[1]]}  # a notification adds nothing
    replies = respond(json.dumps([*many, told]), calls)
    assert [reply["id"] for reply in replies] == list(range(20))
    assert replies[:5] == [result(["hello", 5], number) for number in range(5)]  # of 45 bytes each
    assert [code(reply) for reply in replies[5:]] == [(jsonrpc.TOO_LARGE, number) for number in range(5, 20)]
    assert calls == [[1]]


def test_a_batch_lets_others_work_between_its_calls() -> None:
    """Methods that wait for nothing would otherwise hold up every link of the node, a thousand at a time."""

    async def scenario() -> int:
        registry, turns, done = make_registry([]), 0, asyncio.Event()

        async def links() -> None:
            nonlocal turns
            while not done.is_set():
                turns += 1
                await asyncio.sleep(0)

        working = asyncio.create_task(links())
        await registry.respond(json.dumps([{"jsonrpc": "2.0", "method": "get_data", "id": 1}] * 100).encode())
        done.set()
        await working
        return turns

    assert asyncio.run(scenario()) >= 100


def test_batches_of_nothing_but_faults_or_notifications() -> None:
    assert [code(reply) for reply in respond("[1,[],null]")] == [(jsonrpc.INVALID_REQUEST, None)] * 3
    notice = '{"jsonrpc": "2.0", "method": "update", "params": [[1]]}'
    assert respond(f"[{notice},{notice}]") is None
    ask = '{"jsonrpc": "2.0", "method": "get_data", "id": 1}'
    assert len(respond(f"[{','.join([ask] * RPC_BATCH)}]")) == RPC_BATCH
    assert code(respond(f"[{','.join([ask] * (RPC_BATCH + 1))}]")) == (jsonrpc.INVALID_REQUEST, None)


@pytest.mark.parametrize(
    ("kind", "number", "sentence"),
    [
        ("user", jsonrpc.USER_ERROR, "say something else"),
        ("config", jsonrpc.CONFIG_ERROR, "the key is wrong"),
        ("address", jsonrpc.ADDRESS_ERROR, "no address"),
        ("unreachable", jsonrpc.UNREACHABLE, "peer away"),
        ("bug", jsonrpc.INTERNAL_ERROR, "internal error; the node's log has more"),
    ],
)
def test_errors_of_a_method(kind: str, number: int, sentence: str) -> None:
    reply = call("fail", [kind])
    assert code(reply) == (number, 1)
    assert reply["error"]["message"] == sentence


def test_a_bug_is_logged_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        call("fail", ["bug"])
    assert "KeyError" in caplog.text
    assert "in fail" in caplog.text
    assert "secret-peer-address" not in caplog.text


def test_a_result_that_json_cannot_say_is_an_internal_error() -> None:
    assert code(call("unspeakable")) == (jsonrpc.INTERNAL_ERROR, 1)


def test_a_result_with_a_path_that_is_no_text_is_told_with_its_bytes_written_out() -> None:
    assert jsonrpc.line({"a\udcff": ["/home/j\udcf6rg", 1, None]}) == b'{"a\\\\udcff":["/home/j\\\\udcf6rg",1,null]}\n'


def test_a_call_that_json_cannot_carry_is_refused_in_words() -> None:
    with pytest.raises(UserError, match=r"'j.*udcf6rg' is not UTF-8 text"):
        jsonrpc.request("connect", {"address": "j\udcf6rg"}, 1)


def test_methods_are_listed_with_signature_and_help() -> None:
    listed = {item["name"]: item for item in call("rpc.methods")["result"]}
    assert listed["subtract"]["signature"] == "subtract(minuend, subtrahend)"
    assert (listed["subtract"]["scope"], listed["rpc.methods"]["scope"]) == ("admin", "read")
    assert listed["subtract"]["doc"] == "Take the second from the first."
    assert listed["sum"]["signature"] == "sum(a, b=0, c=0)"
    assert listed["events.subscribe"]["signature"] == "events.subscribe(kinds=None)"
    assert all(listed[name]["doc"] for name in ("rpc.methods", "events.subscribe", "events.unsubscribe"))


def test_what_cannot_be_registered() -> None:
    registry = make_registry([])
    with pytest.raises(ValueError, match="registered already"):
        registry.method("sum")(lambda: None)
    with pytest.raises(TypeError, match="needs a name and an annotation"):
        registry.method("bare")(lambda x: x)

    def variadic(*args: int) -> None: ...

    with pytest.raises(TypeError, match="needs a name and an annotation"):
        registry.method("variadic")(variadic)


def test_a_session_is_not_the_callers_to_give() -> None:
    registry = MethodRegistry()

    @registry.method("whose")
    def whose(session: Session, name: str) -> str:
        return f"{session}/{name}"

    text = b'{"jsonrpc":"2.0","method":"whose","params":{"session":"forged","name":"x"},"id":1}'
    assert b"unknown field `session`" in (asyncio.run(registry.respond(text)) or b"")
    text = b'{"jsonrpc":"2.0","method":"whose","params":["x"],"id":1}'
    assert b'"the session/x"' in (asyncio.run(registry.respond(text, "the session")) or b"")  # type: ignore[arg-type]
    text = b'{"jsonrpc":"2.0","method":"events.subscribe","id":1}'
    assert b"a connection that stays open" in (asyncio.run(registry.respond(text)) or b"")


def test_the_caller_gets_the_result_or_the_nodes_sentence() -> None:
    assert jsonrpc.result({"result": 3}) == 3
    with pytest.raises(UserError, match="say something else") as raised:
        jsonrpc.result({"error": {"code": -32000, "message": "say something else"}})
    assert isinstance(raised.value, jsonrpc.RemoteError)
    assert raised.value.code == jsonrpc.USER_ERROR
    with pytest.raises(jsonrpc.RemoteError, match="not JSON-RPC"):
        jsonrpc.result({"error": "text"})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
REQUEST = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | JSON,
        "method": st.sampled_from(["sum", "update", "get_data", "events.subscribe"]) | JSON,
        "params": JSON,
        "id": JSON,
    },
)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=60) | (REQUEST | st.lists(REQUEST, max_size=4) | JSON).map(lambda x: json.dumps(x).encode()))
def test_any_text_gets_an_answer_of_the_right_form(text: bytes) -> None:
    reply = respond(text)
    for item in reply if isinstance(reply, list) else [] if reply is None else [reply]:
        assert item["jsonrpc"] == "2.0"
        assert ("result" in item) != ("error" in item)
        assert "id" in item
