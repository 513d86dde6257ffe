"""completion."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from obscura.cli.frame import Command, Failure, Globals, pass_globals

VARIABLE = "_OBSCURA_COMPLETE"  # by which the shell's script asks the program; click derives the same name
SHELLS = ("bash", "zsh", "fish")


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(SHELLS))
@pass_globals
def completion(globals: Globals, shell: str) -> None:
    """Print the script that completes commands and options in a shell.

    \b
    Examples:
      obscura completion bash > ~/.local/share/bash-completion/completions/obscura
      obscura completion zsh > ~/.zfunc/_obscura      (a folder of $fpath)
      obscura completion fish > ~/.config/fish/completions/obscura.fish
    """
    found = get_completion_class(shell)
    if found is None:
        raise Failure(f"this version of click has no completion for {shell}")
    click.echo(found(click.get_current_context().find_root().command, {}, "obscura", VARIABLE).source())
