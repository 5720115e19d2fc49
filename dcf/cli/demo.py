"""``dcf demo``: the main job on data larger than its memory budget."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import numpy as np

from dcf.datasets import planted_nmf
from dcf.errors import RunError, UsageError
from dcf.metrics import match
from dcf.settings import Settings, parse_memory
from dcf.sizes import gigabytes, mebibytes, rate
from dcf.storage.run import RunGroup

# Few columns, so that row sample and sketches fit the small budget as well.
_COLUMNS = 1000
_CHUNK_ROWS = 4096
_RANK = 10


@click.command()
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    help="Where data and result stay. [default: a temporary directory, deleted at the end]",
)
@click.option("--size", default="3GB", show_default=True, help="Bytes of the planted matrix.")
@click.option(
    "--memory", default="512MiB", show_default=True, help="Budget of each worker and of the driver."
)
@click.option("--workers", type=int, default=2, show_default=True, help="Local workers.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of data and run.")
def demo(directory: Path | None, size: str, memory: str, workers: int, seed: int) -> None:
    """Plant a matrix larger than the memory budget, factorize it, and compare with the truth."""
    budget = parse_memory(memory)
    rows = parse_memory(size, "--size") // (4 * _COLUMNS)
    if rows < _CHUNK_ROWS:
        raise UsageError(f"--size is {size}; the demo needs at least {_CHUNK_ROWS * 4 * _COLUMNS} bytes.")
    if workers < 1:
        raise UsageError(f"--workers is {workers}; it must be a whole number from 1 on.")
    Settings(rank=_RANK, seed=seed)  # refuses a bad seed before anything is planted
    place = directory or Path(tempfile.mkdtemp(prefix="dcf-demo-"))
    try:
        there = next(p for p in (place.absolute(), *place.absolute().parents) if p.exists())
        free = shutil.disk_usage(there).free
        if free < 1.1 * rows * 4 * _COLUMNS:
            raise RunError(f"{place} has {gigabytes(free)} free; choose another --directory or --size.")
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"{place} cannot be written ({error.strerror}); choose another --directory."
            ) from error
        _demo(place, rows, memory, budget, workers, seed)
    finally:
        if directory is None:
            shutil.rmtree(place, ignore_errors=True)


def _demo(place: Path, rows: int, memory: str, budget: int, workers: int, seed: int) -> None:
    source, out = place / "planted.zarr", place / "factors.zarr"
    nbytes = rows * 4 * _COLUMNS
    click.echo(
        f"Planting {rows} x {_COLUMNS} float32, rank {_RANK}, 1 % multiplicative noise:"
        f" {gigabytes(nbytes)} at {source}, {nbytes / budget:.1f} times the budget of a worker."
    )
    planted = planted_nmf(
        source, (rows, _COLUMNS), _RANK, seed=seed, chunks=(_CHUNK_ROWS, _COLUMNS // 2), threads=workers
    )
    words = ["nmf", str(source), str(out), "--rank", str(_RANK), "--memory", memory]
    words += ["--workers", str(workers), "--seed", str(seed), "--overwrite"]
    click.echo(f"$ dcf {shlex.join(words)}")
    # A process of its own, so that the driver's peak memory is that of the run alone.
    code = subprocess.run([sys.executable, "-m", "dcf", *words], check=False).returncode
    if code:
        sys.exit(code)
    run = RunGroup.open(str(out), mode="r")
    record = run.record
    _, cosines = match(np.asarray(run.get("H")[:]).T, planted.components.T)
    error, floor = record["relative_error"]["value"], planted.noise_floor
    seconds, peak = record["seconds"], record["peak_memory"]
    checks = [
        (
            f"planted components match, worst cosine {cosines.min():.5f} (at least 0.99)",
            bool(cosines.min() >= 0.99),
        ),
        (
            f"error {error:.6f} against the noise floor {floor:.6f}: {100 * (error / floor - 1):+.2f} %"
            " (within 1 %)",
            abs(error / floor - 1) <= 0.01,
        ),
        (
            "peak memory of each worker "
            + ", ".join(mebibytes(size) for size in peak["workers"].values())
            + f" (budget {mebibytes(budget)})",
            peak["worker"] <= budget,
        ),
        (
            f"{record['passes']} passes, read at {rate(nbytes, seconds['sketch'])} (sketch) and"
            f" {rate(nbytes, seconds['refine 1'])} (refine)",
            record["passes"] == 2,
        ),
    ]
    for sentence, holds in checks:
        click.echo(f"{'ok    ' if holds else 'FAILED'} {sentence}")
    if not all(holds for _, holds in checks):
        sys.exit(1)
