"""Plays all acts in the order of their numbers and prints a summary; status 0 only if everything happened."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import time

import demo
from demo.stage import Failed, Stage
from obscura.errors import UserError


def main() -> int:
    """The exit status."""
    acts = sorted(module.name for module in pkgutil.iter_modules(demo.__path__) if module.name.startswith("act_"))
    began = time.monotonic()
    with Stage() as stage:
        try:
            modules = [importlib.import_module(f"demo.{act}") for act in acts]
            for module in modules:
                if hasattr(module, "prepare"):  # what takes long to come up does so while others play
                    module.prepare(stage)
            for module in modules:
                module.play(stage)
        except (Failed, UserError) as error:
            stage.say(f"  [red]✗[/red] {error}")
            return 1
        stage.say("[bold]Summary[/bold]")
        for what, value in stage.figures:
            stage.say(f"  {what}: {value}")
        stage.say(f"  all of it in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
