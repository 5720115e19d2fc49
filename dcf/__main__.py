"""``python -m dcf`` is the command line."""

from dcf.cli.main import main

if __name__ == "__main__":
    main()
