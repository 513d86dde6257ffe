"""What a node can be told: one struct of all keys, and where its file, its data and its defaults are found.

Each module declares the section that it owns as a frozen ``msgspec.Struct`` with ``rename="kebab"`` beside
its code, with a default and ``msgspec.Meta(description=...)`` for every field, and gets one line here::

    mempool: Annotated[MempoolLimits, Meta(description="...")] = MempoolLimits()
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from obscura.daemon import layers
from obscura.daemon.covers import CoverSettings
from obscura.daemon.i2p_settings import I2pSettings
from obscura.daemon.logs import levels
from obscura.daemon.mapping import check_mapping
from obscura.daemon.ways import Plan, TorSettings, plan
from obscura.daemon.web import Loopback
from obscura.errors import AddressError, ConfigError
from obscura.handshake.features import experimental, named
from obscura.ledger.networks import BUILT_IN, load_network
from obscura.limits import LEAST_PRUNE_TARGET, MAX_INBOUND, OUTBOUND_FULL
from obscura.node.admission import AdmissionLimits
from obscura.node.resolvers import SeedSettings
from obscura.node.rotation import RotationSettings
from obscura.shaping.levels import CustomKnobs, Knobs, PrivacyLevel, knobs_of
from obscura.wire.address import Address

SYSTEM_FILE = Path("/etc/obscura/obscura.toml")

Texts = tuple[str, ...]


def _xdg(environ: Mapping[str, str], variable: str, below_home: str) -> Path:
    """A base directory of the XDG specification, which demands that a relative one is ignored."""
    given = Path(environ.get(variable, ""))
    if given.is_absolute():
        return given / "obscura"
    try:
        return Path(environ["HOME"] if environ.get("HOME") else Path.home()) / below_home / "obscura"
    except RuntimeError:
        raise ConfigError(f"there is no home directory: set HOME, {variable} or --data-dir and --config") from None


def default_data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """``$OBSCURA_DATA_DIR``, else ``$XDG_DATA_HOME/obscura``, else ``~/.local/share/obscura``."""
    given = environ.get("OBSCURA_DATA_DIR")
    return layers.expanded(given) if given else _xdg(environ, "XDG_DATA_HOME", ".local/share")


def user_file(environ: Mapping[str, str] = os.environ) -> Path:
    """``$XDG_CONFIG_HOME/obscura/obscura.toml``, else ``~/.config/obscura/obscura.toml``."""
    return _xdg(environ, "XDG_CONFIG_HOME", ".config") / "obscura.toml"


class Config(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """Everything a node can be told. Made directly in Python, or by ``load``. Raises ``ConfigError``.

    >>> Config(network="dev", data_dir=Path("/tmp/a")).privacy
    'medium'
    """

    network: Annotated[
        str, Meta(description="main, test, dev, bitcoin, or the path of a network file (ends in .toml)")
    ] = "main"
    data_dir: Annotated[
        Path,
        Meta(description="where blocks, keys and the control socket are kept, one directory per network"),
    ] = msgspec.field(default_factory=default_data_dir)
    privacy: Annotated[
        Literal["standard", "medium", "high", "custom"],
        Meta(
            description="how much cover traffic, delay and disguise to pay for; `obscura privacy show` says what it sets"
        ),
    ] = "medium"
    constant_slots: Annotated[
        bool, Meta(description='with privacy = "high": send at constant times instead of Poisson ones')
    ] = False
    tcp_profile: Annotated[
        Literal["host", "random", "linux", "windows", "macos"],
        Meta(description="whose socket parameters to show: the own system's, random ones, or another system's in part"),
    ] = "host"
    log_level: Annotated[
        str,
        Meta(
            description='how much is said on standard error: debug, info, warning or error, also by module, such as "info,'
            'daemon.tor=debug"'
        ),
    ] = "info"
    log_format: Annotated[Literal["text", "json"], Meta(description="lines of text, or a JSON object in each")] = "text"
    unsafe_logs: Annotated[
        bool, Meta(description="write addresses, keys and transactions into the log; for debugging only")
    ] = False
    capture: Annotated[
        Path | None,
        Meta(description="directory for a file of all that peers send, private transactions too; for `obscura replay`"),
    ] = None
    capture_mb: Annotated[
        int, Meta(ge=1, le=1_000_000, description="megabytes after which nothing more is captured")
    ] = 256
    rpc_http: Annotated[
        str | None,
        Meta(
            description='where the RPC is had over HTTP too, such as "127.0.0.1:8470"; loopback only, unset is nowhere'
        ),
    ] = None
    metrics: Annotated[
        str | None,
        Meta(
            description='where metrics are had as Prometheus reads them, such as "127.0.0.1:9470"; loopback only, unset '
            "is nowhere"
        ),
    ] = None
    dashboard: Annotated[
        bool, Meta(description="serve a page to watch the node with, at the address of rpc-http; `obscura dashboard`")
    ] = False
    listen: Annotated[
        Texts | None,
        Meta(
            description='where to accept links, such as "127.0.0.1:19733" or "127.0.0.1:0?carrier=plain"; '
            "[] accepts none; unset is the network's own port on 127.0.0.1"
        ),
    ] = None
    tor: Annotated[
        Literal["auto", "managed", "off"],
        Meta(description="auto uses a tor that runs on this machine, managed runs one of its own, off uses none"),
    ] = "off"
    i2p: Annotated[
        Literal["auto", "off"],
        Meta(description="auto uses the I2P router that runs on this machine, off uses none"),
    ] = "off"
    only_net: Annotated[
        Texts,
        Meta(description='the networks that may be used, such as ["tor"]: no byte leaves by another; [] = all of them'),
    ] = ()
    proxy: Annotated[
        str | None,
        Meta(description='what clearnet links and lookups go through: IP:PORT of a SOCKS5 proxy, or "tor"'),
    ] = None
    connect: Annotated[
        Texts,
        Meta(description="obscura:// addresses of peers to keep a link with, beside those that the node finds"),
    ] = ()
    required_features: Annotated[
        Texts, Meta(description="features without which a peer is refused, such as CompactBlocks")
    ] = ()
    required_privacy_features: Annotated[
        Texts, Meta(description="privacy features without which a peer is refused, such as DandelionPlusPlus")
    ] = ()
    experimental: Annotated[Texts, Meta(description="experimental features to switch on")] = ()
    unlisted: Annotated[
        bool, Meta(description="never announce the own address and answer only those who know the key")
    ] = False
    allow_unauthenticated: Annotated[
        bool, Meta(description="make full links to clearnet addresses whose key is not known")
    ] = False
    allow_plaintext: Annotated[
        bool,
        Meta(description="accept links without the secure channel; for experiments on a development network"),
    ] = False
    max_inbound: Annotated[
        int, Meta(ge=0, le=10_000, description="inbound links at once, shared out evenly over the networks that are on")
    ] = MAX_INBOUND
    max_outbound: Annotated[
        int,
        Meta(ge=0, le=64, description="full links that the node makes by itself; 0 makes none but those of connect"),
    ] = OUTBOUND_FULL
    external_address: Annotated[
        Texts,
        Meta(description="how others reach this node, such as 203.0.113.5:9733?carrier=tls; told to peers"),
    ] = ()
    port_mapping: Annotated[
        Literal["auto", "off"],
        Meta(description="auto has the router map the listening ports (PCP, NAT-PMP); it learns of them then"),
    ] = "off"
    gateway: Annotated[
        str | None,
        Meta(description="IPv4 address of the router that port-mapping asks; unset is that of the default route"),
    ] = None
    asmap: Annotated[
        Path | None,
        Meta(description="file in Bitcoin's asmap format: peers are then grouped by autonomous system, not by /16"),
    ] = None
    rate_factor: Annotated[
        float, Meta(gt=0, description="how much more than the usual a peer may send before it is slowed and cut")
    ] = 1.0
    prune: Annotated[
        str | None,
        Meta(description='how much of old blocks to keep, such as "2 GB"; unset keeps all'),
    ] = None
    privacy_custom: Annotated[CustomKnobs, Meta(description='what privacy = "custom" sets')] = CustomKnobs()
    admission: Annotated[
        AdmissionLimits, Meta(description="what strangers may cost before they have proved anything")
    ] = AdmissionLimits()
    cover: Annotated[CoverSettings, Meta(description="what strangers see on web carriers")] = CoverSettings()
    tor_daemon: Annotated[TorSettings, Meta(description="how tor is reached, and the onion service")] = TorSettings()
    i2p_router: Annotated[I2pSettings, Meta(description="how the I2P router is reached, and its tunnels")] = (
        I2pSettings()
    )
    rotation: Annotated[
        RotationSettings, Meta(description="moving links to new connections, so that no pattern lasts")
    ] = RotationSettings()
    seeds: Annotated[SeedSettings, Meta(description="how the first peers are found")] = SeedSettings()

    def __post_init__(self) -> None:
        layers.check(self)
        _ = self.knobs  # raises
        msgspec.structs.force_setattr(self, "data_dir", self.data_dir.expanduser().absolute())
        named(self.required_features, "required-features")
        named(self.required_privacy_features, "required-privacy-features")
        experimental(self.experimental)
        if self.prune is not None:
            parse_bytes(self.prune)
        _ = self.plan, self.router, self.fronts, levels(self.log_level)  # raises
        if 0 < self.max_inbound < len(self.plan.faces):  # no network lends its share to another
            raise ConfigError(
                f"max-inbound: {self.max_inbound} leaves no slot for any of the {len(self.plan.faces)} networks that are on; "
                "give as many or more, or 0 to accept no links"
            )
        for key, texts in (("connect", self.connect), ("external-address", self.external_address)):
            for text in texts:
                try:
                    Address.parse(text)
                except AddressError as error:
                    raise ConfigError(f"{key}: {error}") from None
        if self.network not in BUILT_IN and "." not in self.network and "/" not in self.network:
            raise ConfigError(
                f"network: there is none called {self.network!r}; {layers.nearest(self.network, BUILT_IN)} "
                "(one of your own is the path of its file, ending in .toml)"
            )

    @property
    def knobs(self) -> Knobs:
        """What the privacy level sets. Raises ``ConfigError``."""
        return knobs_of(PrivacyLevel(self.privacy), self.privacy_custom, constant_slots=self.constant_slots)

    @property
    def plan(self) -> Plan:
        """Which networks are used and how. Raises ``ConfigError``."""
        return plan(
            tor=self.tor,
            only_net=self.only_net,
            proxy=self.proxy,
            listen=self.listen or (),
            external_address=self.external_address,
            settings=self.tor_daemon,
            i2p=self.i2p,
            i2p_settings=self.i2p_router,
        )

    @property
    def router(self) -> IPv4Address | None:
        """The router that ``gateway`` names. Raises ``ConfigError`` where ``port-mapping`` contradicts other keys."""
        plan, network = self.plan, self.network
        return check_mapping(
            self.port_mapping, self.gateway, network=network, clearnet=plan.ways.clearnet, faces=plan.faces
        )

    @property
    def fronts(self) -> tuple[Loopback | None, Loopback | None]:
        """Where RPC over HTTP and metrics are had. Raises ``ConfigError``."""
        rpc = None if self.rpc_http is None else Loopback.parse(self.rpc_http, "rpc-http")
        metrics = None if self.metrics is None else Loopback.parse(self.metrics, "metrics")
        if self.dashboard and rpc is None:
            raise ConfigError('dashboard: it is served with the RPC over HTTP: set rpc-http = "127.0.0.1:8470" too')
        if rpc is not None and rpc == metrics and rpc.port:
            raise ConfigError(f"metrics: {metrics} is the address of rpc-http already; choose another port")
        return rpc, metrics

    @property
    def network_name(self) -> str:
        """The network's name: the key itself, or what the network's file says. Raises ``ConfigError``."""
        return load_network(self.network).name


_UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}


def parse_bytes(text: str) -> int:
    """Bytes of a text such as "2 GB", at least what the store must keep. Raises ``ConfigError``.

    >>> parse_bytes("2 GB")
    2000000000
    """
    found = re.fullmatch(r"([0-9]{1,12})(\.[0-9]{1,3})? *([a-z]*)", text.strip().lower())
    unit = _UNITS.get(found[3]) if found else None
    if found is None or unit is None:
        raise ConfigError(f'prune: {text!r} is not a size such as "2 GB" or "500 MB"')
    size = int(float(found[1] + (found[2] or "")) * unit)
    if size < LEAST_PRUNE_TARGET:
        raise ConfigError(
            f"prune: {text!r} is less than {LEAST_PRUNE_TARGET >> 20} MiB, which a node needs in any case"
        )
    return size


def find_file(explicit: Path | str | None, environ: Mapping[str, str] = os.environ) -> Path | None:
    """File to read: ``--config``, ``$OBSCURA_CONFIG``, the user's, the system's; None if none is there."""
    chosen = environ.get("OBSCURA_CONFIG") or None if explicit is None else explicit
    if chosen == "":
        raise ConfigError("flag --config: a path is expected, not an empty text")
    if chosen is not None:
        path = layers.expanded(chosen)
        if not _is_there(path):
            raise ConfigError(f"configuration file {path} does not exist; `obscura config init {path}` writes one")
        return path
    return next((path for path in (user_file(environ), SYSTEM_FILE) if _is_there(path)), None)


def _is_there(path: Path) -> bool:
    """Whether there is a file. Raises ``ConfigError`` where it may not even be looked for: to take none would be a guess."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        told = "run this as the user whose file it is, or name another one with --config"
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; {told}") from None
    return True


def load(
    file: Path | str | None = None,
    flags: Mapping[str, object] | None = None,
    assigned: Mapping[str, str] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> layers.Loaded[Config]:
    """The configuration of TOML < environment < flags (by dotted key), with the origin of every value.

    ``assigned`` are the texts of ``--set KEY=VALUE``, which win over flags that have a name of their own.

    Raises ``ConfigError``: one sentence that names the place, the key, the value and what is expected.
    """
    found = find_file(file, environ)
    settings = layers.from_toml(Config, found) if found else []
    settings += layers.from_environment(Config, environ)
    settings += layers.from_flags(flags or {})
    settings += layers.from_flags(assigned or {}, "flag --set ")
    if not any(setting.key == ("data-dir",) for setting in settings):
        data_dir = layers.Setting(("data-dir",), default_data_dir(environ), layers.DEFAULT)
        settings.insert(0, data_dir)
    return layers.merge(Config, settings)


def template() -> str:
    """A configuration file that says nothing yet: every key, its meaning and its default, commented out."""
    lines = ["# Obscura. Uncomment what you change. Flags, and OBSCURA_<KEY> in the environment, win."]
    section: layers.Key = ()
    defaults = Config(data_dir=default_data_dir())
    for key, field in layers.leaves(Config):
        if key[:-1] != section:
            section = key[:-1]
            lines += ["", f"[{'.'.join(section)}]"]
        value = value_at(defaults, key)
        lines += ["", f"# {layers.description(field)}", f"# ({layers.expected(field.type)})"]
        lines.append(f"# {key[-1]} =" if value is None else f"# {key[-1]} = {layers.to_toml(value)}")
    return "\n".join(lines) + "\n"


def value_at(config: msgspec.Struct, key: layers.Key) -> object:
    """The value of a dotted key of kebab-case names."""
    value: object = config
    for name in key:
        value = getattr(value, name.replace("-", "_"))
    return value
