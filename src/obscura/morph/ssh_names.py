"""What OpenSSH 8.4p1 of Debian 11 says of itself: identification, algorithms, message numbers (RFC 4250; myproposal.h of 8.4).

That release, since from 9.0 on sntrup761 is preferred, which no library has. The lists are whole anywhere. Without Nettle
(see ``ssh_mac``) who insists on AES-CTR with UMAC gets what a peer without a common algorithm gets; a list without UMAC would
tell everybody.
"""

from __future__ import annotations

import random
from typing import Final, NamedTuple

from obscura.morph.ssh_mac import MACS
from obscura.morph.ssh_packet import AEAD, Broken, Fields, string

IDENTIFICATION: Final = b"SSH-2.0-OpenSSH_8.4p1 Debian-5+deb11u1"

DISCONNECT: Final = 1
IGNORE: Final = 2
UNIMPLEMENTED: Final = 3
DEBUG: Final = 4
SERVICE_REQUEST: Final = 5
SERVICE_ACCEPT: Final = 6
EXT_INFO: Final = 7
KEXINIT: Final = 20
NEWKEYS: Final = 21
KEX_FIRST: Final = 30
KEX_LAST: Final = 34
USERAUTH_REQUEST: Final = 50
USERAUTH_FAILURE: Final = 51
USERAUTH_SUCCESS: Final = 52
USERAUTH_BANNER: Final = 53
GLOBAL_REQUEST: Final = 80
REQUEST_FAILURE: Final = 82
CHANNEL_OPEN: Final = 90
CHANNEL_OPEN_CONFIRMATION: Final = 91
CHANNEL_OPEN_FAILURE: Final = 92
CHANNEL_WINDOW_ADJUST: Final = 93
CHANNEL_DATA: Final = 94
CHANNEL_EXTENDED_DATA: Final = 95
CHANNEL_EOF: Final = 96
CHANNEL_CLOSE: Final = 97
CHANNEL_REQUEST: Final = 98
CHANNEL_SUCCESS: Final = 99
CHANNEL_FAILURE: Final = 100

EXT_INFO_C: Final = "ext-info-c"
_KEX: Final = (
    "curve25519-sha256,curve25519-sha256@libssh.org,ecdh-sha2-nistp256,ecdh-sha2-nistp384,ecdh-sha2-nistp521,"
    "diffie-hellman-group-exchange-sha256,diffie-hellman-group16-sha512,diffie-hellman-group18-sha512,"
    "diffie-hellman-group14-sha256"
)
_PLAIN_KEYS: Final = (
    "ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521,sk-ecdsa-sha2-nistp256@openssh.com,"
    "ssh-ed25519,sk-ssh-ed25519@openssh.com,rsa-sha2-512,rsa-sha2-256,ssh-rsa"
)
_CERTIFIED_KEYS: Final = (
    "ecdsa-sha2-nistp256-cert-v01@openssh.com,ecdsa-sha2-nistp384-cert-v01@openssh.com,"
    "ecdsa-sha2-nistp521-cert-v01@openssh.com,sk-ecdsa-sha2-nistp256-cert-v01@openssh.com,"
    "ssh-ed25519-cert-v01@openssh.com,sk-ssh-ed25519-cert-v01@openssh.com,"
    "rsa-sha2-512-cert-v01@openssh.com,rsa-sha2-256-cert-v01@openssh.com,ssh-rsa-cert-v01@openssh.com"
)
_CIPHERS: Final = (
    "chacha20-poly1305@openssh.com,aes128-ctr,aes192-ctr,aes256-ctr,aes128-gcm@openssh.com,aes256-gcm@openssh.com"
)
_MACS: Final = (
    "umac-64-etm@openssh.com,umac-128-etm@openssh.com,hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com,"
    "hmac-sha1-etm@openssh.com,umac-64@openssh.com,umac-128@openssh.com,hmac-sha2-256,hmac-sha2-512,hmac-sha1"
)
SIGNATURES: Final = (  # server-sig-algs
    "ssh-ed25519,sk-ssh-ed25519@openssh.com,ssh-rsa,rsa-sha2-256,rsa-sha2-512,ssh-dss,ecdsa-sha2-nistp256,"
    "ecdsa-sha2-nistp384,ecdsa-sha2-nistp521,sk-ecdsa-sha2-nistp256@openssh.com,webauthn-sk-ecdsa-sha2-nistp256@openssh.com"
)

LANGUAGES: Final = ("C.UTF-8", "en_US.UTF-8", "en_GB.UTF-8", "de_DE.UTF-8", "fr_FR.UTF-8")
_SYLLABLES: Final = (
    *("ba", "co", "de", "fi", "ga", "lo", "ma", "ne", "po"),
    *("ra", "si", "ta", "to", "ve", "web", "app", "lib"),
)


def repository(rng: random.Random) -> str:
    """A name that somebody may have given to a repository."""
    return "".join(rng.choice(_SYLLABLES) for _ in range(rng.randint(2, 6)))


class Proposal(NamedTuple):
    """The ten lists of a KEXINIT, in its order (RFC 4253, 7.1)."""

    kex: list[str]
    host_keys: list[str]
    encryption_up: list[str]
    encryption_down: list[str]
    macs_up: list[str]
    macs_down: list[str]
    compression_up: list[str]
    compression_down: list[str]
    languages_up: list[str]
    languages_down: list[str]

    def encode(self, cookie: bytes) -> bytes:
        """The payload. ``cookie``: 16 random bytes."""
        lists = b"".join(string(",".join(names)) for names in self)
        return bytes((KEXINIT,)) + cookie + lists + bytes(5)

    @classmethod
    def decode(cls, payload: bytes) -> tuple[Proposal, bool]:
        """The lists, and whether a guessed packet follows. Raises ``Broken``."""
        fields = Fields(payload, 17)
        proposal = cls._make(fields.names() for _ in cls._fields)
        follows = fields.flag()
        fields.take(4)
        return proposal, follows


def _proposal(kex: str, host_keys: str, compression: str) -> Proposal:
    texts = (kex, host_keys, _CIPHERS, _CIPHERS, _MACS, _MACS, compression, compression)
    return Proposal._make([*(text.split(",") for text in texts), [], []])


CLIENT_PROPOSAL: Final = _proposal(
    f"{_KEX},{EXT_INFO_C}", f"{_CERTIFIED_KEYS},{_PLAIN_KEYS}", "none,zlib@openssh.com,zlib"
)


def server_proposal(host_keys: list[str]) -> Proposal:
    """A server's lists with the algorithms of its own host keys."""
    return _proposal(_KEX, ",".join(host_keys), "none,zlib@openssh.com")


class Choice(NamedTuple):
    """What both ends take. Compression needs none: ``zlib@openssh.com`` starts after an authentication that only our own
    client passes, and that one takes ``none``.
    """

    kex: str
    host_key: str
    encryption_up: str
    encryption_down: str
    mac_up: str
    mac_down: str


def choose(client: Proposal, server: Proposal) -> Choice:
    """RFC 4253, 7.1: of each list the client's first that the server has. ``Broken``, silent, where there is none."""

    def first(mine: list[str], theirs: list[str]) -> str:
        for name in mine:
            if name in theirs:
                return name
        raise Broken("no common algorithm")

    def mac(encryption: str, mine: list[str], theirs: list[str]) -> str:
        if encryption in AEAD:
            return ""
        chosen = first(mine, theirs)
        if chosen not in MACS:  # UMAC without its library
            raise Broken("no common algorithm")
        return chosen

    up = first(client.encryption_up, server.encryption_up)
    down = first(client.encryption_down, server.encryption_down)
    first(client.compression_up, server.compression_up)
    first(client.compression_down, server.compression_down)
    return Choice(
        first([name for name in client.kex if name != EXT_INFO_C], server.kex),
        first(client.host_keys, server.host_keys),
        up,
        down,
        mac(up, client.macs_up, server.macs_up),
        mac(down, client.macs_down, server.macs_down),
    )
