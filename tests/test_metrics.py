"""Metrics: what Prometheus' own parser makes of them, that they name nobody, and that a stem transaction moves none."""

from __future__ import annotations

import asyncio
import json
import random
import re
import urllib.error
import urllib.request
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from prometheus_client.parser import text_string_to_metric_families

from chain_nodes import SETTINGS, archive_of, chain_of, network, relay_of, submit
from obscura.daemon.config import Config
from obscura.daemon.exposition import Family, exposed
from obscura.daemon.fronts import fronts
from obscura.daemon.metrics import Metered, Metrics, by_type
from obscura.daemon.node import Node
from obscura.ledger.mining import filler_transaction
from obscura.limits import DURATION_BOUNDS_S, METRICS_EVERY_S
from obscura.node.durations import Durations
from obscura.sim.network import SimNetwork, SimNode
from obscura.wire.address import key_text
from obscura.wire.messages.network import Ping
from obscura.wire.messages.transactions import StemTx, Tx
from obscura.wire.tally import OTHER, Tally, count
from small_chains import easy_ledger

ROOT = Path(__file__).parents[1]
DASHBOARD = ROOT / "packaging" / "grafana" / "obscura.json"
RAW = filler_transaction(random.Random(7))
Values = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parsed(text: bytes) -> Values:
    """Samples as the reader of Prometheus' own client understands them."""
    found: Values = {}
    for family in text_string_to_metric_families(text.decode()):
        assert family.documentation
        assert family.type in ("counter", "gauge", "histogram")
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found
            found[key] = sample.value
    return found


def simulated(node: SimNode) -> Metered:
    """A simulated node as one that is measured."""
    now = node.network.kernel.now
    shown = SimpleNamespace(
        config=Config(network="dev"), network=SimpleNamespace(name="dev"), assembly=node.assembly, uptime_s=now
    )
    return cast("Metered", shown)


def read(node: SimNode) -> Values:
    return parsed(Metrics(simulated(node)).text())


def line_of_three(seed: int) -> tuple[SimNetwork, list[SimNode]]:
    """Three nodes, each linked to the next."""
    net = network(seed)
    nodes = [net.add(SETTINGS, archive=archive_of(easy_ledger())) for _ in range(3)]
    for one, next_one in pairwise(nodes):
        one.connect(next_one.address)
    net.kernel.run(30.0)
    assert [len(node.peers) for node in nodes] == [1, 2, 1]
    return net, nodes


def values(found: Values, name: str) -> float:
    return sum(value for (key, _), value in found.items() if key == name)


def test_the_exposition_is_what_prometheus_reads() -> None:
    durations = Durations()
    for seconds in (0.05, 0.1, 0.2, 5.0, 1_000.0):
        durations.observe(seconds)
    odd = 'a"b\\c\nd'
    found = parsed(
        exposed(
            [
                Family("x_total", "counter", "X.", [({"a": odd}, 3), ({"a": "e"}, 2.5)]),
                Family("y_seconds", "histogram", "Y.", [({}, durations)]),
                Family("z", "gauge", "Z.", []),
            ]
        )
    )
    assert found["x_total", (("a", odd),)] == 3
    assert found["x_total", (("a", "e"),)] == 2.5
    buckets = [found["y_seconds_bucket", (("le", str(bound)),)] for bound in (*DURATION_BOUNDS_S, "+Inf")]
    assert buckets == [2, 3, 3, 3, 4, 4, 4, 5]
    assert found["y_seconds_count", ()] == 5
    assert found["y_seconds_sum", ()] == 1_005.4


def test_no_peers_are_0_and_not_nothing() -> None:
    """`sum(obscura_peers) == 0` never fired, and the dashboard showed "No data": there was no sample to sum up."""
    net, (_, two, _) = line_of_three(6)
    alone = net.add(SETTINGS, archive=archive_of(easy_ledger()))
    kind = (("carrier", "plain"), ("direction", "out"), ("network", "clearnet"), ("slot", "full"))
    assert read(alone)["obscura_peers", kind] == 0
    metrics = Metrics(simulated(two), now=iter((0.0, METRICS_EVERY_S)).__next__)
    before = parsed(metrics.text())
    assert values(before, "obscura_peers") == 2
    for link in list(two.assembly.core.peers):
        two.disconnect(link)
    net.kernel.run(net.kernel.now + 0.5)
    assert two.peers == []
    after = parsed(metrics.text())
    assert values(after, "obscura_peers") == 0
    assert [key for key in before if key[0] == "obscura_peers" and key not in after] == []


def test_a_stranger_cannot_make_labels() -> None:
    tally: Tally = {}
    for name in (OTHER, Ping.NAME, b"myappmessage", b"another\0\0\0\0\0"):
        count(tally, name, 100)
    found = {labels["type"]: value for labels, value in by_type("in", tally, 0)}
    assert found == {"other": 1, "ping": 1, "application": 2}
    assert {"direction": "in", "type": "ping"} in [labels for labels, value in by_type("in", tally, 1) if value == 100]


def test_what_links_do_is_counted_also_after_they_ended() -> None:
    net, (first, second, _) = line_of_three(1)
    submit(first, chain_of(easy_ledger(), 1)[0])
    net.kernel.run(60.0)
    sent, received = read(first), read(second)
    for direction, found in (("out", sent), ("in", received)):
        assert found["obscura_messages_total", (("direction", direction), ("type", "verack"))] >= 1
        assert found["obscura_wire_bytes_total", (("direction", direction),)] > 1_000
    assert values(sent, "obscura_height") == values(received, "obscura_height") == 1
    assert values(received, "obscura_handshake_seconds_count") == 2
    assert values(received, "obscura_peers") == 2
    (link,) = first.assembly.core.peers
    first.disconnect(link)
    net.kernel.run(90.0)
    after = read(first)
    for name in ("obscura_messages_total", "obscura_message_bytes_total", "obscura_wire_bytes_total"):
        assert values(after, name) >= values(sent, name)
        for key, value in sent.items():
            if key[0] == name:
                assert after[key] >= value


# What a transaction of the stem may move: what whoever watches the wire sees too, and the machine's own figures.
ALLOWED = re.compile(r"obscura_wire_bytes_total|obscura_uptime_seconds|process_")


# The same for what `peers`, `status` and `privacy.show` say of links: cover, wire, time.
ALLOWED_OF_LINKS = re.compile(r"(wire|padding|dummy)_bytes_|dummies_|connected_s$|rotates_in_s$")


def links(node: SimNode) -> dict[tuple[int, str], object]:
    """What the RPC says of each link of a node."""
    rows = node.assembly.engine.describe(node.network.kernel.now)
    return {(row["peer"], name): value for row in rows for name, value in row.items()}


def test_a_stem_transaction_moves_nothing_but_the_bytes_of_the_wire() -> None:
    passed = 0
    for seed in range(1, 9):
        net, nodes = line_of_three(seed)
        before = [read(node) for node in nodes[:2]]
        rows = [links(node) for node in nodes[:2]]
        (link,) = nodes[0].assembly.core.peers
        nodes[0].send(link, StemTx(RAW))
        net.kernel.run(30.5)
        if len(relay_of(nodes[1]).transactions.mempool) or not len(relay_of(nodes[2]).transactions.mempool):
            continue  # the second one diffused it, or heard of its diffusion already
        passed += 1  # the second node passed it on in the stem, and the third one, who is the last, diffuses it
        for then, node in zip(before, nodes, strict=False):
            now = read(node)
            assert now.keys() == then.keys()
            moved = {key[0] for key, value in now.items() if value != then[key]}
            assert [name for name in moved if not ALLOWED.match(name)] == []
            moved = {name for name, value in links(node).items() if value != rows[nodes.index(node)][name]}
            assert [name for _, name in moved if not ALLOWED_OF_LINKS.match(name)] == []
        wire = ("obscura_wire_bytes_total", (("direction", "in"),))
        assert read(nodes[1])[wire] > before[1][wire]
    assert passed >= 2


def test_a_public_transaction_is_counted_so_that_the_silence_about_the_stem_means_something() -> None:
    net, (first, second, _) = line_of_three(1)
    before = read(second)
    (link,) = first.assembly.core.peers
    first.send(link, Tx(RAW))
    net.kernel.run(31.0)
    after = read(second)
    key = ("obscura_messages_total", (("direction", "in"), ("type", "tx")))
    assert after[key] == before.get(key, 0) + 1


def test_metrics_are_made_anew_only_now_and_then() -> None:
    clock = [0.0]
    _, (first, *_) = line_of_three(1)
    metrics = Metrics(simulated(first), lambda: clock[0])
    shown = metrics.text()
    metrics.count({"kind": "penalty", "points": 5})
    clock[0] = METRICS_EVERY_S - 0.1
    assert metrics.text() == shown
    clock[0] = METRICS_EVERY_S
    assert values(parsed(metrics.text()), "obscura_penalty_points_total") == 5


def test_the_page_about_them_names_all_and_no_others() -> None:
    _, (first, *_) = line_of_three(1)
    there = {re.sub(r"_(bucket|sum|count)$", "", name) for name, _ in read(first)}
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert set(re.findall(r"`((?:obscura|process)_[a-z_]+)`", page)) == there


def get(url: str, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(url, headers={name.replace("_", "-"): value for name, value in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_a_node_shows_them_on_loopback_and_they_name_nobody(tmp_path: Path) -> None:
    async def scene() -> None:
        open_ = {"metrics": "127.0.0.1:0", "rpc_http": "127.0.0.1:0", "listen": ("127.0.0.1:0",), "max_outbound": 0}
        mine = Config(network="dev", data_dir=tmp_path / "a", **open_)  # type: ignore[arg-type]
        other = Config(network="dev", data_dir=tmp_path / "b", listen=("127.0.0.1:0",), max_outbound=0)
        async with Node(mine) as node, fronts(node) as shown, Node(other) as peer:
            await peer.connect(node.addresses[0])
            node.broadcast(RAW, "direct")
            status, text = await asyncio.to_thread(get, shown["metrics"])
            assert status == 200
            found = parsed(text)
            assert values(found, "obscura_peers") == 1
            assert values(found, "obscura_mempool_transactions") == 1
            assert found["obscura_info", (("network", "dev"), ("privacy", "medium"), ("version", "1.0.0.dev0"))] == 1
            names = [key_text(address.key) for address in (*node.addresses, *peer.addresses) if address.key is not None]
            ids = [entry.transaction.id[::-1].hex() for entry in node.relay.transactions.mempool]
            for secret in (*names, *ids, "127.0.0.1", str(node.addresses[0].port), str(tmp_path)):
                assert secret not in text.decode()
            assert (await asyncio.to_thread(get, shown["metrics"], host="evil.example"))[0] == 421
            assert (await asyncio.to_thread(get, shown["metrics"], origin="http://evil.example"))[0] == 403
            assert (await asyncio.to_thread(get, shown["metrics"].replace("/metrics", "/rpc")))[0] == 404
            behind = shown["rpc_http"] + "/metrics"
            assert (await asyncio.to_thread(get, behind))[0] == 401
            cookie = node.data_dir.rpc_cookie.read_text()
            assert (await asyncio.to_thread(get, behind, authorization=f"Bearer {cookie}"))[0] == 200

    asyncio.run(scene())


def queries(panel: Any) -> list[str]:
    return [
        *[target["expr"] for target in panel.get("targets", ())],
        *[expr for inner in panel.get("panels", ()) for expr in queries(inner)],
    ]


def test_the_dashboard_asks_only_for_what_there_is() -> None:
    _, (first, *_) = line_of_three(1)
    there = {key[0] for key in read(first)}
    board = json.loads(DASHBOARD.read_text())
    asked = [expr for panel in board["panels"] for expr in queries(panel)]
    assert len(asked) >= 12
    used = {name for expr in asked for name in re.findall(r"\b(?:obscura|process)_[a-z_]+", expr)}
    assert used <= there
    labels = {label for key in read(first) for label, _ in key[1]} | {"instance", "le"}
    for expr in asked:
        grouped = [name.strip() for names in re.findall(r"by \(([^)]*)\)", expr) for name in names.split(",")]
        assert {*grouped, *re.findall(r"[{,]([a-z_]+)=", expr)} <= labels
