"""The options that the verbs share, each declared once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, TypeVar

import click

from dcf.api import DEFAULT_MEMORY
from dcf.cluster.configuration import ClusterConfig
from dcf.errors import UsageError
from dcf.settings import METHODS_OF, Settings

Command = TypeVar("Command", bound=Callable[..., Any])


def together(*options: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Return one decorator for several options, in the order in which the help shows them."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_shared_options = together(
    click.option("--rank", type=int, required=True, help="Number of components r."),
    click.option(
        "--refine", type=int, help="Exact passes after the factorization. [default: 1; 0 where in memory]"
    ),
    click.option(
        "--negatives",
        type=click.Choice(["error", "allow"]),
        help="Refuse negative entries, or fit them. [default: error where all factors are nonnegative]",
    ),
    click.option(
        "--missing-chunks",
        type=click.Choice(["report", "error"]),
        default="report",
        show_default=True,
        help="Count absent chunks, or refuse them.",
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Of every random number."),
)

_fit_options = together(
    click.option(
        "--sketch-size",
        type=int,
        help="Rows of the one-sided sketch or of the row sample. [default: planned]",
    ),
    click.option(
        "--restarts", type=int, default=4, show_default=True, help="Random starts besides the first one."
    ),
    click.option(
        "--tol",
        type=float,
        help="KKT ratio at which the factorization ends. [default: 1e-4 or below, as it needs]",
    ),
    click.option(
        "--max-iter", type=int, default=2000, show_default=True, help="Most sweeps of the factorization."
    ),
    click.option(
        "--resketch",
        is_flag=True,
        help="Take one more pass with a larger sketch where the evidence asks for one.",
    ),
)

_nnz_per_column = click.option(
    "--nnz-per-column", type=int, default=5, show_default=True, help="Ones per column of the projection."
)
_signed = click.option("--signed", is_flag=True, help="Factors of any sign (of a tensor).")
_center = click.option(
    "--center",
    type=click.Choice(["no", "columns", "rows"]),
    default="no",
    show_default=True,
    help="Take out the means of the columns or the rows first (PCA, svd alone).",
)


def settings_options(*decompositions: str) -> Callable[[Command], Command]:
    """Return the options of one or more decompositions: the shared ones, and their own."""
    own = {"cp": _signed, "svd": _center}
    fitted = [_fit_options] * (decompositions != ("svd",))
    recovered = any("factorize-recover" in METHODS_OF[name] for name in decompositions)
    methods = {method: None for name in decompositions for method in METHODS_OF[name]}
    method = click.option(
        "--method",
        type=click.Choice(tuple(methods)),
        default="auto",
        show_default=True,
        help="How the long factor is found; auto chooses by evidence and says why.",
    )
    several = "cp" in decompositions
    axis = click.option(
        "--axis",
        type=str if several else click.Choice(["longest", "0", "1"]),
        default="longest",
        show_default=True,
        help="The compressed axis: longest, or its number"
        + "; of a tensor several, such as 0,2" * several
        + ".",
    )
    return together(
        _shared_options,
        method,
        axis,
        *fitted,
        *([_nnz_per_column] * recovered),
        *(own[name] for name in decompositions if name in own),
    )


memory_option = click.option(
    "--memory", help=f"Budget of each worker and of the driver. [default: {DEFAULT_MEMORY}, or the cluster's]"
)
workers_option = click.option(
    "--workers", type=int, help="Worker processes. [default: one a core, or the cluster's]"
)
stage_memory_option = click.option("--memory", help="Budget of each worker. [default: as in dcf sketch]")
cluster_options = together(
    click.option(
        "--cluster", "cluster_file", metavar="FILE", help="Compute where a file of cluster_configs/ says."
    ),
    click.option(
        "--scheduler", metavar="ADDRESS", help="Compute on a running Dask cluster, tls://host:8786."
    ),
    click.option("--tls", metavar="DIR", help="Its certificates: ca.pem, cert.pem, key.pem."),
    click.option(
        "--insecure-plain-tcp",
        is_flag=True,
        help="Go unencrypted over the network: whoever is on it can read the data and run code.",
    ),
)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace another run at OUT.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print the record as JSON.")


def cluster_of(options: dict[str, Any]) -> ClusterConfig | None:
    """Return the cluster that a verb's options name, if any. Raises `UsageError` where they contradict."""
    file, scheduler = options["cluster_file"], options["scheduler"]
    tls, plain = options["tls"], options["insecure_plain_tcp"]
    if file and scheduler:
        raise UsageError("--cluster and --scheduler both say where to compute; give one of them.")
    if scheduler:
        return ClusterConfig("dask", scheduler=scheduler, tls=tls, insecure_plain_tcp=plain)
    if not file:
        if tls or plain:
            raise UsageError("--tls and --insecure-plain-tcp belong to --scheduler or --cluster.")
        return None
    config = ClusterConfig.read(file)
    return replace(config, tls=tls or config.tls, insecure_plain_tcp=plain or config.insecure_plain_tcp)


def settings_of(decomposition: str, options: dict[str, Any]) -> Settings:
    """Return the settings among a verb's options, checked."""
    named = {field.name: options[field.name] for field in fields(Settings) if field.name in options}
    return Settings.of(decomposition=decomposition, **named)
