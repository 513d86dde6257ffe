"""The dashboard's pages and the way in: what is open, what a code opens and when no more, and what no script may contain."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import pytest

from obscura.daemon import dashboard
from obscura.daemon.config import Config
from obscura.daemon.contracts import CONTRACTS
from obscura.daemon.dashboard import OPEN, PAGES, Door, dashboard_methods, dashboard_routes
from obscura.daemon.gate import Gate
from obscura.daemon.http_server import HttpServer
from obscura.daemon.rpc import MethodRegistry
from obscura.daemon.scope import SCOPES, Scope
from obscura.daemon.tokens import TokenFile
from obscura.daemon.web import PAGE_COOKIE, Access, Loopback
from obscura.errors import ConfigError, UserError
from obscura.limits import BOOK_CELLS, LOGIN_CODE_S, MAX_LOGIN_CODES, NEW_BUCKETS, TRIED_BUCKETS
from obscura.node.book import Book
from obscura.node.face import Face
from obscura.node.groups import Grouping
from obscura.wire.address import CarrierNumber, Endpoint

FOLDER = files(dashboard)
FILES = sorted(entry.name for entry in FOLDER.iterdir() if entry.name.rpartition(".")[2] in dashboard.KINDS)
SCRIPTS = [name for name in FILES if name.endswith(".js")]
# What makes text into elements or code, or asks somebody else.
FORBIDDEN = (
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|setHTMLUnsafe|srcdoc"
    r"|\beval\b|new Function|localStorage|WebSocket|XMLHttpRequest|sendBeacon|importScripts|serviceWorker"
)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(tmp_path: Path, clock: Clock) -> Gate:
    return Gate("the cookie", TokenFile(tmp_path / "rpc.tokens"), clock)


class Tags(HTMLParser):
    """Every tag of a page with its attributes, and the texts of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] in ("script", "style") and data.strip():
            self.inside.append(data)


def test_every_file_is_served_and_every_path_has_its_file() -> None:
    assert sorted({*OPEN.values(), *PAGES.values()}) == FILES


def test_only_the_form_and_its_parts_are_open() -> None:
    routes = dashboard_routes()
    open_paths = {path for (_, path), route in routes.items() if route.access is Access.OPEN}
    assert open_paths == {"/", "/login.js", "/style.css", "/icon.svg"}
    assert {route.access for (_, path), route in routes.items() if path not in open_paths} == {Access.PAGE}


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_script_makes_code_or_elements_of_text(name: str) -> None:
    text = (FOLDER / name).read_text()
    assert re.findall(FORBIDDEN, text) == []
    assert [
        url for url in re.findall(r"""["'`(](?:https?:)?//[^"'`)]+""", text) if "www.w3.org/2000/svg" not in url
    ] == []


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name != "login.js"])
def test_a_script_imports_only_what_is_served(name: str) -> None:
    wanted = set(re.findall(r'from "([^"]+)"', (FOLDER / name).read_text()))
    assert wanted <= PAGES.keys()


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".html")])
def test_a_page_needs_nothing_that_its_policy_forbids(name: str) -> None:
    page = Tags((FOLDER / name).read_text())
    assert page.inside == []
    for tag, attributes in page.tags:
        assert not [key for key in attributes if key.startswith("on") or key == "style"], tag
        for key in ("src", "href"):
            assert re.match(r"[/#](?!/)", attributes.get(key) or "/"), f"{tag} leads elsewhere"
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    labelled = {attributes.get("for") for tag, attributes in page.tags if tag == "label"}
    fields = [a for tag, a in page.tags if tag in ("input", "textarea") and a.get("type") != "radio"]
    assert {field.get("id") for field in fields} <= labelled


def test_scripts_name_only_what_the_page_has() -> None:
    ids = set(re.findall(r'id="([^"]+)"', (FOLDER / "dashboard.html").read_text()))
    named = {
        found
        for name in SCRIPTS
        if name != "login.js"
        for found in re.findall(r'\bat\("([^"]+)"\)', (FOLDER / name).read_text())
    }
    assert named
    assert named <= ids


def test_scripts_call_only_methods_that_there_are() -> None:
    text = "".join((FOLDER / name).read_text() for name in SCRIPTS)
    called = set(re.findall(r'call\("([^"]+)"|\["([a-z.]+)"\]', text))
    methods = {one or other for one, other in called}
    assert {"status", "peers", "tx.send", "tx.receipts", "addresses.buckets", "doctor"} <= methods
    assert methods <= CONTRACTS.keys()


def test_a_code_logs_in_once_as_the_owner(gate: Gate) -> None:
    code = gate.login_code()
    login = gate.login(code)
    assert login is not None
    assert login.scope is Scope.ADMIN
    assert gate.scope_of(login.key) is Scope.ADMIN
    assert gate.opens_pages(login.page)
    assert gate.login(code) is None


def test_a_code_is_no_secret_for_calls_or_pages(gate: Gate) -> None:
    code = gate.login_code()
    assert gate.scope_of(code) is None
    assert not gate.opens_pages(code)
    assert gate.login(code) is not None  # and trying did not spend it


def test_a_code_ends(gate: Gate, clock: Clock) -> None:
    code = gate.login_code()
    clock.now += LOGIN_CODE_S
    assert gate.login(code) is None


def test_codes_do_not_pile_up(gate: Gate) -> None:
    codes = [gate.login_code() for _ in range(MAX_LOGIN_CODES + 1)]
    assert gate.login(codes[0]) is None
    assert all(gate.login(code) for code in codes[1:])


def test_the_method_is_the_owners_and_says_what_is_missing(gate: Gate) -> None:
    assert SCOPES["dashboard.open"] is Scope.ADMIN
    door = Door()
    opened = dashboard_methods(door)["dashboard.open"]
    with pytest.raises(UserError, match="rpc-http"):
        opened(object())
    door.url, door.gate = "http://127.0.0.1:1/", gate
    assert gate.login(opened(object())["code"]) is not None


def test_a_token_cannot_get_a_code_that_outlives_it(gate: Gate) -> None:
    """What the owner takes away is gone: no session of the owner's was left behind with it."""
    door = Door()
    door.url, door.gate = "http://127.0.0.1:1/", gate
    registry = MethodRegistry()
    registry.method("dashboard.open", SCOPES["dashboard.open"])(dashboard_methods(door)["dashboard.open"])
    asked = b'{"jsonrpc":"2.0","id":1,"method":"dashboard.open"}'
    answer = asyncio.run(registry.respond(asked, None, Scope.ADMIN))  # as POST /rpc does
    assert answer is not None
    assert "control socket" in json.loads(answer)["error"]["message"]


def test_the_configuration_wants_a_place_for_it() -> None:
    with pytest.raises(ConfigError, match="rpc-http"):
        Config(dashboard=True)
    assert Config(dashboard=True, rpc_http="127.0.0.1:0").dashboard


async def asked(server: HttpServer, path: str, cookie: str = "") -> tuple[int, str, bytes]:
    """Status, head and body of one GET."""
    reader, writer = await asyncio.open_connection(server.at.host, server.at.port)
    more = f"Cookie: {PAGE_COOKIE}={cookie}\r\n" if cookie else ""
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {server.at}\r\n{more}Connection: close\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), head.decode().lower(), body


def test_pages_over_http(gate: Gate) -> None:
    async def scene() -> None:
        login = gate.login("the cookie")
        assert login is not None
        async with HttpServer(Loopback("127.0.0.1", 0), dashboard_routes(), gate) as server:
            for path in OPEN:
                status, head, _ = await asked(server, path)
                assert status == 200
                assert "content-security-policy: default-src 'none'" in head
                assert "unsafe" not in head
            for path in PAGES:
                status, head, body = await asked(server, path)
                assert status == 401
                assert "refresh: 0; url=/" in head
                assert json.loads(body) == {"error": "log in first"}
                status, head, _ = await asked(server, path, login.page)
                assert status == 200
                assert "content-security-policy: default-src 'none'" in head

    asyncio.run(scene())


def places(count: int) -> Iterator[Endpoint]:
    for number in range(count):
        yield Endpoint.of(f"{20 + number // 250}.{number % 250}.0.1", 9733)


def test_occupancy_counts_every_place_once() -> None:
    book = Book(b"k" * 32, Grouping(), random.Random(1), lambda: 1_000_000.0)
    for place in places(300):
        book.learn(place, CarrierNumber.PLAIN, Face.CLEARNET, bytes(place.host[:2]), 1_000_000)
    for entry in list(book.entries())[:20]:
        book.good(entry.place, b"p" * 32)
    new, tried = book.occupancy()
    assert (len(new), len(tried)) == (NEW_BUCKETS, TRIED_BUCKETS)
    assert (sum(new), sum(tried)) == book.sizes
    assert sum(tried) > 0
    assert max(new + tried) <= BOOK_CELLS
