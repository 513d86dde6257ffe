"""Networks of one's own: a TOML file, read strictly, and the making of one (``obscura network init``)."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import msgspec

from obscura.errors import AddressError, ConfigError
from obscura.ledger.bitcoin import BitcoinLedger, Rules
from obscura.ledger.network import Network, display_id, own_genesis
from obscura.ledger.work import target_of
from obscura.limits import RETARGET_FACTOR, SEED_NAMES
from obscura.wire.address import Address, is_dns_name, key_text, parse_key

_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
_MESSAGE = re.compile(r"[ !#-\[\]-~]{1,75}")  # printable ASCII but quote and backslash: it goes into TOML as it is
BUILT_IN_NAMES = ("dev", "test", "main", "bitcoin")  # a file that took one of them would hide it


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What an own network is; the fields of its file. ``ConfigError`` for values that cannot be."""

    name: str
    port: int
    work: int  # easiest target, compact bits, and those of the genesis
    spacing: int  # seconds
    retarget: int  # blocks; 0 = the difficulty never changes
    message: str  # in the genesis coinbase
    time: int  # of the genesis, unix seconds
    nonce: int = 0
    seeds: tuple[str, ...] = ()
    seed_key: bytes | None = None
    seed_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError("a network's name is 1 to 32 of a-z, 0-9 and -, a letter first")
        if self.name in BUILT_IN_NAMES:
            raise ConfigError(f"{self.name!r} is the name of a built-in network; choose another one")
        _in_range("port", self.port, 1024, 65_535)
        _in_range("spacing", self.spacing, 1, 86_400)
        if self.retarget:  # 0: the work stays as it is
            _in_range("retarget", self.retarget, 2, 100_000, " or 0")
            if self.retarget * self.spacing < RETARGET_FACTOR:  # a part of it is 0 s, after which no hash is low enough
                raise ConfigError(f"spacing x retarget is to be {RETARGET_FACTOR} seconds at least")
        _in_range("genesis.time", self.time, 1, 2**32 - 1)
        _in_range("genesis.nonce", self.nonce, 0, 2**32 - 1)
        if not 0 <= self.work < 2**32 or not target_of(self.work):
            raise ConfigError('work is not a target: compact bits such as "1e0fffff" are wanted')
        if not _MESSAGE.fullmatch(self.message):
            raise ConfigError("genesis.message is 1 to 75 printable ASCII characters without quotes and backslashes")
        for seed in self.seeds:
            try:
                canonical = str(Address.parse(seed))
            except AddressError as error:
                raise ConfigError(f"seeds: {error}") from None
            if seed != canonical:
                raise ConfigError(f"seeds: write {canonical}")
        if len(self.seed_names) > SEED_NAMES or not all(is_dns_name(name) for name in self.seed_names):
            raise ConfigError(f"seed-names: at most {SEED_NAMES} host names in lower case")

    def network(self) -> Network:
        """The network itself."""
        block = own_genesis(self.message, self.time, self.work, self.nonce)
        rules = Rules(self.work, self.spacing, self.retarget)
        return Network(self.name, BitcoinLedger(rules, block), self.port, self.seeds, self.seed_key, self.seed_names)

    def toml(self) -> str:
        """The file. ``read_network(plan.toml())`` is the same network."""
        lines = [
            "# A network of the Obscura protocol. Its nodes share name, genesis, work, spacing, retarget.",
            f'name = "{self.name}"',
            f"port = {self.port}",
            f'work = "{self.work:08x}"  # easiest target, compact bits',
            f"spacing = {self.spacing}  # seconds between blocks",
            f"retarget = {self.retarget}  # blocks between changes of difficulty, 0 = never",
            "seeds = [" + ", ".join(f'"{seed}"' for seed in self.seeds) + "]",
        ]
        if self.seed_key:
            lines.append(f'seed-key = "{key_text(self.seed_key)}"')
        if self.seed_names:
            lines.append("seed-names = [" + ", ".join(f'"{name}"' for name in self.seed_names) + "]")
        lines += [
            "",
            "[genesis]",
            f'message = "{self.message}"',
            f"time = {self.time}",
            f"nonce = {self.nonce}",
            f'id = "{display_id(self.network().genesis_id)}"',
        ]
        return "\n".join(lines) + "\n"


def plan_network(name: str, now: float, port: int = 49_733, work: int = 0x1E0FFFFF, **others: Any) -> Plan:
    """A plan with sensible values for whatever is not said: that of the network ``test``. ``now``: unix seconds."""
    defaults: dict[str, Any] = {"spacing": 60, "retarget": 144, "message": f"{name} genesis", "time": int(now)}
    return Plan(name=name, port=port, work=work, **defaults | others)


def _in_range(name: str, value: int, least: int, most: int, more: str = "") -> None:
    if not least <= value <= most:
        raise ConfigError(f"{name} = {value} is not in {least}..{most}{more}")


def _seed_key(text: str) -> bytes:
    try:
        return parse_key(text)
    except AddressError:
        raise ConfigError("seed-key is to be 52 characters of a-z and 2-7: an Ed25519 public key in base32") from None


_TOP: dict[str, type] = {
    "name": str,
    "port": int,
    "work": str,
    "spacing": int,
    "retarget": int,
    "genesis": dict,
}
_TOP_OPTIONAL: dict[str, type] = {"seeds": list, "seed-key": str, "seed-names": list}
_GENESIS: dict[str, type] = {"message": str, "time": int, "nonce": int, "id": str}


def _checked(table: dict[str, Any], where: str, wanted: dict[str, type], optional: dict[str, type]) -> None:
    for key in table:
        if key not in wanted and key not in optional:
            raise ConfigError(f"{where}{key} is not a setting of a network file")
    for key, kind in (wanted | optional).items():
        if key not in table:
            if key in wanted:
                raise ConfigError(f"{where}{key} is missing in the network file")
        elif type(table[key]) is not kind:
            raise ConfigError(f"{where}{key} is to be a TOML {_TOML_NAMES[kind]}")


_TOML_NAMES = {str: "string", int: "integer", dict: "table", list: "array"}


def read_network(text: str) -> Network:
    """The network of a TOML file. ``ConfigError`` for what is missing, unknown or contradictory."""
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"the network file is not TOML: {error}") from None
    _checked(table, "", _TOP, _TOP_OPTIONAL)
    genesis = table["genesis"]
    _checked(genesis, "genesis.", _GENESIS, {})
    for key in ("seeds", "seed-names"):
        if not all(type(item) is str for item in table.get(key, [])):
            raise ConfigError(f"{key} is to be an array of strings")
    if not re.fullmatch(r"[0-9a-f]{8}", table["work"]):
        raise ConfigError('work is to be eight hexadecimal digits, such as "1e0fffff"')
    plan = Plan(
        name=table["name"],
        port=table["port"],
        work=int(table["work"], 16),
        spacing=table["spacing"],
        retarget=table["retarget"],
        message=genesis["message"],
        time=genesis["time"],
        nonce=genesis["nonce"],
        seeds=tuple(table.get("seeds", [])),
        seed_key=_seed_key(table["seed-key"]) if "seed-key" in table else None,
        seed_names=tuple(table.get("seed-names", [])),
    )
    network = plan.network()
    if display_id(network.genesis_id) != genesis["id"]:
        raise ConfigError(f"genesis.id is not this genesis' id {display_id(network.genesis_id)}: the file was altered")
    return network
