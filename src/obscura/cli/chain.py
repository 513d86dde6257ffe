"""mine, send-tx, block, chain, network."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from obscura.cli.frame import Command, Failure, Globals, Group, Number, pass_globals
from obscura.cli.output import progress_bar, show_fields, show_json, show_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from obscura.daemon.client import Client
    from obscura.store.sqlite import Store

LOOK_S = 0.25  # seconds between two looks at a synchronisation
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _show(globals: Globals, found: dict[str, Any]) -> None:
    if globals.json:
        show_json(found)
    else:
        show_fields(found)


@click.command(cls=Command)
@click.option("--blocks", default=1, show_default=True, type=click.IntRange(1), help="How many.")
@click.option("--fill", default=0, metavar="BYTES", type=click.IntRange(0), help="Fill each with random transactions.")
@pass_globals
def mine(globals: Globals, blocks: int, fill: int) -> None:
    """Mine blocks on the running node's tip.

    Prints the id of each block. For dev, test and networks of your own.

    \b
    Example:
      obscura --network dev mine --blocks 200 --fill 1000000
    """
    left = blocks
    with globals.client() as client, progress_bar("mining") as progress:
        while left:
            done = client.call("mine", blocks=left, fill=fill)
            left -= len(done["ids"])
            progress(blocks - left, blocks, f"height {done['height']}")
            for block_id in done["ids"]:
                if globals.json:
                    show_line({"id": block_id})
                else:
                    click.echo(block_id)


@click.command(name="send-tx", cls=Command)
@click.argument("transaction", metavar="FILE|HEX", required=False)
@click.option("--random", "is_random", is_flag=True, help="Send a random transaction of about 700 bytes.")
@click.option(
    "--policy",
    default="private",
    show_default=True,
    type=click.Choice(["private", "anonymity-only", "strict", "direct"]),
    help="Relayed in the stem phase; the same over Tor or I2P alone; never made public by this node; public at once.",
)
@click.option("--deadline", "deadline_s", type=Number(0), help="Seconds to wait for a way to send it so.")
@click.option("--follow", is_flag=True, help="Print each step until the last one.")
@pass_globals
def send_tx(
    globals: Globals,
    transaction: str | None,
    is_random: bool,
    policy: str,
    deadline_s: float | None,
    follow: bool,
) -> None:
    """Give a transaction to the running node.

    It is relayed privately and public some minutes later at most. FILE holds it as bytes or as hexadecimal digits. Prints its id.
    """
    if is_random == (transaction is not None):
        raise click.UsageError("give either a transaction or --random")
    if transaction is None:
        import random

        from obscura.ledger.mining import filler_transaction

        raw = filler_transaction(random.SystemRandom()).hex()
    else:
        raw = _hex_of(transaction)
    with globals.client() as client:
        sent = client.call("tx.send", raw=raw, policy=policy, deadline_s=deadline_s)
        if not follow:
            if globals.json:
                show_json(sent)
            else:
                click.echo(sent["id"])
            return
        _follow(globals, client, sent["id"])


def _follow(globals: Globals, client: Client, id: str) -> None:
    """Print receipts until the last one. Raises ``Failure`` where that says that nobody will have the transaction."""
    steps, last = 0, None
    while last is None or not last["final"]:
        for last in client.call("tx.receipts", id=id, after=steps):
            steps += 1
            if globals.json:
                show_line(last)
            else:
                told = [f"{name}={value}" for name, value in last.items() if name not in ("id", "final")]
                click.echo(f"{last['id']}  {'  '.join(told).removeprefix('stage=')}")
    if last["stage"] == "expired":
        raise Failure(f"the transaction was given up: {last['reason']}")


def _hex_of(given: str) -> str:
    """Hexadecimal digits given as such, or in a file, or the bytes of a file."""
    try:
        return bytes.fromhex(given).hex()
    except ValueError:
        pass
    try:
        return _hex_in(Path(given))
    except OSError as error:
        raise Failure(f"{given[:80]!r} is neither a file that can be read nor hexadecimal: {error.strerror}") from None


def _hex_in(file: Path) -> str:
    """The same for what is a file, whatever its name: an id, say. Raises ``OSError``."""
    data = file.read_bytes()
    try:
        return bytes.fromhex(data.decode("ascii")).hex()
    except ValueError:
        return data.hex()


@click.group(cls=Group)
def block() -> None:
    """Show a block, or give one to the node."""


@block.command(name="get")
@click.argument("which", metavar="HASH|HEIGHT")
@click.option("--raw", is_flag=True, help="Write its bytes; hexadecimal digits to a terminal.")
@pass_globals
def block_get(globals: Globals, which: str, raw: bool) -> None:
    """Show a block of the running node."""
    found = globals.call("block.get", block=which, raw=raw)
    if not raw:
        _show(globals, found)
    elif globals.json:
        show_json(found)
    elif sys.stdout.isatty():
        click.echo(found["raw"])
    else:
        sys.stdout.buffer.write(bytes.fromhex(found["raw"]))


@block.command(name="submit")
@click.argument("file", type=FILE)
@pass_globals
def block_submit(globals: Globals, file: Path) -> None:
    """Give the running node a block.

    FILE holds it as bytes or as hexadecimal digits.
    """
    try:
        raw = _hex_in(file)
    except OSError as error:
        raise Failure(f"{file} cannot be read: {error.strerror}") from None
    _show(globals, globals.call("block.submit", raw=raw))


@click.group(cls=Group)
def chain() -> None:
    """Look at the stored chain, check it, or fill it from a file."""


@chain.command(name="info")
@pass_globals
def chain_info(globals: Globals) -> None:
    """Show chain and store of the running node."""
    _show(globals, globals.call("chain.info"))


@chain.command(name="sync")
@pass_globals
def chain_sync(globals: Globals) -> None:
    """Follow the running node until it has what its peers have.

    Waits for a first peer if there is none.
    """
    with globals.client() as client, progress_bar("syncing") as progress:
        while True:
            found = client.call("chain.info")
            heights = [int(peer["best_block_height"]) for peer in client.call("peers")]
            wanted = max([found["headers"], *heights])
            progress(found["height"], wanted, f"height {found['height']} of {wanted}")
            if heights and found["height"] >= wanted:
                break
            time.sleep(LOOK_S)
    _show(globals, {"height": found["height"], "tip": found["tip"], "peers": len(heights)})


@chain.command(name="import")
@click.argument("file", type=FILE)
@pass_globals
def chain_import(globals: Globals, file: Path) -> None:
    """Take the blocks of a file.

    FILE has for each block its length (4 bytes, least significant first) and its bytes. Goes into the running node, or straight
    into the store if none runs. Ends at the first block that is refused.
    """
    from obscura.daemon.client import NoNode

    with progress_bar("importing") as progress:
        try:
            done = _import_into_node(globals, file.resolve(), progress)
        except NoNode:
            done = _import_into_store(globals, file, progress)
    _show(globals, done)


def _import_into_node(globals: Globals, file: Path, progress: Callable[[int, int, str], None]) -> dict[str, Any]:
    new = known = offset = 0
    with globals.client() as client:
        while True:
            step = client.call("chain.import", path=str(file), offset=offset)
            new, known, offset = new + step["new"], known + step["known"], step["offset"]
            progress(offset, step["total"], f"{new} blocks")
            if step["done"]:
                return {"new": new, "known": known, "bytes": offset}


def _import_into_store(globals: Globals, file: Path, progress: Callable[[int, int, str], None]) -> dict[str, Any]:
    from obscura.daemon.blockfile import Imported, import_blocks
    from obscura.ledger.networks import load_network

    done = Imported()
    with _offline(globals) as store:
        for done in import_blocks(store, load_network(globals.load().value.network), file):
            progress(done.offset, done.total, f"{done.new} blocks")
    return {"new": done.new, "known": done.known, "bytes": done.offset}


@contextmanager
def _offline(globals: Globals) -> Iterator[Store]:
    """The store of a node that does not run."""
    from obscura.daemon.config import parse_bytes
    from obscura.ledger.networks import load_network
    from obscura.store.sqlite import Store

    config, folder = globals.load().value, globals.folder()
    prune = None if config.prune is None else parse_bytes(config.prune)
    with folder.hold(), Store.open(folder.path, load_network(config.network).id, prune, repair=True) as store:
        yield store


@chain.command(name="verify")
@pass_globals
def chain_verify(globals: Globals) -> None:
    """Read every stored block again and check it.

    Asks the running node, or opens the store if none runs. Exit status 1 if a block is damaged: a running node asks its peers
    for those anew, so without one, start it and verify again.
    """
    from obscura.daemon.client import NoNode

    with progress_bar("verifying") as progress:
        try:
            found = _verify_in_node(globals, progress)
        except NoNode:
            found = _verify_store(globals, progress)
    _show(globals, found)
    if found["damaged"]:
        click.get_current_context().exit(1)


def _verify_in_node(globals: Globals, progress: Callable[[int, int, str], None]) -> dict[str, Any]:
    damaged: list[str] = []
    blocks, begin = 0, True
    with globals.client() as client:
        while True:
            step = client.call("chain.verify", begin=begin)
            begin = False
            damaged = step["damaged"]
            blocks = max(blocks, step["blocks"])
            progress(blocks, step["total"], f"{len(damaged)} damaged")
            if step["done"]:
                return {"blocks": blocks, "damaged": damaged}


def _verify_store(globals: Globals, progress: Callable[[int, int, str], None]) -> dict[str, Any]:
    from obscura.daemon.chain_methods import body_is_sound
    from obscura.ledger.network import display_id
    from obscura.ledger.networks import load_network
    from obscura.store.sqlite import FILE_NAME

    file = globals.folder().path / FILE_NAME
    if not file.exists():  # to make an empty one would call a mistyped directory sound
        raise Failure(f"there is no chain at {file}: give the --data-dir and --network of one")
    damaged: list[str] = []
    blocks = 0
    ledger = load_network(globals.load().value.network).ledger
    with _offline(globals) as store:
        damaged += map(display_id, store.forgotten)  # after a crash; the next start fetches them
        tree = store.load_chain(ledger)

        def is_sound(block_id: bytes, raw: bytes) -> bool:
            return block_id in tree and body_is_sound(ledger, block_id, raw, tree.height(block_id))

        for step in store.verify(is_sound):
            blocks = step.done
            if step.damaged is not None:
                damaged.append(display_id(step.damaged))
            progress(step.done, step.total, f"{len(damaged)} damaged")
    return {"blocks": blocks, "damaged": damaged}


@click.group(cls=Group)
def network() -> None:
    """Make a network of your own."""


@network.command(name="init")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--name", help="Its name; else that of the file.")
@click.option("--port", default=49_733, show_default=True, help="Where its nodes listen.")
@click.option("--work", default="1e0fffff", show_default=True, help="Easiest target, compact bits in hexadecimal.")
@click.option("--spacing", default=60, show_default=True, help="Intended seconds between blocks.")
@click.option("--retarget", default=144, show_default=True, help="Blocks between changes of difficulty, 0 = never.")
@click.option("--message", help="Text of the genesis block, 1 to 75 characters.")
@pass_globals
def network_init(
    globals: Globals, /, file: Path, name: str | None, work: str, message: str | None, **given: Any
) -> None:
    """Write the file of a new network.

    Its nodes are started with `obscura run --network FILE`.
    """
    import time

    from obscura.daemon.datadir import write_new
    from obscura.ledger.network_file import plan_network

    try:
        bits = int(work, 16)
    except ValueError:
        raise click.BadParameter("eight hexadecimal digits, such as 1e0fffff", param_hint="--work") from None
    if message is not None:
        given["message"] = message
    plan = plan_network(name or file.stem, time.time(), work=bits, **given)
    try:
        write_new(file, plan.toml())
    except FileExistsError:
        raise Failure(f"{file} is there already; networks never change, choose another name") from None
    except OSError as error:
        raise Failure(f"{file} cannot be written: {error.strerror}") from None
    made = plan.network()
    _show(globals, {"name": made.name, "file": str(file), "network_id": made.id.hex(), "port": made.port})
