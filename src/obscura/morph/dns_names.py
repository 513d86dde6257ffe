"""The names of a generated zone: such as people give to networks of their own, each listener for itself (design 8).

What a dialler has to know follows from the channel key: the zone's name and the TSIG key. What only the server needs (hosts,
addresses, times) is drawn from its secret, so that nothing in it follows from the key.
"""

from __future__ import annotations

import random
from hashlib import sha256
from typing import Final

from obscura.morph.dns_message import name_of
from obscura.morph.dns_tsig import Key

_FIRST: Final = (
    *("north", "south", "east", "west", "river", "lake", "hill", "stone", "green", "blue", "silver", "golden"),
    *("maple", "cedar", "oak", "pine", "bright", "clear", "grand", "prime", "union", "metro", "alpine", "coastal"),
    *("harbor", "summit", "valley", "forest", "meadow", "garden", "castle", "bridge"),
)
_SECOND: Final = (
    *("field", "wood", "side", "view", "gate", "port", "ford", "land", "ridge", "brook", "dale", "point"),
    *("works", "media", "tech", "data", "soft", "systems", "logistics", "trading", "print", "foods", "motors", "labs"),
    *("design", "studio", "health", "energy", "travel", "books", "homes", "tools"),
)
# Ends of networks that nobody delegates (RFC 6762, appendix G; the last by ICANN in 2024).
_ENDS: Final = ("lan", "home", "corp", "private", "intranet", "internal")
_KEYS: Final = ("transfer", "ddns", "ddns-key", "update", "update-key", "xfr", "rndc-key", "dhcp", "dhcpd", "tsig-key")
_HOSTS: Final = (
    *("www", "files", "nas", "backup", "printer", "proxy", "vpn", "gw", "router", "intranet", "wiki", "git", "db1"),
    *("db2", "app1", "app2", "monitor", "ldap", "dc1", "dhcp", "build", "test", "dev", "cam1", "cam2", "phone", "web"),
    *("cloud", "media", "printer2", "srv1", "srv2", "ups", "switch1", "ap1", "desk1", "desk2", "laptop1", "scan"),
)
_TIMES: Final = ((3600, 900), (7200, 3600), (10800, 3600), (28800, 7200), (86400, 7200), (604800, 86400))
_EXPIRE: Final = (604_800, 1_209_600, 2_419_200, 3_600_000)
_TTLS: Final = (300, 3_600, 14_400, 43_200, 86_400, 604_800)
_PRIVATE: Final = ("10.{a}.{b}", "192.168.{b}", "172.{c}.{b}")


def origin_for_key(key: bytes) -> str:
    """The zone in which those ask who know the channel key and no other name."""
    digest = sha256(b"obscura zone/1" + key).digest()
    return f"{_FIRST[digest[0] & 31]}{_SECOND[digest[1] & 31]}.{_ENDS[digest[2] % len(_ENDS)]}"


def tsig_key(key: bytes) -> Key:
    """The TSIG key of a listener with this channel key: it keeps out who does not know the address."""
    digest = sha256(b"obscura tsig name/1" + key).digest()
    return Key(name_of(_KEYS[digest[0] % len(_KEYS)]), sha256(b"obscura tsig/1" + key).digest())


def zone_text(secret: bytes, origin: str, serial: int) -> str:
    """A small zone as a file (RFC 1035, 5): an office's hosts at private addresses, drawn from the secret."""
    rng = random.Random(sha256(b"obscura zone text/1" + secret).digest())
    net = rng.choice(_PRIVATE).format(a=rng.randrange(256), b=rng.randrange(256), c=rng.randrange(16, 32))
    free = rng.sample(range(2, 250), 32)
    refresh, retry = rng.choice(_TIMES)
    ttl, expire = rng.choice(_TTLS), rng.choice(_EXPIRE)
    server, mail = rng.choice(("ns", "ns1", "dns", "dns1")), rng.choice(("mail", "mx", "smtp", "mx1"))
    person = rng.choice(("hostmaster", "admin", "root", "postmaster", "it", "support"))
    lines = [
        f"$ORIGIN {origin}.",
        f"$TTL {ttl}",
        f"@ IN SOA {server} {person} {serial} {refresh} {retry} {expire} {rng.choice((300, 600, 3600, 86400))}",
        f"@ IN NS {server}",
        f"@ IN MX {rng.choice((0, 5, 10, 20))} {mail}",
        f'@ IN TXT "{rng.choice(("v=spf1 mx -all", "v=spf1 mx ~all", "v=spf1 a mx -all", "v=spf1 -all"))}"',
        f"{server} IN A {net}.{free.pop()}",
        f"{mail} IN A {net}.{free.pop()}",
    ]
    hosts = rng.sample(_HOSTS, rng.randint(5, 14))
    lines += [f"{host} IN A {net}.{free.pop()}" for host in hosts]
    lines += [
        f"{name} IN CNAME {hosts[0]}" for name in rng.sample(("portal", "home", "start", "help", "m"), rng.randrange(3))
    ]
    return "\n".join(lines) + "\n"
