"""Two nodes, one link, and what somebody on the wire sees of it."""

from __future__ import annotations

from collections import Counter
from math import log2

from demo.stage import Stage
from demo.tap import Tap
from obscura.wire.address import Address
from obscura.wire.catalogue import CATALOGUE

PINGS = 25


def play(stage: Stage) -> None:
    """Start, join through a tap, negotiate, talk, look at the bytes."""
    stage.say("[bold]A link between two nodes[/bold]")
    alice = stage.start("alice", "--listen", "127.0.0.1:0")
    bob = stage.start("bob", "--no-listen")
    address = Address.parse(alice.addresses[0])
    tap = Tap(address.port)
    through_tap = Address(address.key, address.host, tap.port)
    stage.say(f"  alice listens at {address}")
    link = bob.call("connect", address=str(through_tap))
    seen = stage.wait("alice sees the link", lambda: alice.call("peers"))[0]
    stage.expect(link["session_id"] == seen["session_id"], f"both ends show the session id {link['session_id'][:32]}…")
    stage.expect(link["key_proved"], f"alice proved her key ({link['pattern']}); bob stays anonymous")
    stage.say(f"    negotiated: {', '.join(link['features'])}")
    trips = [bob.call("ping", peer=link["peer"])["rtt_ms"] for _ in range(PINGS)]
    stage.expect(len(trips) == PINGS, f"{PINGS} pings answered, median {sorted(trips)[PINGS // 2]:.2f} ms")
    _look(stage, tap, seen["user_agent"])
    sent = bob.call("peers")[0]
    cost = sent["wire_bytes_sent"] / max(1, sent["real_bytes_sent"])
    stage.figure(
        "link", f"{len(tap.up) + len(tap.down):,} bytes on the wire, {cost:.1f} x the frames (padding to cells)"
    )
    paid = {name: sent[f"{name}_bytes_sent"] for name in ("real", "padding", "dummy", "wire")}
    stage.figure(
        "cover of that link",
        f"of {paid['wire']:,} bytes sent {paid['real']:,} were frames, {paid['padding']:,} padding, {paid['dummy']:,} dummies",
    )
    stage.expect(stage.end(bob) == 0, "bob ended cleanly")
    stage.wait("alice sees the end", lambda: not alice.call("peers"))
    stage.expect(stage.end(alice) == 0, "alice ended cleanly")
    tap.close()


def _look(stage: Stage, tap: Tap, user_agent: str) -> None:
    up, down = bytes(tap.up), bytes(tap.down)
    stage.say(f"    the tap's first bytes:  → {up[:24].hex(' ')}")
    stage.say(f"                            ← {down[:24].hex(' ')}")
    # Padded names stand in every frame; short bare ones (tx, inv) would turn up by chance.
    words = [kind.NAME for kind in CATALOGUE] + [kind.TYPE.encode() for kind in CATALOGUE if len(kind.TYPE) > 5]
    found = [word for word in (*words, user_agent.encode()) if word in up + down]
    stage.expect(not found, f"no frame type and no user agent in {len(up) + len(down):,} tapped bytes")
    stage.say(f"    entropy of the bytes: {_entropy(up + down):.3f} bit per byte (of 8)")


def _entropy(data: bytes) -> float:
    counts = Counter(data)
    return -sum(n / len(data) * log2(n / len(data)) for n in counts.values())
