"""The manual page packaging/man/obscura.1, from the commands themselves.

python tools/make_man.py            # writes it
python tools/make_man.py --check    # exit status 1 if it is not what the commands say
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from obscura.cli import COMMANDS, root
from obscura.daemon.config import SYSTEM_FILE

PAGE = Path(__file__).parents[1] / "packaging" / "man" / "obscura.1"

_HEAD = """\
.\\" Made by tools/make_man.py from the commands' own help: change that, then run make man.
.TH OBSCURA 1 "" "Obscura" "User Commands"
.SH NAME
obscura \\- a peer-to-peer node for privacy, and its tools
.SH SYNOPSIS
.B obscura
[\\fIGLOBAL OPTIONS\\fR] \\fICOMMAND\\fR [\\fIARGUMENTS\\fR]
.SH DESCRIPTION
Nodes exchange blocks and transactions over links that are encrypted, authenticated and padded.
.B obscura run
is the node; the other commands ask a node that runs on this machine, by the control socket in its data directory, or need none.
"""

_TAIL = f"""\
.SH SIGNALS OF A RUNNING NODE
.TP
.BR SIGTERM ", " SIGINT
End every link and the store cleanly, then exit. The same signal a second time ends the process at once.
.TP
.B SIGHUP
Read the configuration again; the log says what changed and what needs a restart.
.SH ENVIRONMENT
.TP
.BI OBSCURA_ KEY
Any configuration key; a section stands before two underscores, as in OBSCURA_SEEDS__ENABLED.
.TP
.B OBSCURA_CONFIG
The configuration file.
.TP
.B OBSCURA_DATA_DIR
Where nodes keep their data.
.TP
.BR NOTIFY_SOCKET ", " WATCHDOG_USEC
Set by systemd: readiness, life signs and the end are told to it.
.SH FILES
.TP
.IR ~/.config/obscura/obscura.toml ", " {SYSTEM_FILE}
The configuration; the first that is there. `obscura config init` writes one.
.TP
.IR ~/.local/share/obscura/ NETWORK /
Chain, keys, address book, control socket (rpc.sock) and the number of the directory's form (version).
.SH EXIT STATUS
0 done, 1 error, 2 wrong usage, 3 no node runs, 130 ended by Ctrl-C.
.SH SEE ALSO
.BR systemd.service (5),
the documentation in the folder docs of the source distribution.
"""


def page() -> str:
    """The whole page as roff."""
    lines = [_HEAD, ".SH GLOBAL OPTIONS", *_options(root), ".SH COMMANDS"]
    for heading, commands in COMMANDS.items():
        lines.append(f".SS {heading}")
        for name, lazy in commands.items():
            lines += _command(f"obscura {name}", lazy.load())
    return "\n".join(lines) + "\n" + _TAIL


def _command(name: str, command: click.Command) -> Iterator[str]:
    if isinstance(command, click.Group):
        for below, each in sorted(command.commands.items()):
            yield from _command(f"{name} {below}", each)
        return
    arguments = " ".join(_metavar(each) for each in command.params if isinstance(each, click.Argument))
    yield ".TP"
    yield f"\\fB{_roff(name)}\\fR" + (f" \\fI{_roff(arguments)}\\fR" if arguments else "")
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    for number, paragraph in enumerate(paragraphs):
        if number:
            yield ".IP"
        yield from _paragraph(paragraph)
    options = list(_options(command))
    if options:
        yield ".RS"
        yield from options
        yield ".RE"


def _metavar(argument: click.Argument) -> str:
    words = (argument.name or "").upper().replace("_", "-")
    words = words if argument.required else f"[{words}]"
    return words + ("..." if argument.nargs == -1 else "")


def _paragraph(text: str) -> Iterator[str]:
    if text.startswith("\b"):  # click's mark for lines that stay as they are
        yield from (".nf", *(_roff(line) for line in text.removeprefix("\b").strip("\n").splitlines()), ".fi")
    else:
        yield _roff(" ".join(text.split()))


def _options(command: click.Command) -> Iterator[str]:
    for option in command.params:
        if not isinstance(option, click.Option) or option.hidden or option.help is None:
            continue
        if option.name == "json" and command is not root:  # all have it
            continue
        names = ", ".join(f"\\fB{_roff(name)}\\fR" for name in (*option.opts, *option.secondary_opts))
        value = (
            "" if option.is_flag or option.count else f" \\fI{_roff(option.metavar or (option.name or '').upper())}\\fR"
        )
        if not option.is_flag and isinstance(option.type, click.Choice) and option.metavar is None:
            value = f" \\fI{_roff('|'.join(map(str, option.type.choices)))}\\fR"
        yield f".TP\n{names}{value}"
        yield _roff(" ".join(option.help.split()))


def _roff(text: str) -> str:
    """Text as it prints: hyphens of options stay hyphens, no line begins a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^(?=[.'])", r"\\&", text)


def main() -> int:
    made = page()
    if "--check" in sys.argv[1:]:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != made:
            print(f"{PAGE.name} is not what the commands say: run make man", file=sys.stderr)
            return 1
        return 0
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
