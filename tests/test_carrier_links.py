"""Links over the web carriers between real nodes on loopback, and what strangers on the same ports get."""

from __future__ import annotations

import asyncio
import re
import ssl
import stat
from pathlib import Path

import pytest

from obscura.daemon.config import Config
from obscura.daemon.covers import CoverSettings
from obscura.daemon.node import Node
from obscura.errors import ConfigError, Unreachable, UserError
from obscura.wire.address import Address, key_text


def config(folder: Path, **more: object) -> Config:
    return Config(network="dev", data_dir=folder, max_outbound=0, **more)  # type: ignore[arg-type]


def without_key(address: Address) -> Address:
    return Address(None, address.host, address.port, address.carrier, address.name, address.binding)


async def get(port: int, request: bytes, tls: ssl.SSLContext | None = None) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


def careless() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


CLOSING = b" HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("listen", ["127.0.0.1:0?carrier=http", "127.0.0.1:0?carrier=tls", "[::]:0?carrier=tls"])
def test_a_link_with_the_key(tmp_path: Path, listen: str) -> None:
    async def go() -> None:
        async with (
            Node(config(tmp_path / "a", listen=(listen,))) as alice,
            Node(config(tmp_path / "b", listen=())) as bob,
        ):
            (address,) = alice.addresses
            if address.host == "::":
                address = Address(address.key, "::1", address.port, address.carrier)
            peer = await bob.connect(address)
            assert (peer.pattern, peer.carrier) == ("NK", address.carrier)
            assert "ProtocolMorphing" in peer.negotiated.flags.names
            assert await bob.ping(peer) < 5
            (seen,) = alice.peers()
            assert seen.session_id == peer.session_id

    asyncio.run(go())


@pytest.mark.parametrize("unlisted", [False, True])
def test_joining_without_the_key_where_strangers_may(tmp_path: Path, unlisted: bool) -> None:
    async def go() -> str:
        listening = config(tmp_path / "a", listen=("127.0.0.1:0?carrier=tls",), unlisted=unlisted)
        async with Node(listening) as alice, Node(config(tmp_path / "b", listen=())) as bob:
            try:
                return (await bob.connect(without_key(alice.addresses[0]))).pattern
            except Unreachable:
                return "none"

    assert asyncio.run(go()) == ("none" if unlisted else "NXpsk0")


@pytest.mark.parametrize("carrier", ["http", "tls", "ssh", "dns"])
def test_a_wrong_key_is_told_as_such(tmp_path: Path, carrier: str) -> None:
    async def go() -> None:
        async with (
            Node(config(tmp_path / "a", listen=(f"127.0.0.1:0?carrier={carrier}",))) as alice,
            Node(config(tmp_path / "b", listen=())) as bob,
        ):
            address = alice.addresses[0]
            with pytest.raises(Unreachable, match="did not prove its key"):
                await bob.connect(Address(bytes(range(32)), address.host, address.port, address.carrier))
            assert alice.peers() == []
            assert (await bob.connect(address)).pattern == "NK", "and nobody is punished"

    asyncio.run(go())


@pytest.mark.parametrize("carrier", ["http", "tls"])
def test_strangers_get_the_operator_s_site(tmp_path: Path, carrier: str) -> None:
    site = tmp_path / "site"
    (site / "more").mkdir(parents=True)
    (site / "index.html").write_bytes(b"<p>a shop</p>")
    (site / "more" / "data.json").write_bytes(b"{}")
    (site / ".secret").write_bytes(b"hidden")
    (site / "way-out").symlink_to("/etc/hostname")

    async def go() -> None:
        listening = config(tmp_path / "a", listen=(f"127.0.0.1:0?carrier={carrier}",), cover=CoverSettings(site=site))
        async with Node(listening) as alice:
            tls = careless() if carrier == "tls" else None
            port = alice.addresses[0].port
            found = {
                path: await get(port, b"GET " + path + CLOSING, tls)
                for path in (b"/", b"/more/data.json", b"/.secret", b"/way-out")
            }
            assert found[b"/"].endswith(b"<p>a shop</p>")
            assert b"Content-Type: application/json" in found[b"/more/data.json"]
            assert b" 404 " in found[b"/.secret"]
            assert b" 404 " in found[b"/way-out"]
            assert alice.covers is not None
            for path in alice.covers.shown[0]["protected"]:
                assert b" 401 " in await get(port, b"GET " + path.encode() + CLOSING, tls)

    asyncio.run(go())


def test_key_certificate_and_names_stay_over_a_restart(tmp_path: Path) -> None:
    async def shown() -> tuple[str, object]:
        async with Node(config(tmp_path / "a", listen=("127.0.0.1:0?carrier=tls",))) as alice:
            assert alice.covers is not None
            key = alice.addresses[0].key
            assert key is not None
            return key_text(key), alice.covers.shown

    first, second = asyncio.run(shown()), asyncio.run(shown())
    assert first == second
    keys = sorted((tmp_path / "a" / "dev" / "keys").iterdir())
    assert len(keys) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o600}


def test_twenty_fresh_nodes_share_what_stock_servers_share(tmp_path: Path) -> None:
    """All that a stranger sees, of twenty new nodes: what is the same in all of them is nginx's and Debian's."""

    async def seen(number: int) -> tuple[set[bytes], bytes]:
        listening = config(tmp_path / str(number), listen=("127.0.0.1:0?carrier=http", "127.0.0.1:0?carrier=tls"))
        async with Node(listening) as node:
            http, tls = (address.port for address in node.addresses)
            page = await get(http, b"GET /" + CLOSING)
            reader, writer = await asyncio.open_connection("127.0.0.1", tls, ssl=careless())
            certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            writer.write(b"GET /none" + CLOSING)
            page += await reader.read()
            writer.close()
            assert node.covers is not None
            for port, shown in ((http, node.covers.shown[0]), (tls, node.covers.shown[1])):
                for path in shown["protected"]:
                    context = careless() if port == tls else None
                    page += path.encode() + b"\r\n" + await get(port, b"GET " + path.encode() + CLOSING, context)
            head = page.split(b"<!DOCTYPE")[0] + page.split(b"</html>\n")[-1]
            return set(re.sub(rb"<[^>]*>", b"", head).split(b"\r\n")), certificate

    async def all_of_them() -> list[tuple[set[bytes], bytes]]:
        return [await seen(number) for number in range(20)]

    found = asyncio.run(all_of_them())
    shared = set.intersection(*(lines for lines, _ in found))
    stock = re.compile(
        rb"|HTTP/1\.1 [0-9]{3} [A-Za-z ]+|Server: nginx/1\.22\.1|Date: .*|Content-Type: text/html|Content-Length: [0-9]+"
        rb"|Connection: close|Accept-Ranges: bytes|nginx/1\.22\.1|[0-9]{3} [A-Za-z ]+"
    )
    assert [line for line in shared if not stock.fullmatch(line)] == []
    certificates = [certificate for _, certificate in found]
    longest = max(
        (size for size in range(8, 200) for at in range(0, len(certificates[0]) - size, 8)
         if all(certificates[0][at : at + size] in other for other in certificates)), default=0
    )  # fmt: skip
    assert longest < 60, "names of algorithms and fields, nothing else"


@pytest.mark.parametrize(
    ("cover", "fault"),
    [
        ({"site": Path("/nowhere/at/all")}, UserError),
        ({"certificate": Path("/nowhere.pem"), "key": Path("/nowhere.key")}, UserError),
    ],
)
def test_files_that_are_not_there_stop_the_start_with_a_reason(
    tmp_path: Path, cover: dict[str, Path], fault: type[Exception]
) -> None:
    async def go() -> None:
        listening = config(tmp_path / "a", listen=("127.0.0.1:0?carrier=tls",), cover=CoverSettings(**cover))  # type: ignore[arg-type]
        async with Node(listening):
            pass

    with pytest.raises(fault, match="nowhere"):
        asyncio.run(go())


def test_a_certificate_needs_its_key() -> None:
    with pytest.raises(ConfigError, match="together"):
        CoverSettings(certificate=Path("a.pem"))


def test_a_node_answers_the_last_words_of_who_has_ended(tmp_path: Path) -> None:
    async def go() -> bytes:
        async with (
            asyncio.timeout(60),
            Node(config(tmp_path, listen=("127.0.0.1:0?carrier=http",))) as node,
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", node.addresses[0].port)
            writer.write(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n" * 900)
            writer.write_eof()
            said = await reader.read()
            assert not node.engine.links
            return said

    assert asyncio.run(go()).count(b"HTTP/1.1 200 OK") == 900
