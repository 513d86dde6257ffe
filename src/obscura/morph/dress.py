"""The names that one web listener shows: drawn from those that real sites use, each listener for itself (design 8).

What a dialler has to know as well (the path) follows from what it knows: the channel key, or, joining without it, the network
and the certificate. What it reads from the answers (cookie, realm) is drawn from a secret, so that no two listeners are linked.
"""

from __future__ import annotations

import random
from hashlib import sha256
from typing import Final

import msgspec

_FIRST: Final = (
    *(b"api", b"app", b"live", b"stream", b"push", b"events", b"realtime", b"gateway"),
    *(b"feed", b"chat", b"notify", b"sync", b"channel", b"hub", b"service", b"rpc"),
)
_SECOND: Final = (
    *(b"v1", b"v2", b"v3", b"channels", b"rooms", b"updates", b"sessions", b"notifications"),
    *(b"clients", b"topics", b"devices", b"jobs", b"boards", b"docs", b"teams", b"users"),
)
_COOKIES: Final = (
    *(b"sid", b"session", b"sessionid", b"session_id", b"SESSION", b"SID", b"token", b"auth_session"),
    *(b"app_session", b"_session", b"sess", b"web_session", b"visitor", b"uid", b"user_session", b"ssid"),
)
_REALMS: Final = (
    *(b"api", b"Restricted", b"restricted", b"Private", b"members", b"Authentication required", b"users", b"Login"),
    *(b"service", b"Protected", b"internal", b"app", b"Members only", b"Secure Area", b"gateway", b"example"),
)
_ANSWERS: Final = (
    *(b"token", b"access_token", b"session", b"id", b"sid", b"key", b"ticket", b"session_id"),
    *(b"auth", b"jwt", b"accesstoken", b"auth_token", b"csrf", b"data", b"result", b"session_key"),
)
_COOKIE_ATTRIBUTES: Final = (b"; Path=/; HttpOnly", b"; path=/; HttpOnly", b"; HttpOnly; Path=/", b"; Path=/")


class Dress(msgspec.Struct, frozen=True):
    """Names of one listener. ``paths`` are its protected resources."""

    cookie: bytes
    attributes: bytes  # of the cookie
    realm: bytes
    paths: frozenset[bytes]
    is_tls: bool
    answer: bytes = b"token"  # what the answer to a login calls its token


def path_of(seed: bytes) -> bytes:
    """The protected resource of a seed: two words and 12 hexadecimal digits. Nobody finds it who does not know the seed."""
    digest = sha256(b"obscura path/1" + seed).digest()
    return b"/%s/%s/%s" % (_FIRST[digest[0] & 15], _SECOND[digest[1] & 15], digest[2:8].hex().encode())


def path_for_key(key: bytes) -> bytes:
    """Where those dial who know the channel key."""
    return path_of(b"key" + key)


def path_for_joining(network_id: bytes, certificate: bytes) -> bytes:
    """Where those dial who know only the network. ``certificate`` is the SHA256 of the leaf, so each listener has its own."""
    return path_of(b"join" + network_id + certificate)


def dress(secret: bytes, paths: frozenset[bytes], *, is_tls: bool) -> Dress:
    """The names of the listener with this channel secret."""
    rng = random.Random(sha256(b"obscura dress/1" + secret).digest())
    cookie, realm, attributes = rng.choice(_COOKIES), rng.choice(_REALMS), rng.choice(_COOKIE_ATTRIBUTES)
    secure = b"; Secure" if is_tls else b""
    return Dress(cookie, attributes + secure, realm, paths, is_tls, rng.choice(_ANSWERS))
