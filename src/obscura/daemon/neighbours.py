"""What the daemon's configuration says about other nodes, in the terms of the pure node."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from obscura.daemon.config import Config
from obscura.errors import ConfigError
from obscura.ledger.bitcoin import BitcoinLedger
from obscura.ledger.network import Network
from obscura.ledger.port import Ledger
from obscura.limits import OUTBOUND_BLOCKS
from obscura.node.asmap import Asmap, AsmapError
from obscura.node.assembly import Neighbours
from obscura.node.face import Face
from obscura.node.slots import OutboundLimits
from obscura.wire.address import Address


def neighbour_settings(config: Config, network: Network) -> dict[str, Any]:
    """The fields of ``Settings`` that come from the keys about peers. Raises ``ConfigError``."""
    plan = config.plan
    return {
        "faces": plan.faces,
        "ways": plan.ways,
        "are_lookups_proxied": plan.hides_lookups,
        "asmap": _asmap(config.asmap),
        "outbound": OutboundLimits(config.max_outbound, OUTBOUND_BLOCKS if config.max_outbound else 0),
        "allow_unauthenticated": config.allow_unauthenticated,
        "rate_factor": config.rate_factor,
        "rotation": config.rotation,
        "spacing_s": _spacing(network.ledger),
    }


def introduce(near: Neighbours, config: Config, network: Network, listening: Sequence[Address], now: float) -> None:
    """Tell the parts where this node is, as far as that is known, and the network's first peers."""
    external = [_with_key(Address.parse(text), listening) for text in config.external_address]
    near.own.set_listening(listening, is_listed=not config.unlisted, external=external)
    near.book.add_seeds([Address.parse(text) for text in network.seeds], True, Face.CLEARNET, now, is_built_in=True)


def _with_key(place: Address, listening: Sequence[Address]) -> Address:
    """The external address with the key of what listens for it: carrier and port say which; of two, the host or its family."""
    alike = [own for own in listening if (own.carrier, own.port) == (place.carrier, place.port)]
    alike.sort(key=lambda own: (own.host != place.host, own.is_loopback, (":" in own.host) != (":" in place.host)))
    return msgspec.structs.replace(place, key=place.key or (alike[0].key if alike else None))


def _spacing(ledger: Ledger) -> float:
    """Seconds between blocks; 0 where they come on request (no retarget) or the ledger is another one."""
    return ledger.rules.spacing_s if isinstance(ledger, BitcoinLedger) and ledger.rules.retarget_blocks else 0.0


def _asmap(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        raw = path.expanduser().read_bytes()
        Asmap(raw)
    except OSError as error:
        raise ConfigError(f"asmap = {path}: {error.strerror}") from None
    except AsmapError as error:
        raise ConfigError(f"asmap = {path}: {error}") from None
    return raw
