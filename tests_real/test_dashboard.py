"""The dashboard in real Chromium, on real nodes of which one lies about its name. Pictures go to out/ui.

apt install chromium
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect, sync_playwright

from obscura.daemon.client import Client
from obscura.ledger.mining import filler_transaction

PICTURES = Path(__file__).parents[1] / "out" / "ui"
DEADLINE_S = 60.0
PATIENT_MS = 60_000  # of a machine that does much else
LIAR = "<img src=x onerror=alert(1)><script>alert(2)</script>‮kcart\n\"'><b>&amp;"
AS_LIAR = "import sys, obscura.node.assembly as a; a.USER_AGENT = sys.argv.pop(1); import obscura.cli as c; c.main()"
expect.set_options(timeout=PATIENT_MS)
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
# Text below the contrast that WCAG 2.2 asks for (AA, 4.5; no leniency for large text).
FAINT = """() => {
  const numbers = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const under = (e) => { for (; e; e = e.parentElement) { const c = numbers(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
  const found = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || !e.checkVisibility() || e.closest("svg, :disabled, noscript")) continue;
    const [a, b] = [light(numbers(getComputedStyle(e).color)), light(under(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) found.push(`${e.tagName} ${e.className} ${e.textContent.slice(0, 30)}`);
  }
  return found;
}"""
NAMELESS = """() => [...document.querySelectorAll("button, input, textarea, [role=region], [role=img]")].filter((e) =>
  e.checkVisibility() && !(e.getAttribute("aria-label") || e.labels?.length || e.textContent.trim())).map((e) => e.outerHTML)"""


class RealNode:
    """One ``obscura run`` of ours, ended by its own pid."""

    def __init__(self, folder: Path, *words: str, called: str | None = None) -> None:
        self.folder = folder
        program = ["-m", "obscura.cli"] if called is None else ["-c", AS_LIAR, called]
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("OBSCURA_", "XDG_"))}
        self.base = [sys.executable, *program, "--network", "dev", "--data-dir", str(folder)]
        self.environ = environ
        self.process = subprocess.Popen(
            [*self.base, "run", "--json", "--listen", "127.0.0.1:0", "--set", "max-outbound=0", *words],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env=environ,
        )
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], DEADLINE_S)[0], "the node did not come up in time"
        self.facts: dict[str, Any] = json.loads(self.process.stdout.readline())
        self.url: str = self.facts.get("dashboard", "")

    def call(self, method: str, **parameters: Any) -> Any:
        """Ask it over its control socket."""
        with Client(Path(self.facts["rpc"])) as client:
            return client.call(method, **parameters)

    def cookie(self) -> str:
        """The secret of this run."""
        return (self.folder / "dev" / "rpc.cookie").read_text().strip()

    def command(self, *words: str) -> str:
        """What a command of ``obscura`` prints."""
        return subprocess.run(
            [*self.base, *words], capture_output=True, text=True, env=self.environ, timeout=DEADLINE_S, check=True
        ).stdout

    def end(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=DEADLINE_S)


def until(true: Callable[[], Any]) -> None:
    """Look again until it is so."""
    last = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < last, "it did not happen in time"
        time.sleep(0.1)


def serving(port: int = 0) -> list[str]:
    """What makes a node serve its dashboard."""
    return ["--set", f"rpc-http=127.0.0.1:{port}", "--set", "dashboard=true"]


class Visit:
    """A page whose requests, answers and complaints are written down."""

    def __init__(self, context: BrowserContext, node: RealNode) -> None:
        self.node = node
        self.asked: list[str] = []
        self.policies: dict[str, str] = {}
        self.complaints: list[str] = []
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENT_MS)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on(
            "response", lambda got: self.policies.update({got.url: got.headers.get("content-security-policy", "")})
        )
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda fault: self.complaints.append(f"{fault}"))
        self.page.on("dialog", lambda dialog: self.complaints.append(f"a dialog: {dialog.message}") or dialog.dismiss())

    def log_in(self, secret: str | None = None) -> Page:
        self.page.goto(self.node.url)
        self.page.get_by_label("Cookie or token of this node").fill(secret or self.node.cookie())
        self.page.get_by_role("button", name="Log in").click()
        self.page.wait_for_url("**/dashboard")
        expect(self.page.locator("#state")).to_have_text("live", timeout=PATIENT_MS)
        return self.page

    def picture(self, name: str) -> None:
        self.page.screenshot(path=PICTURES / f"{name}.png", full_page=True)

    def check(self, allowed: str = "") -> None:
        """Nothing was asked of anybody else, every answer had a policy, the browser had nothing to complain about."""
        assert [url for url in self.asked if not url.startswith(self.node.url)] == []
        assert self.policies
        assert all("default-src 'none'" in policy and "unsafe" not in policy for policy in self.policies.values())
        assert [text for text in self.complaints if not (allowed and allowed in text)] == []


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium")
    assert program, "chromium is missing: apt install chromium"
    PICTURES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def ann(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealNode]:
    """The node that is watched: two peers, of which one lies, and six blocks."""
    folder = tmp_path_factory.mktemp("nodes")
    with ExitStack() as stack:
        ben = RealNode(folder / "ben")
        stack.callback(ben.end)
        liar = RealNode(folder / "liar", "--connect", ben.facts["addresses"][0], called=LIAR)
        stack.callback(liar.end)
        # A stem runs outward.
        both = [word for peer in (ben, liar) for word in ("--connect", peer.facts["addresses"][0])]
        node = RealNode(folder / "ann", *serving(), *both)
        stack.callback(node.end)
        until(lambda: len(node.call("peers")) == 2)
        node.call("mine", blocks=6)
        yield node


@pytest.fixture(scope="module")
def seen(browser: Browser, ann: RealNode) -> Iterator[Visit]:
    """A page that has been open on the desktop since before everything else."""
    with opened(browser, ann) as visit:
        visit.log_in()
        yield visit
        visit.check()


@contextmanager
def opened(browser: Browser, node: RealNode, **how: Any) -> Iterator[Visit]:
    context = browser.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce", **how})
    yield Visit(context, node)
    context.close()


def transaction() -> str:
    return filler_transaction(random.SystemRandom()).hex()


def test_a_wrong_secret_is_refused_in_words(browser: Browser, ann: RealNode) -> None:
    with opened(browser, ann, color_scheme="dark", viewport=PHONE) as visit:
        page = visit.page
        page.goto(ann.url)
        page.get_by_label("Cookie or token of this node").fill("guess")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("neither the cookie of this run nor a token")
        assert page.evaluate("sessionStorage.length") == 0
        assert page.evaluate(FAINT) == []
        visit.picture("login-phone-dark")
        page.goto(f"{ann.url}dashboard")
        page.wait_for_url(ann.url)  # without a login the form, not an error
        visit.check(allowed="401")


def test_a_code_opens_the_page_once_and_leaves_the_address(browser: Browser, ann: RealNode) -> None:
    address = json.loads(ann.command("dashboard", "--json"))["address"]
    with opened(browser, ann) as visit:
        visit.page.goto(address)
        visit.page.wait_for_url("**/dashboard")
        assert "code" not in visit.page.url
        assert not any("code=" in url.partition("#")[0] for url in visit.asked)
        visit.check()
    with opened(browser, ann) as visit:
        visit.page.goto(address)
        expect(visit.page.get_by_role("alert")).to_contain_text("Not logged in")
        assert visit.page.url == ann.url


def test_what_a_peer_says_is_text_and_nothing_else(seen: Visit) -> None:
    row = seen.page.locator("#peer-table tr", has_text="<img src=x onerror=alert(1)>")
    expect(row).to_have_count(1)
    assert "\\u{202e}kcart\\u{a}" in row.inner_text()
    assert seen.page.locator("#peer-table img, #peer-table script, #peer-table b").count() == 0


def test_blocks_and_events_show_as_they_come(seen: Visit, ann: RealNode) -> None:
    height = ann.call("mine", blocks=2)["height"]
    expect(seen.page.locator("#chain-facts dd").first).to_have_text(str(height), timeout=PATIENT_MS)
    expect(seen.page.locator("#events li", has_text="tip").first).to_be_visible()


def test_the_life_of_an_own_transaction(seen: Visit) -> None:
    page = seen.page
    page.locator("#raw").fill("zz")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#send-told")).to_contain_text("hexadecimal")
    page.locator("#raw").fill(transaction())
    page.get_by_role("button", name="Send").click()
    life = page.locator(".life").first
    expect(life.locator("ol")).to_contain_text("stemmed", timeout=PATIENT_MS)
    page.locator("#h-own").evaluate("(e) => e.closest('section').scrollIntoView()")
    page.locator("section", has=page.locator("#h-own")).screenshot(path=PICTURES / "own-stemmed.png")
    page.get_by_label("direct: at once").check()
    page.locator("#raw").fill(transaction())
    page.get_by_role("button", name="Send").click()
    direct = page.locator(".life", has_text="policy: direct")
    expect(direct.locator(".station.skipped")).to_have_count(1, timeout=PATIENT_MS)
    expect(page.get_by_label("private: by a stem")).to_be_checked()  # what shows the origin is chosen each time
    expect(direct.locator("ol")).to_contain_text("diffused", timeout=PATIENT_MS)
    private = page.locator(".life", has_text="policy: private")
    expect(private.locator("ol")).to_contain_text("seen told back or fetched by", timeout=2 * PATIENT_MS)
    assert private.locator("circle.peer").count() >= 1
    page.locator("section", has=page.locator("#h-own")).screenshot(path=PICTURES / "own-seen.png")


LIVES = {
    "aa": [
        ("queued", {}),
        ("stemmed", {}),
        ("re-stemmed", {}),
        ("re-stemmed", {}),
        ("seen", {"peers": 3}),
        ("seen", {"peers": 9}),
    ],
    "bb": [("queued", {}), ("unprotected", {"reason": LIAR})],
    "cc": [("queued", {}), ("stemmed", {}), ("expired", {"reason": "nobody showed it until the deadline"})],
    "dd": [("queued", {}), ("diffused", {}), ("seen", {"peers": 0})],
}


def test_lives_that_go_other_ways(browser: Browser, ann: RealNode) -> None:
    """Receipts that a quick network does not give are put into the node's answers."""

    def told(route: Route) -> None:
        (asked, *_) = route.request.post_data_json
        if asked["method"] != "tx.receipts":
            return route.continue_()
        steps = LIVES[asked["params"]["id"][:2]]
        given = [{"id": "", "stage": stage, "final": False, **more} for stage, more in steps]
        given[-1]["final"] = True
        answer = [{"jsonrpc": "2.0", "id": asked["id"], "result": given}]
        return route.fulfill(json=answer, headers={"content-security-policy": "default-src 'none'"})

    with opened(browser, ann, viewport=PHONE) as visit:
        visit.page.route("**/rpc", told)
        page = visit.log_in()
        for start in LIVES:
            page.locator("#tx-id").fill(start * 32)
            page.get_by_role("button", name="Follow").click()
        expect(page.locator(".life ol", has_text="the last word")).to_have_count(4)
        lives = {start: page.locator(".life", has_text=start * 32) for start in LIVES}
        assert lives["aa"].locator(".again").count() == 2
        assert lives["aa"].locator("circle.peer").count() == 9
        assert lives["bb"].locator(".station.failed").count() == 1
        assert lives["bb"].locator("img, script").count() == 0
        assert lives["cc"].locator(".station.failed").count() == 1
        assert "whoever was told had it already" in lives["dd"].inner_text()
        page.locator("#lives").screenshot(path=PICTURES / "lives-phone.png")
        visit.check()


def test_every_part_has_something_to_show(seen: Visit) -> None:
    page = seen.page
    for part in ("#essentials dd", "#chart path", "#traffic-legend li", "#peer-bars li", "#privacy-facts dd"):
        expect(page.locator(part).first).to_be_visible(timeout=PATIENT_MS)
    expect(page.locator("#book-pictures rect")).to_have_count(1024 + 256)
    expect(page.locator("#doctor-told")).to_contain_text("fine.", timeout=2 * PATIENT_MS)
    assert page.locator("#fine li").count() >= 3
    expect(page.locator(".loading")).to_have_count(0)
    assert page.locator("#essentials").inner_text().count("undefined") == 0
    assert "NaN" not in page.inner_text("main")
    assert "undefined" not in page.inner_text("main")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("place", "size"), [("desktop", DESKTOP), ("phone", PHONE)])
def test_it_can_be_read_in_each_light_and_size(seen: Visit, place: str, size: Any, scheme: Any) -> None:
    page = seen.page
    page.set_viewport_size(size)
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.evaluate("scrollTo(0, 0)")
    try:
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it has to be scrolled sideways"
        assert page.evaluate(FAINT) == []
        assert page.evaluate(NAMELESS) == []
        seen.picture(f"{place}-{scheme}")
    finally:
        page.set_viewport_size(DESKTOP)


def test_a_keyboard_is_enough(browser: Browser, ann: RealNode) -> None:
    with opened(browser, ann) as visit:
        page = visit.page
        page.goto(ann.url)
        page.keyboard.type(ann.cookie())  # the field has the focus
        page.keyboard.press("Enter")
        page.wait_for_url("**/dashboard")
        expect(page.locator("#state")).to_have_text("live", timeout=PATIENT_MS)
        expect(page.locator("#peer-scroll")).to_be_visible()
        passed: list[str] = []
        for _ in range(40):
            page.keyboard.press("Tab")
            name, outline = page.evaluate(
                "() => { const e = document.activeElement; const s = getComputedStyle(e);"
                " return [e.id || e.name || `${e.tagName} ${e.textContent.trim()}`, s.outlineStyle + ' ' + s.outlineWidth]; }"
            )
            if name in passed or name.startswith("BODY"):
                break
            assert outline == "solid 3px", f"{name} does not show that it has the focus"
            passed.append(name)
            if name == "raw":
                page.keyboard.insert_text(transaction())  # as pasting does
            if name == "policy":
                page.keyboard.press("ArrowUp")  # from the first to the last: direct
                page.keyboard.press("Enter")
        assert {"logout", "raw", "policy", "tx-id", "peer-scroll", "SUMMARY What the level sets"} <= set(passed)
        expect(page.locator(".life", has_text="policy: direct")).to_have_count(1)
        page.locator("#logout").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("You are logged out.")
        assert page.evaluate("sessionStorage.length") == 0
        page.goto(f"{ann.url}dashboard")
        page.wait_for_url(ann.url)
        visit.check(allowed="401")


def test_many_peers_of_every_kind_fit_a_phone(browser: Browser, ann: RealNode) -> None:
    faces, carriers, slots = ("clearnet", "onion", "i2p"), ("plain", "tls", "http", "ssh"), ("full", "blocks", "feeler")

    def crowd(route: Route) -> None:
        got = route.fetch()
        answers = got.json()
        for answer in answers if isinstance(answers, list) else []:
            if isinstance(answer.get("result"), list) and answer["result"] and "user_agent" in answer["result"][0]:
                one = answer["result"][0]
                answer["result"] = [
                    {
                        **one,
                        "peer": n,
                        "face": faces[n % 3],
                        "carrier": carriers[n % 4],
                        "purpose": slots[n % 7 % 3],
                        "inbound": n % 5 > 2,
                        "manual": n % 9 == 0,
                        "address": f"obscura://{'k' * 52}@{'a' * 56}.onion:{n}",
                        "user_agent": LIAR * 5,
                    }
                    for n in range(125)
                ]
        route.fulfill(response=got, json=answers)

    with opened(browser, ann, viewport=PHONE) as visit:
        visit.page.route("**/rpc", crowd)
        page = visit.log_in()
        expect(page.locator("#peer-table tbody tr")).to_have_count(125)
        assert page.locator("#peer-bars li").count() == 12
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        visit.picture("many-peers-phone")
        page.set_viewport_size(DESKTOP)
        visit.picture("many-peers-desktop")
        visit.check()


def test_who_may_only_look_gets_no_form(browser: Browser, ann: RealNode) -> None:
    token = ann.command("token", "add", "watcher", "--scope", "read").split()[-1]
    with opened(browser, ann) as visit:
        page = visit.log_in(token)
        expect(page.locator("#may-not-send")).to_be_visible()
        assert not page.locator("#send").is_visible()
        assert not page.locator("#ask-doctor").is_visible()
        visit.check()


def test_alone_then_gone_then_back(browser: Browser, tmp_path: Path) -> None:
    node = RealNode(tmp_path / "eve", *serving())
    try:
        with opened(browser, node, color_scheme="dark") as visit:
            page = visit.log_in()
            expect(page.locator("#peers-empty")).to_contain_text("No peers yet")
            visit.picture("alone-desktop-dark")
            node.end()
            expect(page.locator("#banner")).to_contain_text("does not answer", timeout=PATIENT_MS)
            visit.picture("gone-desktop-dark")
            port = int(node.url.rstrip("/").rpartition(":")[2])
            node = RealNode(tmp_path / "eve", *serving(port))
            expect(page.get_by_role("alert")).to_contain_text("Log in again", timeout=PATIENT_MS)
            assert [url for url in visit.asked if not url.startswith(node.url)] == []
    finally:
        node.end()
