"""The command line, called in this process."""

import signal
import sys

from click.testing import CliRunner

from dcf.cli import main as cli


def dcf(*words, expect=0):
    """Run ``dcf words`` in this process; return what it printed (stdout, stderr)."""
    argv, handler = sys.argv, signal.getsignal(signal.SIGTERM)
    code = 0
    try:
        with CliRunner().isolation() as streams:
            sys.argv = ["dcf", *map(str, words)]
            try:
                cli.main()
            except SystemExit as stop:
                code = stop.code or 0
            out = [streams[0].getvalue().decode(), streams[1].getvalue().decode()]
    finally:
        sys.argv = argv
        signal.signal(signal.SIGTERM, handler)
    assert code == expect, out
    assert "Traceback" not in out[0] + out[1]
    return out
