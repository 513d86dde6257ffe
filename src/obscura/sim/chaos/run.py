"""One seed: a network, its faults, the time after them, and what was broken."""

from __future__ import annotations

import random
import traceback
from collections import Counter
from pathlib import Path

import msgspec

from obscura.ledger.bitcoin import BitcoinLedger, Rules
from obscura.ledger.mining import filler_transaction
from obscura.ledger.network import own_genesis
from obscura.node.assembly import Settings
from obscura.node.broadcast import Policy
from obscura.node.effects import LinkId
from obscura.node.face import Face
from obscura.node.rotation import RotationSettings
from obscura.shaping.levels import LEVELS, PrivacyLevel
from obscura.sim.chaos.disk import FailingArchive
from obscura.sim.chaos.hostile import Hostile
from obscura.sim.chaos.mining import left_branch, mine, overtake, relay_of
from obscura.sim.chaos.plan import FAULTS_S, Fault, Plan, plan_of
from obscura.sim.chaos.rules import Broken
from obscura.sim.chaos.rules import Rules as Watch
from obscura.sim.kernel import Kernel
from obscura.sim.network import UNIX_AT_START, SimNetwork, SimNode

_BITS = 0x207FFFFF  # two hashes per block
_GENESIS = own_genesis("chaos", UNIX_AT_START - 10_000, _BITS, 0)
MOST_RACE_S = 0.3  # by which one write may be later than another, where links move
MOST_BACK = 12  # heights by which a branch that somebody goes on with may be behind
LOOK_S = 60.0  # between two looks for what is owed after the faults
LONGEST_S = 4 * 3_600.0  # after the faults: embargoes are exponential, and re-stems double them
RAISED = "something raised"  # before what did, in a verdict
_LAST_BLOCKS = (120.0, 300.0)  # seconds after the faults: two more, so that no two chains are equally long


class Verdict(msgspec.Struct, frozen=True):
    """What one seed showed."""

    seed: int
    broken: str | None  # the rule that did not hold
    at: float  # virtual seconds
    recovered_s: float  # after the faults, until nothing was owed
    events: int
    blocks: int
    transactions: int
    hostile_discouraged: int
    moves: int  # of links, to another connection
    trace: str
    plan: str


def run(seed: int) -> Verdict:
    """Let one seed happen. Never raises for what the network does wrong: the verdict says it."""
    return Chaos(plan_of(seed)).verdict()


class Chaos:
    """One network and its plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.kernel = Kernel(plan.seed)
        self.rng = random.Random(f"obscura chaos acts {plan.seed}")
        self.network = SimNetwork(self.kernel, lambda a, b: 0.01 + 0.002 * ((7 * min(a, b) + 5 * max(a, b)) % 40))
        self.rules = Watch(plan.honest)
        self.ledger = BitcoinLedger(Rules(_BITS, 60, 0), _GENESIS)
        self._sides: Counter[tuple[int, ...]] = Counter()  # node numbers cut off from the others
        self._slow: dict[int, float] = {}
        self._racing = random.Random(f"obscura chaos races {plan.seed}")
        self._flips = 0.0
        self._healed_at = 0.0
        self._liars: list[SimNode] = []
        self.blocks = 0

    # --- The network --------------------------------------------------------------------------------------------------

    def _settings(self, number: int) -> Settings:
        return Settings(
            network_id=bytes(32),
            is_dev=True,
            knobs=LEVELS[PrivacyLevel(self.plan.level)],
            spacing_s=60.0,
            rotation=RotationSettings(min_hours=self.plan.rotation_h[0], max_hours=self.plan.rotation_h[1]),
        )

    def _build(self) -> None:
        net = self.network
        for number in range(self.plan.nodes):
            archive = FailingArchive(self.ledger, write_s=self.plan.write_s)
            hostile = self._hostile(number)
            node = net.add(self._settings(number), archive=archive, parts=() if hostile is None else (hostile,))
            self._begin(node, hostile)
        net.after_turn = self.rules.after_turn
        net.weather = self._weather
        net.tamper = self._tamper

    def _hostile(self, number: int) -> Hostile | None:
        if number < self.plan.honest:
            return None
        return Hostile(self.ledger, random.Random(f"obscura hostile {self.plan.seed} {number}"))

    def _begin(self, node: SimNode, hostile: Hostile | None) -> None:
        node.assembly.neighbours.own.set_listening([node.address])
        seeds = [other.address for other in self.network.nodes[:3]]
        node.assembly.book.add_seeds(seeds, True, Face.CLEARNET, self.kernel.now)
        self.rules.watch_publishing(node)
        if hostile is not None:
            if not hostile.is_quiet:
                self._liars.append(node)
            hostile.joins(node)
        else:
            self.rules.started(node)
            node.turn()

    # --- What goes wrong ----------------------------------------------------------------------------------------------

    def _weather(self, one: int, other: int) -> float:
        late = self._slow.get(one, 0.0) + self._slow.get(other, 0.0)
        if any((one in side) != (other in side) for side in self._sides):
            late += max(0.0, self._healed_at - self.kernel.now) + 1.0
        if self.plan.moves:  # of two connections of a session either may be the faster one
            late += MOST_RACE_S * self._racing.random()
        return late

    def _tamper(self, sender: int, receiver: int, link: LinkId, data: bytes) -> bytes:
        if self.rng.random() >= self._flips:
            return data
        at = self.rng.randrange(8 * len(data))
        return data[: at // 8] + bytes([data[at // 8] ^ 1 << at % 8]) + data[at // 8 + 1 :]

    def _happen(self, fault: Fault) -> None:
        node, over = self.network.nodes[fault.node], self.kernel.now + fault.for_s
        match fault.kind:
            case "block" | "blocks":
                self._mine(node, int(fault.amount))
            case "transaction":
                self._submit(node, Policy.PRIVATE)
            case "fork":
                self._fork(node, fault.amount, over)
            case "back":
                self._go_back(node)
            case "crash":
                self._crash(fault.node, fault.for_s)
            case "disk":
                self._fail_disk(node, fault)
            case "partition":
                self._part(fault.amount, over)
            case "delay":
                self._slow[fault.node] = fault.amount
                self.kernel.at(over, lambda: self._slow.update({fault.node: 0.0}))
            case "flips":
                self._flips = fault.amount
                self.kernel.at(over, self._stop_flips)
            case "clock":
                node.clock_error_s = fault.amount
                self.kernel.at(over, lambda: self._mend_clock(fault.node))
            case "clocks":
                self._set_apart(node, fault.amount, over)
            case "cut":
                self._cut(fault.node)
            case "move":
                self._move(node, fault.amount)

    def _cut(self, number: int) -> None:
        node = self.network.nodes[number]
        links = sorted(node.neighbours)
        if links:
            node.cut(self.rng.choice(links))

    def _move(self, node: SimNode, cut_after_s: float) -> None:
        """All links of a node begin to move, messages come while they do, and perhaps a connection breaks."""
        if not node.is_running:
            return
        for link in sorted(node.assembly.core.peers):
            node.apply(node.assembly.rotation.ask(link))
        for _ in range(4):  # a move takes some round trips
            when = self.kernel.now + self._racing.random()
            self.kernel.at(when, lambda: self._submit(self.network.nodes[node.number], Policy.DIRECT))
        self.kernel.at(self.kernel.now + self._racing.random(), lambda: self._mine(self.network.nodes[node.number], 1))
        if cut_after_s:
            self.kernel.at(self.kernel.now + cut_after_s, lambda: self._cut(node.number))

    def _mine(self, node: SimNode, count: int) -> None:
        for _ in range(count):
            if node.is_running:
                self.blocks += mine(node, self.rng)

    def _submit(self, node: SimNode, policy: Policy) -> None:
        own = node.assembly.own_transactions
        if not node.is_running or own is None:
            return
        raw = filler_transaction(self.rng, self.rng.randint(250, 2_000))
        id, effects = own.submit(raw, policy, None, self.kernel.now)
        self.rules.submitted(node, id, raw, policy is Policy.PRIVATE)
        node.apply(effects)

    def _crash(self, number: int, down_s: float) -> None:
        node = self.network.nodes[number]
        if node.is_running:
            node.crash()
            self.kernel.at(self.kernel.now + down_s, lambda: self._restart(number))

    def _restart(self, number: int) -> None:
        crashed = self.network.nodes[number]
        if isinstance(crashed.archive, FailingArchive):
            crashed.archive.mend()
        node = self.network.restart(crashed, self._settings(number))
        node.clock_error_s = crashed.clock_error_s
        self._begin(node, None)

    def _fail_disk(self, node: SimNode, fault: Fault) -> None:
        archive = node.archive
        assert isinstance(archive, FailingArchive)
        archive.fail_after = int(fault.amount)
        archive.on_failure = lambda: self._crash(fault.node, fault.for_s)

    def _part(self, share: float, over: float) -> None:
        numbers = list(range(self.plan.nodes))
        self._cut_off(self.rng.sample(numbers, max(1, int(share * len(numbers)))), over)

    def _cut_off(self, numbers: list[int], over: float) -> None:
        side = tuple(sorted(numbers))
        self._sides[side] += 1
        self._healed_at = max(self._healed_at, over)
        self.kernel.at(over, lambda: self._heal(side))

    def _heal(self, side: tuple[int, ...]) -> None:
        self._sides[side] -= 1
        self._sides += Counter()

    def _other(self, node: SimNode) -> SimNode:
        """An honest node that is another one."""
        numbers = [number for number in range(self.plan.honest) if number != node.number]
        return self.network.nodes[self.rng.choice(numbers)]

    def _fork(self, loser: SimNode, share: float, over: float) -> None:
        """A part of the network mines an own transaction that nobody else hears of; then the others have more work."""
        winner = self._other(loser).number
        others = [number for number in range(self.plan.nodes) if number not in (winner, loser.number)]
        self._cut_off([loser.number, *self.rng.sample(others, int(share * len(others)))], over)
        self._submit(loser, Policy.DIRECT)
        self._mine(loser, 1)
        self.kernel.at(over, lambda: self._outdo(self.network.nodes[winner], loser.number))

    def _outdo(self, winner: SimNode, loser: int) -> None:
        """More work than the loser has, on a chain that is not the loser's; both sides still know nothing of each other."""
        chain, work = relay_of(winner).chain, relay_of(self.network.nodes[loser]).chain
        if winner.is_running and work.tip not in chain:
            self.blocks += overtake(winner, chain.tip, work.work(work.tip), self.rng)

    def _go_back(self, node: SimNode) -> None:
        """Somebody goes on with a branch that the node has left: it must come back to it."""
        branch, chain = left_branch(node), relay_of(node).chain
        if node.is_running and branch is not None and chain.tip_height - chain.height(branch) < MOST_BACK:
            self.blocks += overtake(node, branch, chain.work(chain.tip), self.rng)

    def _set_apart(self, ahead: SimNode, amount: float, over: float) -> None:
        """One clock is ahead and another behind: to one of them the other's block comes from too far in the future."""
        behind = self._other(ahead)
        for node, error_s in ((ahead, amount), (behind, -amount)):
            node.clock_error_s = error_s
            self.kernel.at(over, lambda number=node.number: self._mend_clock(number))  # type: ignore[misc]
        self._mine(ahead, 1)

    def _stop_flips(self) -> None:
        self._flips = 0.0

    def _mend_clock(self, number: int) -> None:
        self.network.nodes[number].clock_error_s = 0.0

    # --- The whole of it ----------------------------------------------------------------------------------------------

    def verdict(self) -> Verdict:
        """Build, break, mend, look."""
        broken, recovered_s = None, 0.0
        try:
            recovered_s = self._happens()
        except Broken as fault:
            broken = str(fault)
        except Exception as fault:  # a node that raises has broken the first rule of all
            where = traceback.extract_tb(fault.__traceback__)[-1]
            broken = f"{RAISED} {type(fault).__name__} at {Path(where.filename).name}:{where.lineno}: {fault}"
        return Verdict(
            self.plan.seed,
            broken,
            round(self.kernel.now, 3),
            recovered_s,
            self.kernel.events,
            self.blocks,
            len(self.rules.own),
            self.rules.discouraged_hostile,
            self.rules.moves,
            self.kernel.trace_hash,
            self.plan.describe(),
        )

    def _happens(self) -> float:
        self._build()
        for fault in self.plan.faults:
            self.kernel.at(fault.at, lambda fault=fault: self._happen(fault))  # type: ignore[misc]
        self.kernel.run(until=FAULTS_S + 100.0)  # the longest restart after a failing disk
        self._end_faults()
        return self._settle()

    def _end_faults(self) -> None:
        self._slow.clear()
        self._sides.clear()
        self._flips = 0.0
        for node in self.network.nodes[: self.plan.honest]:
            node.clock_error_s = 0.0
            if isinstance(node.archive, FailingArchive):
                node.archive.mend()

    def _settle(self) -> float:
        began = self.kernel.now
        for wait in _LAST_BLOCKS:
            self.kernel.at(began + wait, lambda: self._mine(self.network.nodes[0], 1))
        self.kernel.run(until=began + _LAST_BLOCKS[-1] - 1.0)
        self.rules.nobody_is_alone(self.network.nodes)
        self.rules.liars_are_known(self._liars)
        self.kernel.run(until=began + _LAST_BLOCKS[-1] + 1.0)
        while True:
            owed = self.rules.unfinished(self.network.nodes[: self.plan.honest])
            if owed is None:
                return round(self.kernel.now - began, 1)
            if self.kernel.now - began > LONGEST_S:
                raise Broken(f"{LONGEST_S / 3_600:g} h after the faults: {owed}")
            self.kernel.run(until=self.kernel.now + LOOK_S)
