"""A new reading of the configuration by a running node: what can change does, what cannot is said, and links stay."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from obscura.daemon import layers, logs
from obscura.daemon.config import Config, value_at
from obscura.daemon.layers import Loaded
from obscura.daemon.node import Node
from obscura.errors import ConfigError, UserError
from obscura.wire.address import Address

log = logging.getLogger(__name__)
Load = Callable[[], Loaded[Config]]


def _levels(node: Node, config: Config) -> None:
    logs.set_levels(config.log_level)


def _connect(node: Node, config: Config) -> None:
    node.assembly.neighbours.manual.keep([Address.parse(text) for text in config.connect], node.now())
    node.apply(())  # a turn, so that what is due is done


def _slots(node: Node, config: Config) -> None:
    node.assembly.neighbours.inbound.allow(config.max_inbound)


# Keys that a running node takes, and what puts them in force. Links that stand stay; fewer slots are reached by waiting.
LIVE: dict[str, Callable[[Node, Config], None]] = {"log-level": _levels, "connect": _connect, "max-inbound": _slots}

# How a dial leaves this machine, which needs a restart. Peers that are new beside such a key wait for it too: dialled at once,
# they would be told by the old way what the new one is there to hide.
WAYS = frozenset({"tor", "i2p", "only-net", "proxy"})


def reload_methods(node: Node, load: Load | None) -> dict[str, Callable[..., Any]]:
    """``config.reload``. ``load`` None: the program made the configuration itself."""

    def config_reload() -> dict[str, list[str]]:
        """Read the configuration again: `changed` is in force, `needs_restart` is not before the next start."""
        if load is None:
            raise UserError("this node was not started from a configuration file, so there is none to read again")
        return reload(node, load().value)

    return {"config.reload": config_reload}


def reload(node: Node, wanted: Config) -> dict[str, list[str]]:
    """Put in force what of ``wanted`` can be; the keys of what changed, and of what needs a restart."""
    old = node.config
    differing = [".".join(key) for key, _ in layers.leaves(Config) if value_at(old, key) != value_at(wanted, key)]
    waits = not WAYS.isdisjoint(differing) and not set(wanted.connect) <= set(old.connect)
    changed = [key for key in differing if key in LIVE and not (waits and key == "connect")]
    names = {key.replace("-", "_") for key in changed}
    node.config = msgspec.structs.replace(old, **{name: getattr(wanted, name) for name in names})
    for key in changed:
        LIVE[key](node, node.config)
    return {"changed": changed, "needs_restart": [key for key in differing if key not in changed]}


def reload_and_log(node: Node, load: Load) -> None:
    """The same for a signal: what came of it is in the log, and a broken file leaves everything as it was."""
    try:
        found = reload(node, load().value)
    except ConfigError as error:
        log.error("the configuration was read again and is not taken, everything stays as it was: %s", error)
        return
    log.warning("the configuration was read again; changed: %s", _listed(found["changed"]))
    if found["needs_restart"]:
        log.warning("needs a restart: %s", _listed(found["needs_restart"]))


def _listed(keys: Iterable[str]) -> str:
    return ", ".join(keys) or "nothing"
