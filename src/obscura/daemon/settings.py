"""A node's configuration in the terms of the pure node."""

from __future__ import annotations

from obscura.daemon.config import Config
from obscura.daemon.datadir import DataDir
from obscura.daemon.discovery import read_sequences, seed_source
from obscura.daemon.neighbours import neighbour_settings
from obscura.handshake.features import Flags, named
from obscura.ledger.network import Network
from obscura.node.assembly import Settings
from obscura.wire.address import Address


def settings_of(config: Config, network: Network, folder: DataDir, extra: Flags) -> Settings:
    """``extra``: feature bits of experiments and of registered messages. Raises ``ConfigError``."""
    return Settings(
        network_id=network.id,
        is_dev=network.name == "dev",
        knobs=config.knobs,
        required=named((*config.required_features, *config.required_privacy_features), "required-features"),
        extra=extra,
        manual=tuple(Address.parse(text) for text in config.connect),
        max_inbound=config.max_inbound,
        admission=config.admission,
        **neighbour_settings(config, network),
        seeds=config.seeds,
        seed_source=seed_source(network),
        seed_sequences=read_sequences(folder),
    )
