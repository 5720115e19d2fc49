"""The rate of the sketch pass over that of a bare read of the same zstd array, in pairs within one run.

    python benchmarks/throughput.py [--size 4GB] [--turns 7]

The data (float32 of twelve bits, rank 10 with noise, chunks of 4096 x 1000, Zstandard) lie in a temporary
directory and are deleted at the end. Bare: processes each read their part with Zarr, a layer of chunks at a
time into one buffer, and do nothing else; they are told what dcf tells its workers (malloc keeps its memory,
one thread of Zarr), which makes bare reading a little faster, too. Against them: pass 1 of `dcf sketch --rank
10` with all its sketches, checks and journal, on a Dask client of as many processes, started before. One
worker and one reader are pinned to the same core. They take turns; the first turn only warms up.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from unittest.mock import patch

import dask
import numpy as np
import zarr
from dask.utils import parse_bytes
from distributed import Client, LocalCluster
from zarr.buffer import cpu
from zarr.codecs import ZstdCodec

from dcf.api import run_source
from dcf.cluster.environment import CONFIG
from dcf.datasets import planted_nmf
from dcf.settings import Settings

COLUMNS, CHUNKS, STRIPE = 2000, (4096, 1000), 4096
BITS = 12  # of the mantissa that the data have, as an instrument gives or a writer rounds them
LEAST = 0.85
CORE = {min(os.sched_getaffinity(0))}


def plant(folder: Path, rows: int) -> Path:
    """Write the array; return its path."""
    plain, packed = folder / "plain.zarr", folder / "packed.zarr"
    planted_nmf(plain, (rows, COLUMNS), 10, chunks=CHUNKS)
    array = zarr.open_array(plain)
    target = zarr.create_array(
        packed, shape=array.shape, chunks=CHUNKS, dtype="float32", compressors=ZstdCodec(level=3)
    )
    for start in range(0, rows, CHUNKS[0]):
        bits = array[start : start + CHUNKS[0]].view(np.uint32)
        rounded = (bits + np.uint32(1 << (22 - BITS))) & np.uint32(-(1 << (23 - BITS)) & 0xFFFFFFFF)
        target[start : start + CHUNKS[0]] = rounded.view(np.float32)
    stored = sum(file.stat().st_size for file in packed.rglob("*") if file.is_file())
    print(
        f"{rows} x {COLUMNS} float32, {array.nbytes / 1e9:.1f} GB, compressed to {stored / array.nbytes:.2f}"
    )
    return packed


def read(source: Path, part: int, parts: int, pinned: bool, pipe: Connection) -> None:
    """Read one of `parts` parts of the rows each time the pipe says so."""
    if pinned:
        os.sched_setaffinity(0, CORE)
    array = zarr.open_array(source, mode="r")
    stripes = -(-array.shape[0] // STRIPE)
    mine = range(part * stripes // parts, (part + 1) * stripes // parts)
    buffer = np.empty((STRIPE, COLUMNS), np.float32)
    while pipe.recv():
        for stripe in mine:
            rows = slice(stripe * STRIPE, min((stripe + 1) * STRIPE, array.shape[0]))
            out = cpu.NDBuffer.from_numpy_array(buffer[: rows.stop - rows.start])
            array.get_basic_selection((rows, slice(None)), out=out)
        pipe.send(True)


def sketch(source: Path, out: Path, workers: int) -> float:
    """Return the seconds of the first pass of a run on the present client."""
    settings = Settings.of(rank=10)
    run = run_source(source, out, settings, workers=workers, last="sketch", overwrite=True)
    return float(run.record["seconds"]["sketch"])


class Readers:
    """Processes that wait to be told to read their parts."""

    def __init__(self, source: Path, count: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        pipes = [spawn.Pipe() for _ in range(count)]
        with patch.dict(os.environ, CONFIG["distributed.nanny.pre-spawn-environ"]):
            for i, (_, theirs) in enumerate(pipes):
                spawn.Process(target=read, args=(source, i, count, count == 1, theirs), daemon=True).start()
        self._pipes = [ours for ours, _ in pipes]

    def seconds(self) -> float:
        """Let them read once; return how long it took."""
        start = time.perf_counter()
        for pipe in self._pipes:
            pipe.send(True)
        for pipe in self._pipes:
            pipe.recv()
        return time.perf_counter() - start

    def end(self) -> None:
        """Let them go."""
        for pipe in self._pipes:
            pipe.send(False)


def compare(source: Path, folder: Path, count: int, turns: int) -> float:
    """Return the median rate of the sketch pass on `count` processes over that of bare reads by as many."""
    size = zarr.open_array(source).nbytes
    readers, ratios = Readers(source, count), []
    with dask.config.set(CONFIG):
        cluster = LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            worker_dashboard_address=None,
            memory_limit=0,
        )
    with cluster, Client(cluster) as client:
        if count == 1:
            client.run(os.sched_setaffinity, 0, CORE)
        for turn in range(turns + 1):
            bare, seconds = readers.seconds(), sketch(source, folder / "run", count)
            if turn:
                ratios.append(bare / seconds)
                rates = f"bare {size / 1e6 / bare:.0f} MB/s, sketch {size / 1e6 / seconds:.0f} MB/s"
                print(f"  {rates}, ratio {ratios[-1]:.2f}", flush=True)
    readers.end()
    return statistics.median(ratios)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", default="4GB", help="bytes of the data")
    parser.add_argument("--turns", type=int, default=7)
    asked = parser.parse_args()
    medians = {}
    with tempfile.TemporaryDirectory() as folder:
        source = plant(Path(folder), parse_bytes(asked.size) // (4 * COLUMNS))
        for count, name in ((2, "two workers against two readers"), (1, "one against one, on one core")):
            print(name)
            medians[name] = compare(source, Path(folder), count, asked.turns)
    for name, ratio in medians.items():
        print(
            f"{'ok    ' if ratio >= LEAST else 'FAILED'} {name}: median ratio {ratio:.2f} (at least {LEAST})"
        )
    sys.exit(not all(ratio >= LEAST for ratio in medians.values()))


if __name__ == "__main__":
    main()
