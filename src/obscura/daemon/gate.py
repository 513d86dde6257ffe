"""Who may pass over HTTP: the cookie of this run, a user's token, a browser that logged in with one of them."""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from obscura.daemon.scope import Scope
from obscura.daemon.tokens import TokenFile, digest_of, new_secret
from obscura.limits import LOGIN_CODE_S, MAX_LOGIN_CODES, MAX_SESSIONS, SESSION_S


class Login(NamedTuple):
    """What a browser gets: ``key`` for its calls, kept by the page; ``page`` for its pages, kept as a cookie.

    Cookies go to every port of a host, so that another program on this machine may be shown ``page``. It opens pages that
    hold no data; data wants ``key``, which the browser keeps for one origin, port included.
    """

    key: str
    page: str
    scope: Scope


class _Session(NamedTuple):
    key: bytes
    page: bytes
    credential: bytes  # what it was opened with: it ends with it
    until: float


class Gate:
    """Compares secrets by their hashes, all of them every time, in constant time."""

    def __init__(self, cookie: str, tokens: TokenFile, now: Callable[[], float]) -> None:
        self._cookie = digest_of(cookie)
        self._tokens = tokens
        self._now = now
        self._codes: OrderedDict[bytes, float] = OrderedDict()  # until when each may be used
        self._sessions: OrderedDict[bytes, _Session] = OrderedDict()

    def scope_of(self, secret: str) -> Scope | None:
        """What the secret of a call opens; None = nothing."""
        digest = digest_of(secret)
        for session in self._live():
            if hmac.compare_digest(session.key, digest):
                digest = session.credential
        return self._credential(digest)

    def opens_pages(self, secret: str) -> bool:
        """Whether it is the page cookie of a login that holds."""
        digest = digest_of(secret)
        found = [hmac.compare_digest(session.page, digest) and self._holds(session) for session in self._live()]
        return any(found)

    def login(self, secret: str) -> Login | None:
        """Open a session for a browser with the cookie, a token or a login code; None = refused."""
        digest = self._spent(digest_of(secret))
        scope = self._credential(digest)
        if scope is None:
            return None
        login = Login(new_secret(), new_secret(), scope)
        key = digest_of(login.key)
        self._sessions[key] = _Session(key, digest_of(login.page), digest, self._now() + SESSION_S)
        if len(self._live()) > MAX_SESSIONS:
            self._end_one()
        return login

    def _end_one(self) -> None:
        """The oldest session of the secret that has most: whoever has a small token does not log out the owner."""
        credentials = [session.credential for session in self._sessions.values()]
        most = max(credentials, key=credentials.count)
        del self._sessions[next(key for key, session in self._sessions.items() if session.credential == most)]

    def login_code(self) -> str:
        """A secret that logs in once, soon, with the rights of the owner; for an address, which browsers remember."""
        code = new_secret()
        self._codes[digest_of(code)] = self._now() + LOGIN_CODE_S
        while len(self._codes) > MAX_LOGIN_CODES:
            self._codes.popitem(last=False)
        return code

    def logout(self, secret: str) -> bool:
        """End the session of this key; whether there was one."""
        return self._sessions.pop(digest_of(secret), None) is not None

    def _live(self) -> list[_Session]:
        now = self._now()
        for key in [key for key, session in self._sessions.items() if session.until <= now]:
            del self._sessions[key]
        return list(self._sessions.values())

    def _spent(self, digest: bytes) -> bytes:
        """The owner's credential in exchange for a code that waits, which is no more then; anything else unchanged."""
        now = self._now()
        self._codes = OrderedDict((code, until) for code, until in self._codes.items() if until > now)
        for code in list(self._codes):
            if hmac.compare_digest(code, digest):
                del self._codes[code]
                digest = self._cookie
        return digest

    def _holds(self, session: _Session) -> bool:
        return self._credential(session.credential) is not None

    def _credential(self, digest: bytes) -> Scope | None:
        found = Scope.ADMIN if hmac.compare_digest(self._cookie, digest) else None
        for token in self._tokens.tokens():
            if hmac.compare_digest(bytes.fromhex(token.hash), digest):
                found = Scope.of(token.scope)
        return found
