"""``dcf``, and ``python -m dcf``: the command line."""

import importlib
import os
import sys
from typing import NoReturn


def run() -> NoReturn:
    """Import the command line, which takes a second or two, and be it."""
    try:
        command_line = importlib.import_module("dcf.cli.main")
    except KeyboardInterrupt:
        sys.stderr.write("dcf: interrupted before it began.\n")
        sys.stderr.flush()
        os._exit(130)
    command_line.run()
    raise AssertionError("the command line never returns")


if __name__ == "__main__":
    run()
