"""A zone of a name server: its records with their signatures, and what answers a question (RFC 1034, 4.3.2; RFC 4035, 3.1).

Signing happens at the edge; here a zone is what was read, and never changes.
"""

from __future__ import annotations

from bisect import bisect_right

import msgspec

from obscura.limits import DNS_ALIASES
from obscura.morph.dns_message import (
    AAAA,
    ANY,
    CNAME,
    DNAME,
    DS,
    MAX_NAME,
    NOERROR,
    NS,
    NSEC,
    NXDOMAIN,
    RRSIG,
    SOA,
    YXDOMAIN,
    A,
    is_below,
    labels,
    read_name,
)


class RRset(msgspec.Struct, frozen=True):
    """Records of one name and type, in canonical order, and the signatures over them. Data is in wire form, uncompressed."""

    name: bytes
    type: int
    ttl: int
    data: tuple[bytes, ...]
    signatures: tuple[bytes, ...] = ()


class Found(msgspec.Struct):
    """What goes into an answer, section by section."""

    rcode: int
    is_authoritative: bool
    answer: list[RRset]
    authority: list[RRset]
    additional: list[RRset]


Nodes = dict[bytes, dict[int, RRset]]  # by lower-case name, then by type


class Zone:
    """One zone. ``origin`` is lower case; ``nodes`` holds its apex."""

    def __init__(self, origin: bytes, nodes: Nodes) -> None:
        self.origin = origin
        self.nodes = nodes
        self.soa = nodes[origin][SOA]
        self.is_signed = bool(self.soa.signatures)
        self._parents = {parent for name in nodes for parent in _parents(name, origin)}  # empty non-terminals too
        self._ordered = sorted((name for name, node in nodes.items() if NSEC in node), key=_canonical)
        self._keys = [_canonical(name) for name in self._ordered]

    @property
    def serial(self) -> int:
        """Of the SOA record."""
        return int.from_bytes(self.soa.data[0][-20:-16], "big")

    def answer(self, qname: bytes, kind: int, *, is_secured: bool) -> Found:
        """What this zone says; ``qname`` is in it. ``is_secured``: the asker wants signatures (DO)."""
        found = Found(NOERROR, True, [], [], [])
        name = qname.lower()
        for _ in range(DNS_ALIASES):
            cut = self._cut(name, kind)
            if cut is not None and cut.type == NS:
                return self._referral(found, cut, is_secured=is_secured)
            if cut is not None:
                target = qname[: len(qname) - len(cut.name)] + read_name(cut.data[0], 0)[0]
                found.answer.append(cut if is_secured else msgspec.structs.replace(cut, signatures=()))
                if len(target) > MAX_NAME:
                    found.rcode = YXDOMAIN
                    return found
                found.answer.append(RRset(qname, CNAME, cut.ttl, (target,)))
                qname, name = target, target.lower()
                if kind in (CNAME, ANY) or not is_below(name, self.origin):
                    return found
                continue
            node, wildcard = self._node(name)
            if node is None:
                return self._negative(found, name, exists=name in self._parents, is_secured=is_secured)
            owned = _asked(node, kind)
            alias = node.get(CNAME) if not owned else None
            if not owned and alias is None:
                return self._negative(found, name, exists=True, is_secured=is_secured, wildcard=wildcard)
            shown = [alias] if alias is not None else owned
            found.answer += (
                shown if wildcard is None else [msgspec.structs.replace(rrset, name=qname) for rrset in shown]
            )
            if kind == NS and not alias:
                found.additional += self._addresses(owned, is_secured=is_secured)
            if wildcard is not None and is_secured:
                found.authority += self._covering(name)
            if alias is None:
                return found
            qname, _ = read_name(alias.data[0], 0)
            name = qname.lower()
            if not is_below(name, self.origin):
                return found
        return found

    def _cut(self, name: bytes, kind: int) -> RRset | None:
        """The delegation or redirection on the way to ``name``, if what is asked is elsewhere: that next to the apex."""
        for parent in reversed(_parents(name, self.origin)):
            node = self.nodes.get(parent, {})
            if NS in node and parent != self.origin and not (parent == name and kind in (DS, NSEC)):
                return node[NS]
            if DNAME in node and parent != name:
                return node[DNAME]
        return None

    def _referral(self, found: Found, cut: RRset, *, is_secured: bool) -> Found:
        found.is_authoritative = bool(found.answer)
        found.authority.append(msgspec.structs.replace(cut, signatures=()))
        node = self.nodes[cut.name.lower()]
        if is_secured:
            found.authority += [node[kind] for kind in (DS,) if kind in node] or [node[k] for k in (NSEC,) if k in node]
        glue = msgspec.structs.replace(cut, data=cut.data[::-1])  # BIND puts each before those that it has
        found.additional += self._addresses([glue], is_secured=False)
        return found

    def _addresses(self, owned: list[RRset], *, is_secured: bool) -> list[RRset]:
        """Of name servers: needed to reach them, so that they are told even where little else is."""
        found = []
        for target in (target for rrset in owned for target in rrset.data):
            glue = self.nodes.get(target.lower(), {})
            found += [
                glue[kind] if is_secured else msgspec.structs.replace(glue[kind], signatures=())
                for kind in (A, AAAA)
                if kind in glue
            ]
        return found

    def _node(self, name: bytes) -> tuple[dict[int, RRset] | None, bytes | None]:
        """The records of a name, or those of the wildcard that stands for it and its name."""
        node = self.nodes.get(name)
        if node is not None or name in self._parents:
            return node, None
        wildcard = b"\x01*" + self._encloser(name)
        return self.nodes.get(wildcard), wildcard

    def _encloser(self, name: bytes) -> bytes:
        """The longest ancestor that exists."""
        while name not in self._parents:
            name = name[1 + name[0] :]
        return name

    def _negative(
        self, found: Found, name: bytes, *, exists: bool, is_secured: bool, wildcard: bytes | None = None
    ) -> Found:
        if not exists:
            found.rcode = NXDOMAIN
        least = int.from_bytes(self.soa.data[0][-4:], "big")
        found.authority.append(msgspec.structs.replace(self.soa, ttl=min(self.soa.ttl, least)))
        if is_secured and self._ordered:
            proofs = self._covering(wildcard or name)
            if wildcard is not None:
                proofs += self._covering(name)
            elif not exists:
                proofs += self._covering(b"\x01*" + self._encloser(name))
            for proof in proofs:
                if proof not in found.authority:
                    found.authority.append(proof)
        return found

    def _covering(self, name: bytes) -> list[RRset]:
        """The NSEC that matches or covers a name."""
        if not self._ordered:
            return []
        at = bisect_right(self._keys, _canonical(name)) - 1
        return [self.nodes[self._ordered[at]][NSEC]]

    def ordered(self) -> list[dict[int, RRset]]:
        """All names as a transfer shows them, the apex first."""
        names = sorted(self.nodes, key=_canonical)
        return [self.nodes[name] for name in names]


def _parents(name: bytes, origin: bytes) -> list[bytes]:
    """``name`` and what is above it down to ``origin``."""
    found = []
    while len(name) >= len(origin):
        found.append(name)
        if name == origin:
            break
        name = name[1 + name[0] :]
    return found


def _canonical(name: bytes) -> list[bytes]:
    """The key of the canonical order (RFC 4034, 6.1)."""
    return labels(name)[::-1]


def _asked(node: dict[int, RRset], kind: int) -> list[RRset]:
    if kind == ANY:
        return list(node.values())
    if kind == RRSIG:
        return [RRset(rrset.name, RRSIG, rrset.ttl, rrset.signatures) for rrset in node.values() if rrset.signatures]
    return [node[kind]] if kind in node else []
