"""One run of a scenario: the shipped parts under a virtual clock, spies among them, and what those make of it."""

from __future__ import annotations

import random
from functools import partial
from math import log

from obscura.limits import STEM_EPOCH_S
from obscura.node.broadcast import Policy
from obscura.node.dandelion import Dandelion
from obscura.node.stem import Coin, Routing, StemTerms
from obscura.node.submission import OwnTransactions
from obscura.sim.adversary import matched, ward_precision
from obscura.sim.graphs import GRAPHS, Edges, supernode
from obscura.sim.kernel import Kernel
from obscura.sim.ledger import TokenLedger
from obscura.sim.messages import MessageNetwork, MessageNode
from obscura.sim.relay import Announcements, ObservedPool
from obscura.sim.scenario import Outcome, Scenario
from obscura.wire.message import Message
from obscura.wire.messages.blocks import Inv
from obscura.wire.messages.transactions import StemTx, Tx

TRANSACTION_BYTES = 250
SUBMIT_S = 2.0  # all transactions are submitted within this time
PROBE_S = 60.0  # how long a coin prober waits for its probes
UNIX_AT_START = 1_800_000_000
CHURN_PAUSE_S = 5.0


class Run:
    """Everything of one run. It is a ``Witness`` of its own network."""

    def __init__(self, scenario: Scenario, number: int, placed: tuple[Edges, set[int]] | None = None) -> None:
        """``placed``: edges and spies that are given and not drawn."""
        self.scenario = scenario
        self.rng = random.Random(f"obscura run {scenario.seed} {number}")
        self.kernel = Kernel(hash_free(scenario.seed, number))
        self.spies = placed[1] if placed else set(self.rng.sample(range(scenario.nodes), scenario.spy_count))
        self._edges = placed[0] if placed else None
        self.network = MessageNetwork(self.kernel, self._latency, scenario.bytes_per_s, self)
        self.origins: dict[bytes, int] = {}
        self.exits: dict[bytes, int] = {}  # whom the spies blame
        self.by_stem: set[bytes] = set()  # seen by a spy in the stem phase
        self.publishers: dict[bytes, int] = {}  # who diffused it first
        self.swallowed: set[bytes] = set()
        self.hops: dict[bytes, int] = {}
        self.before: dict[bytes, int] = {}  # who gave it last to a node in the stem phase
        self.followed: dict[bytes, set[int]] = {}  # honest nodes that have it
        self.latencies: list[float] = []
        self.submitted_at: dict[bytes, float] = {}
        self.probes: dict[bytes, int] = {}  # probe -> probed node
        self.coins: dict[int, bool] = {}  # read by probing: True = diffuses
        self.settled: set[bytes] = set()
        self._open = 0
        self._own: list[OwnTransactions] = []
        self._dandelions: list[Dandelion] = []
        self._build(number)

    # --- The network ----------------------------------------------------------------------------------------------------

    def _latency(self, a: int, b: int) -> float:
        scenario = self.scenario
        median_s = scenario.latency_ms / 1000  # 0 for the least numbers above 0 too
        return self.rng.lognormvariate(log(median_s), scenario.latency_spread) if median_s else 0.0

    def _build(self, number: int) -> None:
        scenario = self.scenario
        graph = GRAPHS[scenario.graph]
        routing = Routing(scenario.routing)
        terms = StemTerms(
            q=scenario.fluff,
            routing=routing,
            coin=Coin(scenario.coin),
            restems=scenario.restem,
            successors=graph.successors,
        )
        ledger = TokenLedger()
        for node in range(scenario.nodes):
            rng = random.Random(f"obscura node {scenario.seed} {number} {node}")
            announcements = Announcements(ledger, rng, self._unix)
            pool = ObservedPool(announcements.relay, ledger, node, self.published)
            dandelion = Dandelion(rng, pool, terms)
            own = OwnTransactions(dandelion, pool, 0.0)
            self._dandelions.append(dandelion)
            self._own.append(own)
            self.network.add([announcements, dandelion, own])
        edges = self._edges or graph.draw(scenario.nodes, self.rng)
        if scenario.adversary in ("supernode", "coin-prober"):
            edges = supernode(edges, self.spies, scenario.nodes)
        nodes = self.network.nodes
        for dialler, listener in edges:
            self.network.connect(nodes[dialler], nodes[listener])
        if scenario.churn / 3600:
            for churned in nodes:
                self._plan_churn(churned)

    def _unix(self) -> int:
        return UNIX_AT_START + int(self.kernel.now)

    def _plan_churn(self, node: MessageNode) -> None:
        when = self.kernel.now + self.rng.expovariate(self.scenario.churn / 3600)
        self.kernel.at(when, partial(self._churn, node))

    def _churn(self, node: MessageNode) -> None:
        """An outbound link is lost, and another node is dialled a little later."""
        outbound = [peer.link for peer in node.core.peers.values() if not peer.is_inbound]
        if outbound:
            self.network.disconnect(node, self.rng.choice(outbound))
            others = [other for other in self.network.nodes if other is not node]
            other = self.rng.choice(others)
            self.kernel.at(self.kernel.now + CHURN_PAUSE_S, partial(self.network.connect, node, other))
        self._plan_churn(node)

    # --- What is submitted ------------------------------------------------------------------------------------------------

    def play(self) -> Outcome:
        """The whole run."""
        if self.scenario.adversary == "coin-prober":
            self._probe()
        honest = [node for node in range(self.scenario.nodes) if node not in self.spies]
        order = list(honest)
        self.rng.shuffle(order)
        start = self.kernel.now
        if self.scenario.transactions:
            order = order[: self.scenario.transactions]
        # Without spies these two still blame whoever diffuses it; the others blame nobody, which would be waited for.
        is_told = self.scenario.adversary in ("first-spy-told", "black-hole")
        self._open = len(order) if self.spies or is_told else 0
        for index, node in enumerate(order):
            id = self.rng.randbytes(32)
            self.origins[id] = node
            self.hops[id] = 0
            if index < self.scenario.followed:
                self.followed[id] = set()
                self._open += 1
            self.kernel.at(start + self.rng.random() * SUBMIT_S, partial(self._submit, node, id))
        self.kernel.run(until=start + 100 * STEM_EPOCH_S)
        return self._outcome()

    def _submit(self, node: int, id: bytes) -> None:
        now = self.kernel.now
        self.submitted_at[id] = now
        own = self._own[node]
        policy = Policy.DIRECT if self.scenario.routing == Routing.DIFFUSION.value else Policy.PRIVATE
        _, effects = own.submit(id + bytes(TRANSACTION_BYTES - len(id)), policy, None, now)
        self.network.nodes[node].perform(effects)
        if policy is Policy.DIRECT:
            self.published(node, id, now)
        self._reached(id, node, public=policy is Policy.DIRECT)

    def _probe(self) -> None:
        """Every honest node gets a transaction of a spy that dialled it."""
        for spy in sorted(self.spies):
            node = self.network.nodes[spy]
            for link, far in node.neighbours().items():
                if far not in self.spies and far not in self.probes.values():
                    probe = self.rng.randbytes(32)
                    self.probes[probe] = far
                    node.send(link, StemTx(probe + bytes(TRANSACTION_BYTES - 32)))
        self.kernel.run(until=self.kernel.now + PROBE_S)
        self.settled.update(self.probes)

    # --- What is seen -------------------------------------------------------------------------------------------------------

    def delivered(self, sender: int, receiver: int, message: Message, now: float) -> Message | None:
        """Every message passes here before it arrives."""
        kind = type(message)
        if kind is Inv:
            return self._inv(sender, receiver, message)  # type: ignore[arg-type]
        if kind is StemTx:
            return self._stem(sender, receiver, message)  # type: ignore[arg-type]
        if kind is Tx:
            id = message.raw[:32]  # type: ignore[attr-defined]
            if id in self.settled:
                return None
            if receiver in self.spies:
                self._seen(id, sender)
            self._reached(id, receiver, public=True)
        return message

    def _inv(self, sender: int, receiver: int, message: Inv) -> Message | None:
        settled = self.settled
        if settled:
            left = tuple(item for item in message.items if item.hash not in settled)
            if not left:
                return None
            if len(left) < len(message.items):
                message = Inv(left)
        if receiver in self.spies and sender not in self.spies:
            for item in message.items:
                self._seen(item.hash, sender)
        return message

    def _stem(self, sender: int, receiver: int, message: StemTx) -> Message | None:
        id = message.raw[:32]
        if id in self.settled:
            return None
        if id in self.hops and id not in self.exits and id not in self.publishers:
            self.hops[id] += 1
        self.before[id] = sender
        if receiver in self.spies and sender not in self.spies:
            self.by_stem.add(id)
            if self.scenario.adversary == "black-hole":
                self.swallowed.add(id)
                return None
            self._seen(id, sender)
        return message

    def _seen(self, id: bytes, sender: int) -> None:
        """A spy got it from an honest node."""
        if id in self.origins and id not in self.exits and self.scenario.adversary != "black-hole":
            self._blame(id, sender)

    def published(self, node: int, id: bytes, now: float) -> None:
        """A node begins to diffuse it."""
        if id in self.probes:  # read without error, as many probes of one node would
            self.coins.setdefault(self.probes[id], node == self.probes[id])
            self.settled.add(id)
            return
        if id not in self.origins:
            return
        self._reached(id, node, public=True)
        if id in self.publishers or id in self.exits:
            self.publishers.setdefault(id, node)
            return
        self.publishers[id] = node
        if self.scenario.adversary == "black-hole":
            self._blame(id, node)
        elif self.scenario.adversary == "first-spy-told" and id in self.before:
            self._blame(id, self.before[id])

    def _blame(self, id: bytes, node: int) -> None:
        self.exits[id] = node
        if id not in self.followed:
            self.settled.add(id)
        self._close()

    def _close(self) -> None:
        self._open -= 1
        self.kernel.is_halted = not self._open

    def _reached(self, id: bytes, node: int, *, public: bool) -> None:
        reached = self.followed.get(id)
        if reached is None or not public or node in self.spies or node in reached:
            return
        reached.add(node)
        honest = self.scenario.nodes - len(self.spies)
        if len(reached) == (honest + 1) // 2:
            self.latencies.append(self.kernel.now - self.submitted_at[id])
        if len(reached) == honest:
            del self.followed[id]
            if id in self.exits:
                self.settled.add(id)
            self._close()

    # --- What follows from it ---------------------------------------------------------------------------------------------------

    def _outcome(self) -> Outcome:
        origins, count = self.origins, len(self.origins)
        blamed = self.exits
        if self.scenario.adversary == "max-weight":
            successors = {
                node: [links[link] for link in self._dandelions[node].successors()]
                for node in origins.values()
                for links in [self.network.nodes[node].neighbours()]
            }
            blamed = matched(origins, self.exits, successors, self.spies, self.rng)
        precision, recall = ward_precision(origins, blamed)
        exposed = {id for id, node in origins.items() if self.publishers.get(id) == node}
        claims = [id for id in self.by_stem & set(origins) if self.coins.get(self.exits.get(id, -1), False)]
        return Outcome(
            precision=precision,
            recall=recall,
            hops=sum(self.hops.values()) / count,
            latencies_s=tuple(self.latencies),
            messages=self.network.messages,
            events=self.kernel.events,
            trace=self.kernel.trace_hash,
            origin_exposed=len(exposed) / count,
            swallowed=len(self.swallowed & set(origins)) / count,
            swallowed_exposed=len(self.swallowed & exposed) / count,
            claimed=len(claims) / count,
            claimed_right=sum(self.exits[id] == origins[id] for id in claims) / count,
            unseen=sum(id not in self.exits for id in origins) / count,
        )


def hash_free(seed: int, number: int) -> int:
    """One number of two, without chance and without collisions that matter."""
    return seed * 1_000_003 + number


def run_once(scenario: Scenario, number: int) -> Outcome:
    """Run ``number`` of the scenario; equal arguments give equal outcomes on any machine."""
    return Run(scenario, number).play()
