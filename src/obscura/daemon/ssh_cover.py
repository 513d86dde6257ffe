"""What ssh listeners show: host keys, read from the operator's files or made and kept, and the machine's own moduli(5)."""

from __future__ import annotations

import base64
import logging
import random
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_ssh_private_key

from obscura.daemon.certificates import check_private
from obscura.daemon.datadir import write_atomic
from obscura.errors import UserError
from obscura.limits import SSH_RSA_BITS
from obscura.morph.ssh_hostkey import HostKey, PrivateKey
from obscura.morph.ssh_kex import parse_moduli
from obscura.morph.ssh_mac import LIBRARY, lacks_umac
from obscura.morph.ssh_names import IDENTIFICATION
from obscura.morph.ssh_server import SshHost
from obscura.wire.address import Address

log = logging.getLogger(__name__)

# Of OpenSSH's client package; without it sshd falls back to its fixed groups, and so do we.
MODULI = Path("/etc/ssh/moduli")
_KINDS = ("rsa", "ecdsa", "ed25519")  # in sshd's order
NO_UMAC = f"{LIBRARY} is not there: who insists on UMAC is cut off, and sees that this is no sshd; install libnettle8 or nettle"


def ssh_host(place: Address, files: tuple[Path, ...], folder: Path, rng: random.Random) -> SshHost:
    """What the connections at ``place`` share. ``files``: the operator's host keys; none = made in ``folder``.

    Raises ``UserError`` for files that cannot be used.
    """
    if not files:
        stem = f"ssh-{sha256(f'{place.host}:{place.port}'.encode()).hexdigest()[:12]}"
        files = tuple(folder / f"{stem}-{kind}" for kind in _KINDS)
        for path, kind in zip(files, _KINDS, strict=True):
            if not path.exists():
                make_host_key(path, kind)
    keys = [read_host_key(path) for path in files]
    order = ("ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-ed25519")
    keys.sort(key=lambda key: order.index(key.algorithms[-1]))
    if len({key.algorithms[-1] for key in keys}) < len(keys):
        raise UserError("cover.ssh-host-keys: give one file for each kind of key")
    try:
        groups = parse_moduli(MODULI.read_text("ascii", "replace"))
    except OSError:
        groups = ()
    if lacks_umac():
        log.warning("carrier=ssh: %s", NO_UMAC)
    return SshHost(tuple(keys), groups, rng.randbytes(32))


def make_host_key(path: Path, kind: str) -> None:
    """A host key as `ssh-keygen -A` makes it, in OpenSSH's format, mode 0600."""
    private: PrivateKey
    if kind == "rsa":
        private = rsa.generate_private_key(public_exponent=65_537, key_size=SSH_RSA_BITS)
    elif kind == "ecdsa":
        private = ec.generate_private_key(ec.SECP256R1())
    else:
        private = ed25519.Ed25519PrivateKey.generate()
    write_atomic(path, private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))


def read_host_key(path: Path) -> HostKey:
    """A private key in OpenSSH's format without a passphrase. Raises ``UserError``."""
    check_private(path, "ssh host key", group_may_read=False)
    try:
        private = load_ssh_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise UserError(f"the ssh host key {path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UserError(f"the ssh host key {path} cannot be used: {error}") from None
    if not isinstance(private, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise UserError(
            f"the ssh host key {path} is of a kind that sshd 8.4 does not use: make an rsa, ecdsa or ed25519 key"
        )
    return HostKey(private)


def fingerprint(key: HostKey) -> str:
    """As ssh-keygen -l prints it."""
    return "SHA256:" + base64.b64encode(sha256(key.blob).digest()).decode().rstrip("=")


def shown(place: Address, host: SshHost) -> dict[str, Any]:
    """What `obscura listen` prints of it."""
    keys = {key.algorithms[-1]: fingerprint(key) for key in host.host_keys}
    told = ", ".join(f"{kind} {print_}" for kind, print_ in keys.items())
    software = IDENTIFICATION.decode().removeprefix("SSH-2.0-")
    found: dict[str, Any] = {
        "listen": str(place),
        "stranger": f"{software}, host keys {told}; ends in Permission denied (publickey)",
        "host-keys": keys,
    }
    return found | ({"lacks": NO_UMAC} if lacks_umac() else {})
