"""``python -m obscura.cli``."""

from obscura.cli import main

main()
