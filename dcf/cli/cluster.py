"""``dcf cluster check`` and ``dcf cluster certs``."""

from __future__ import annotations

import json
import sys

import click

from dcf.api import DEFAULT_MEMORY, absolute
from dcf.cli.options import json_option
from dcf.cluster.configuration import ClusterConfig
from dcf.cluster.probe import check_cluster
from dcf.cluster.security import FILES, make_certificates
from dcf.settings import parse_memory
from dcf.sizes import gigabytes, mib


@click.group()
def cluster() -> None:
    """Look at a cluster before it is trusted with a run, and make certificates for one."""


@cluster.command()
@click.argument("folder", metavar="DIR")
def certs(folder: str) -> None:
    """Make certificates in DIR for scheduler, workers and clients of a cluster.

    Whoever can read key.pem can run code on that cluster: keep the folder to yourself.
    """
    place = make_certificates(folder)
    click.echo(f"{place} holds {', '.join(FILES)}, valid for a year; whoever has them is let in.")


@cluster.command()
@click.argument("file")
@click.option("--source", default="", help="An array that the workers are to read.")
@click.option("--out", default="", help="A run group that they are to write.")
@click.option("--memory", help="Budget of each worker. [default: the file's, or 2GiB]")
@click.option("--wait", type=float, default=300.0, show_default=True, help="Seconds for the first worker.")
@json_option
def check(file: str, source: str, out: str, memory: str | None, wait: float, as_json: bool) -> None:
    """Start the smallest cluster that FILE describes; its workers say whether a run would work there."""
    config = ClusterConfig.read(file)
    budget = parse_memory((config.memory or DEFAULT_MEMORY) if memory is None else memory)
    source, out = (absolute(place, place) if place else "" for place in (source, out))
    found, wrong = check_cluster(config, budget, source, out, wait)
    if as_json:
        click.echo(json.dumps({"workers": found, "wrong": wrong}, indent=2))
    else:
        for address, seen in found.items():
            limit = mib(seen["memory"]) if seen["memory"] else "no limit"
            parts = [
                f"{seen['threads']} thread(s) of {seen['cores']} cores on {seen['machine']}",
                f"memory {limit}",
                f"scratch {seen['scratch']['folder']} with {gigabytes(seen['scratch']['free'])} free",
                f"dcf {seen['versions']['dcf']}, Python {seen['versions']['python']}",
                *(["reads SOURCE"] if seen["source"] == "" else []),
                *(["writes OUT"] if seen["out"] == "" else []),
            ]
            click.echo(f"{address}: {', '.join(parts)}")
        for sentence in wrong:
            click.echo(f"wrong: {sentence}")
        if not wrong:
            click.echo(f"{file} is in order.")
    if wrong:
        sys.exit(1)
