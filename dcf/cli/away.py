"""``dcf status``, ``logs`` and ``cancel``: a run that somebody else carries, from any later shell."""

from __future__ import annotations

import json

import click

from dcf.cli.options import json_option
from dcf.cli.text import status_lines
from dcf.submission import cancel_run, log_of, status_of
from dcf.urls import conceal


@click.command()
@click.argument("out")
@json_option
def status(out: str, as_json: bool) -> None:
    """Say how the run at OUT is: stage, blocks done, rate, time left, last error."""
    now = status_of(out)
    if as_json:
        click.echo(json.dumps(now, indent=2))
        return
    for line in status_lines(now):
        click.echo(conceal(line))


@click.command()
@click.argument("out")
def logs(out: str) -> None:
    """Print what the driver of a submitted run said."""
    for line in log_of(out):
        click.echo(conceal(line))


@click.command()
@click.argument("out")
def cancel(out: str) -> None:
    """Stop the driver of the run at OUT, wherever it is; finished blocks are kept."""
    for line in cancel_run(out):
        click.echo(conceal(line))
