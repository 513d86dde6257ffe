"""The built-in networks, and the finding of one by its name or file (design 12).

Two networks never talk to each other by mistake: a network's id goes into every channel. The genesis blocks
here are made of constants and never change. A genesis is trusted by its hash; its work is not checked.
"""

from __future__ import annotations

from pathlib import Path

from obscura.errors import ConfigError
from obscura.ledger.bitcoin import BitcoinLedger, Rules
from obscura.ledger.network import Network, genesis_block, own_genesis
from obscura.ledger.network_file import read_network
from obscura.limits import NETWORK_FILE_BYTES

__all__ = ["BUILT_IN", "Network", "load_network"]


def _own(name: str, rules: Rules, time: int, nonce: int, port: int) -> Network:
    block = own_genesis(f"Obscura {name} genesis", time, rules.limit_bits, nonce)
    return Network(name, BitcoinLedger(rules, block), port)


_BITCOIN_SCRIPT = (
    bytes.fromhex("04ffff001d0104")
    + b"\x45"
    + (b"The Times 03/Jan/2009 Chancellor on brink of second bailout for banks")
)
_BITCOIN_OUTPUT = bytes.fromhex(
    "4104678afdb0fe5548271967f1a67130b7105cd6a828e03909a67962e0ea1f61deb6"
    "49f6bc3f4cef38c4f35504e51ec112de5c384df7ba0b8d578a4c702b6bf11d5fac"
)
_BITCOIN_RULES = Rules(
    limit_bits=0x1D00FFFF,
    spacing_s=600,
    retarget_blocks=2016,
    height_from=227_931,  # BIP34
    witness_from=481_824,  # BIP141
    versions=((227_931, 2), (363_725, 3), (388_381, 4)),  # BIP34, BIP66, BIP65
)

BUILT_IN = {
    network.name: network
    for network in (
        _own("dev", Rules(0x207FFFFF, 60, 0), 1_760_000_000, 0, 19733),
        _own("test", Rules(0x1E0FFFFF, 60, 144), 1_760_000_000, 380_512, 29733),
        _own("main", Rules(0x1D00FFFF, 60, 2016), 1_760_000_000, 0, 9733),
        Network(
            "bitcoin",
            BitcoinLedger(
                _BITCOIN_RULES,
                genesis_block(_BITCOIN_SCRIPT, _BITCOIN_OUTPUT, 1_231_006_505, 0x1D00FFFF, 2_083_236_893),
            ),
            39733,
        ),
    )
}


def load_network(name: str) -> Network:
    """A built-in network by its name, or the one of a TOML file by its path (with a ``.`` or a ``/``).

    Raises ``ConfigError``.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    if "." not in name and "/" not in name:
        raise ConfigError(f"no network is called {name!r}: there are {', '.join(BUILT_IN)}, or a TOML file")
    try:
        with Path(name).expanduser().open("rb") as file:
            raw = file.read(NETWORK_FILE_BYTES + 1)
        if len(raw) > NETWORK_FILE_BYTES:
            raise ConfigError(f"it has more than {NETWORK_FILE_BYTES} bytes, which no network needs")
        return read_network(raw.decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"the network file {name} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"the network file {name} is not UTF-8") from None
    except (RuntimeError, ValueError):  # of a ~ that is nobody's, and of a NUL
        raise ConfigError(f"the network file {name} cannot be read: no file has such a name") from None
    except ConfigError as error:
        raise ConfigError(f"the network file {name}: {error}") from None
