"""``obscura`` with the secrets of the TLS sessions that it dials written to a file: for the laboratory's own nodes alone.

    python -m obscura.lab.field.keylog FILE run --network dev ...

The node itself has no such option, and reads no SSLKEYLOGFILE: its contexts are made without defaults. Only who starts this
module instead of the node gets a key log.
"""

from __future__ import annotations

import runpy
import sys

from obscura.morph.tls import CLIENT_CONTEXT


def main() -> None:
    """Set the file, then be the command line."""
    CLIENT_CONTEXT.keylog_filename = sys.argv.pop(1)
    runpy.run_module("obscura.cli", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
