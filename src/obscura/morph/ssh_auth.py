"""User authentication (RFC 4252) as sshd 8.4 does it with keys alone allowed, and the request that carries flight 1.

The flight is the signature of a `publickey` request by a 4,096-bit RSA key. What key it names is made up for each connection and
used once: a constant would mark the software, a kept one would link an initiator's connections. It is a number without small
factors, larger than the signature, so that nothing short of verifying tells it from a key; the verifier alone could, and whoever
verifies (a man in the middle of the outer session) learns that this is no user of his, and nothing else.
"""

from __future__ import annotations

import hashlib
import random
from math import gcd
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from obscura.limits import SSH_AUTH_TRIES, SSH_FAILURE_S, SSH_FLIGHT
from obscura.morph import ssh_names as names
from obscura.morph.ssh_packet import Broken, Fields, mpint, string

USERAUTH: Final = "ssh-userauth"
CONNECTION: Final = "ssh-connection"
METHOD: Final = "publickey"
ALGORITHM: Final = "rsa-sha2-512"
_KEY_TYPE: Final = "ssh-rsa"
_EXPONENT: Final = 65_537
_RSA_LEAST_BITS: Final = 1_024  # SSH_RSA_MINIMUM_MODULUS_SIZE
_CURVES: Final[dict[str, ec.EllipticCurve]] = {
    "ecdsa-sha2-nistp256": ec.SECP256R1(),
    "ecdsa-sha2-nistp384": ec.SECP384R1(),
    "ecdsa-sha2-nistp521": ec.SECP521R1(),
}
_RSA_NAMES: Final = ("ssh-rsa", "rsa-sha2-256", "rsa-sha2-512")


def _primorial(most: int) -> int:
    """The product of the odd primes up to ``most``."""
    product = 1
    for number in range(3, most + 1, 2):
        if gcd(number, product) == 1 and all(number % d for d in range(3, int(number**0.5) + 1, 2)):
            product *= number
    return product


_SMALL_PRIMES: Final = _primorial(2_000)


def made_up_key(least: int, rng: random.Random) -> bytes:
    """The blob of an RSA public key of 4,096 bits that nobody has, its modulus above ``least`` where one is."""
    bits = 8 * SSH_FLIGHT
    low, high = max(least, 3 << (bits - 2)), (1 << bits) - 1
    if high - low < 1 << (bits // 2):
        low = 3 << (bits - 2)
    while True:
        modulus = rng.randint(low, high) | 1
        if gcd(modulus, _SMALL_PRIMES) == 1:
            return string(_KEY_TYPE) + mpint(_EXPONENT) + mpint(modulus)


def none_request(user: str) -> bytes:
    """What every client begins with: it asks for the methods."""
    return bytes((names.USERAUTH_REQUEST,)) + string(user) + string(CONNECTION) + string("none")


def key_request(user: str, flight: bytes, rng: random.Random) -> bytes:
    """The `publickey` request with ``flight`` as its signature. ``ValueError`` if it is not of that size."""
    if len(flight) != SSH_FLIGHT:
        raise ValueError(f"a signature of {len(flight)} bytes")
    blob = made_up_key(int.from_bytes(flight, "big"), rng)
    start = bytes((names.USERAUTH_REQUEST,)) + string(user) + string(CONNECTION) + string(METHOD) + b"\1"
    return start + string(ALGORITHM) + string(blob) + string(string(ALGORITHM) + string(flight))


def failure() -> bytes:
    """USERAUTH_FAILURE of a server that takes keys alone."""
    return bytes((names.USERAUTH_FAILURE,)) + string(METHOD) + b"\0"


class Authenticator:
    """The server's side of one connection. ``secret`` (the listener's) makes the time of a refusal depend on the user's name."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._user_and_service: tuple[bytes, bytes] | None = None
        self._failures = 0
        self._last_counts = False

    def request(self, payload: memoryview) -> bytes | None:
        """A USERAUTH_REQUEST: the signature that may be a flight, or None = refuse. Raises ``Broken`` as sshd ends then."""
        fields = Fields(payload)
        # A style may follow a name
        user, service, method = (fields.chars().partition(b":")[0], fields.chars(), fields.text())
        is_first = self._user_and_service is None
        if self._user_and_service is None:
            self._user_and_service = (user, service)
        elif self._user_and_service != (user, service):
            before = ",".join(part.decode("utf-8", "replace") for part in self._user_and_service)
            after = ",".join(part.decode("utf-8", "replace") for part in (user, service))
            said = f"Change of username or service not allowed: ({before}) -> ({after})"
            raise Broken("another user in one session", said[:1_024])
        self._last_counts = not (is_first and method == "none")
        if service != CONNECTION.encode() or method not in ("none", METHOD):
            return None
        if method == "none":
            fields.finish()
            return None
        return _signature(fields)

    def refused(self) -> bytes:
        """The answer to the last request. Raises ``Broken`` with sshd's words when it was one too many."""
        if self._last_counts:
            self._failures += 1
        if self._failures >= SSH_AUTH_TRIES:
            raise Broken("too many tries", "Too many authentication failures")
        return failure()

    def delay(self) -> float:
        """Seconds that a refusal takes at least: the same for each request of one user (auth2.c, user_specific_delay)."""
        user = self._user_and_service[0] if self._user_and_service else b""
        share = int.from_bytes(hashlib.sha512(self._secret + user).digest()[:4], "big") / (1 << 32)
        return SSH_FAILURE_S[0] + share * SSH_FAILURE_S[1]


def _signature(fields: Fields) -> bytes | None:
    """The signature of a `publickey` request if it has the shape of a flight. A mere question about a key has none."""
    is_signed, algorithm, blob = fields.flag(), fields.text(), fields.string()
    key_type = _KEY_TYPE if algorithm in _RSA_NAMES else algorithm
    if algorithm not in names.SIGNATURES.split(",") or not _is_key(key_type, blob):
        return None
    if not is_signed:
        fields.finish()
        return None
    signature = fields.string()
    fields.finish()
    head = string(ALGORITHM) + SSH_FLIGHT.to_bytes(4, "big")
    if algorithm != ALGORITHM or len(signature) != len(head) + SSH_FLIGHT or not signature.startswith(head):
        return None
    return signature[len(head) :]


def _is_key(kind: str, blob: bytes) -> bool:
    """Whether sshd can read a key of this kind from it. Where it cannot, it looks at nothing behind the key."""
    fields = Fields(blob, 0)
    try:
        if fields.text() != kind:
            return False
        if kind == _KEY_TYPE:
            is_key = fields.mpint() >= 0 and fields.mpint().bit_length() >= _RSA_LEAST_BITS
        elif kind == "ssh-ed25519":
            is_key = len(fields.string()) == 32
        elif kind in _CURVES:
            is_key = fields.text() == kind.rpartition("-")[2]
            ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[kind], fields.string())
        else:
            return True  # of the others only the kind is looked at
        fields.finish()
    except (Broken, ValueError):
        return False
    return is_key
