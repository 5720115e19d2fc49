"""``python -m dcf`` is the command line."""

from dcf.cli.main import run

if __name__ == "__main__":
    run()
