"""What all commands share: loading on use, global options before or after the command, errors, status."""

from __future__ import annotations

import difflib
import errno
import importlib
import shlex
from collections.abc import Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from obscura.cli.output import printable
from obscura.errors import UserError

if TYPE_CHECKING:
    from obscura.daemon.client import Client
    from obscura.daemon.config import Config
    from obscura.daemon.datadir import DataDir
    from obscura.daemon.layers import Loaded


class Failure(click.ClickException):
    """One sentence on standard error, and the exit status."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(printable(message))
        self.exit_code = status  # type: ignore[misc]


class Number(click.FloatRange):
    """A number within bounds. ``click.FloatRange`` lets `nan` through whatever they are, and `inf` where one is open."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = super().convert(value, param, ctx)
        if not isfinite(number):
            self.fail(f"{printable(str(value))!r} is no finite number.", param, ctx)
        return number


class Globals:
    """The global options of one invocation, and what follows from them."""

    def __init__(self) -> None:
        self.json = False
        self.config: str | None = None
        self.data_dir: str | None = None
        self.network: str | None = None

    def load(
        self, flags: Mapping[str, object] | None = None, assigned: Mapping[str, str] | None = None
    ) -> Loaded[Config]:
        """The configuration with these flags on top. Raises ``ConfigError``."""
        from obscura.daemon import config

        own = {"data-dir": self.data_dir, "network": self.network}
        return config.load(self.config, {**own, **(flags or {})}, assigned)

    def folder(self) -> DataDir:
        """The directory of the node that is meant."""
        from obscura.daemon.datadir import DataDir

        config = self.load().value
        return DataDir(config.data_dir, config.network_name)

    def client(self) -> Client:
        """A connection to the node that is meant. Raises ``NoNode``."""
        from obscura.daemon.client import Client

        return Client(self.folder().rpc_socket, start=self.start())

    def start(self) -> str:
        """What to type, to start the node that is meant."""
        from obscura.daemon.datadir import other_owner

        if other_owner(self.folder().path) is not None:  # which root's `obscura run` refuses
            return "systemctl start obscura"
        given = (("config", self.config), ("data-dir", self.data_dir), ("network", self.network))
        start = "".join(f" --{name} {shlex.quote(value)}" for name, value in given if value is not None)
        return f"obscura run{start}" if start else _start(self.load().value)

    def call(self, method: str, /, *args: Any, **kwargs: Any) -> Any:
        """The result of one RPC. Raises ``NoNode``, ``RemoteError``."""
        with self.client() as client:
            return client.call(method, *args, **kwargs)


def _start(config: Config) -> str:
    return "obscura run --network dev" if config.network == "main" else f"obscura run --network {config.network}"


pass_globals = click.make_pass_decorator(Globals, ensure=True)


def _keep(context: click.Context, parameter: click.Parameter, value: object) -> None:
    # "" is what an unset variable gave: it is to be refused.
    if value not in (None, False) and parameter.name is not None:
        setattr(context.find_root().ensure_object(Globals), parameter.name, value)


def global_options(hidden: bool) -> list[click.Parameter]:
    """Fresh global options. All are taken before and after the command; ``hidden`` ones are not listed."""
    keep: dict[str, Any] = {"expose_value": False, "callback": _keep}
    return [
        click.Option(["--json"], is_flag=True, help="Answer in JSON.", **keep),
        click.Option(["--config"], metavar="FILE", hidden=hidden, help="Configuration file.", **keep),
        click.Option(["--data-dir"], metavar="DIR", hidden=hidden, help="Where the node keeps its data.", **keep),
        click.Option(
            ["--network"],
            metavar="NAME",
            hidden=hidden,
            help="main, test, dev, bitcoin or a network file.",
            **keep,
        ),
    ]


class Command(click.Command):
    """A command that takes the global options too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += global_options(hidden=True)


class Group(click.Group):
    """A group of such commands that guesses what a mistyped one was meant to be."""

    command_class = Command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with a guess for a word that is no command."""
        word = args[0]
        if self.get_command(ctx, word) is None and not word.startswith("-"):
            close = difflib.get_close_matches(word, self.list_commands(ctx), n=1)
            hint = f"did you mean {close[0]}?" if close else f"`{ctx.command_path} --help` lists them."
            ctx.fail(f"there is no command {printable(word)!r}; {hint}")
        return super().resolve_command(ctx, args)


class Lazy(NamedTuple):
    """A command by the place where it is, loaded when it is used, with its line in the list of commands."""

    module: str
    name: str
    summary: str

    def load(self) -> click.Command:
        command = getattr(importlib.import_module(self.module), self.name)
        assert isinstance(command, click.Command)
        return command


class Root(Group):
    """The command ``obscura``: lazy, its commands listed under headings."""

    def __init__(self, commands: Mapping[str, Mapping[str, Lazy]], **kwargs: Any) -> None:
        super().__init__(no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]}, **kwargs)
        self._headings = commands
        self._lazy = {name: lazy for group in commands.values() for name, lazy in group.items()}
        self.params += global_options(hidden=False)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        lazy = self._lazy.get(cmd_name)
        return None if lazy is None else lazy.load()

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, group in self._headings.items():
            with formatter.section(heading):
                formatter.write_dl([(name, lazy.summary) for name, lazy in group.items()], col_max=12)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            from obscura.daemon.client import NoNode

            raise Failure(str(error), 3 if isinstance(error, NoNode) else 1) from None
        except (
            OSError
        ) as error:  # of a path that was given, or its disk; whoever reads a pipe may leave it, that is no error
            if error.errno == errno.EPIPE:
                raise
            where = f"{error.filename}: " if isinstance(error.filename, str) else ""
            raise Failure(f"{where}{error.strerror or 'the system refused it'}") from None
