"""The command line: parses arguments and prints. Nothing but click is imported before a command is chosen."""

from __future__ import annotations

import errno
import os
import sys
from typing import NoReturn

try:
    import click

    from obscura.cli.frame import Lazy, Root
except KeyboardInterrupt:  # most of the time before `main`, which is there for it, begins
    raise SystemExit(130) from None

_NODE = "obscura.cli.node"
_PEERS = "obscura.cli.peers"
_ADDRESSES = "obscura.cli.addresses"
_CHAIN = "obscura.cli.chain"

COMMANDS: dict[str, dict[str, Lazy]] = {
    "Node": {
        "run": Lazy(_NODE, "run", "Run a node until Ctrl-C, SIGTERM or `obscura stop`."),
        "stop": Lazy(_NODE, "stop", "Stop the running node and wait for its end."),
        "status": Lazy(_NODE, "status", "Show how the running node is doing."),
        "listen": Lazy(
            "obscura.cli.listen", "listen", "Show where the running node listens and what a stranger sees there."
        ),
        "doctor": Lazy("obscura.cli.doctor", "doctor", "Look for what is wrong, and say what to type."),
        "dashboard": Lazy(
            "obscura.cli.dashboard", "dashboard", "Print an address that opens the running node's dashboard."
        ),
        "top": Lazy("obscura.cli.top", "top", "Watch the running node in the terminal."),
        "features": Lazy("obscura.cli.features", "features", "List the features and what becomes of them."),
        "events": Lazy("obscura.cli.control", "events", "Follow what the running node does, as JSON lines."),
    },
    "Peers": {
        "peers": Lazy(_PEERS, "peers", "List the peers of the running node."),
        "connect": Lazy(_PEERS, "connect", "Make a link to a peer."),
        "disconnect": Lazy(_PEERS, "disconnect", "End the link to a peer."),
        "rotate": Lazy(_PEERS, "rotate", "Move links to new connections, under load and without a gap."),
        "ping": Lazy(_PEERS, "ping", "Measure the round trip to a peer."),
        "addresses": Lazy(_ADDRESSES, "addresses", "List the addresses of other nodes that the node knows."),
        "ban": Lazy(_ADDRESSES, "ban", "Ban hosts, networks and autonomous systems."),
        "seeds": Lazy("obscura.cli.seeds", "seeds", "Show whom the node asks for its first peers; sign lists of them."),
    },
    "Chain": {
        "chain": Lazy(_CHAIN, "chain", "Look at the stored chain, check it, or fill it from a file."),
        "block": Lazy(_CHAIN, "block", "Show a block, or give one to the node."),
        "send-tx": Lazy(_CHAIN, "send_tx", "Give a transaction to the running node."),
        "mine": Lazy(_CHAIN, "mine", "Mine blocks on the running node's tip."),
        "network": Lazy(_CHAIN, "network", "Make a network of your own."),
    },
    "Identity": {
        "address": Lazy("obscura.cli.identity", "address", "Print the addresses that others reach the node by."),
        "key": Lazy("obscura.cli.identity", "key", "Show own keys; show or forget those that peers have proven."),
    },
    "Tools": {
        "dandelion": Lazy("obscura.cli.dandelion", "dandelion", "Explain how own transactions are hidden."),
        "simulate": Lazy("obscura.cli.simulate", "simulate", "Measure what spies learn from a network of cores."),
        "config": Lazy("obscura.cli.config", "config", "Show, check and begin configurations."),
        "lab": Lazy("obscura.cli.lab", "lab", "Measure what an observer learns."),
        "privacy": Lazy("obscura.cli.privacy", "privacy", "Show what hides the traffic, and why."),
        "rpc": Lazy("obscura.cli.control", "rpc", "Call a method of the running node."),
        "token": Lazy("obscura.cli.token", "token", "Make and end tokens for the RPC over HTTP."),
        "replay": Lazy("obscura.cli.replay", "replay", "Run a capture through the core again."),
        "wire": Lazy("obscura.cli.wire", "wire", "Turn frames into JSON and back."),
        "completion": Lazy(
            "obscura.cli.completion", "completion", "Print the script that completes commands and options in a shell."
        ),
        "version": Lazy("obscura.cli.version", "version", "Print the version."),
    },
}

root = Root(COMMANDS, name="obscura", help="Obscura: a peer-to-peer network for privacy.")


def main() -> NoReturn:
    """Run the command line. Exit status: 0 done, 1 error, 2 usage, 3 no node, 130 Ctrl-C."""
    _open_closed_streams()
    try:
        result = root.main(prog_name="obscura", standalone_mode=False)
        sys.stdout.flush()
        status = result if isinstance(result, int) else 0
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        status = 130
    except OSError as error:
        if error.errno != errno.EPIPE:
            click.echo(f"Error: {error.strerror or 'the system refused it'}", err=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter's flush fails too
        status = 1
    sys.exit(status)


def _open_closed_streams() -> None:
    """What started us may have closed them (`>&-`): they lead to nowhere then, and no other file gets their numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - for as long as the process lives
