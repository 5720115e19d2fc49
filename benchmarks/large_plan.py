"""Large plans without their data: a million chunks, 100 TB, and the graphs of both passes for 1000 workers.

    python benchmarks/large_plan.py [--workers 1000] [--rate 300MB]

The arrays are metadata alone. Each is planned by `dcf plan` in a process of its own. Then the graphs of both
passes over the million chunks are made as a run makes them, and computed by a real scheduler of Dask, in this
process, with so many real workers, which share two other processes and two threads in each. Every task,
message, transfer and merge is real, over TCP. Only the leaves find their blocks in the journal, as in a run
that resumes, and what it holds of each is a sketch of few entries. Last comes the table of examples/scale,
worked out from the plans; `--rate` is what one worker is taken to decode and sketch a second.
"""

import argparse
import asyncio
import logging
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import zarr
from dask.utils import parse_bytes
from distributed import Client, Scheduler, Worker

from dcf.cluster.environment import CONFIG
from dcf.cluster.resident import peak_memory
from dcf.plan import Plan, make_plan
from dcf.refinement.alternating import empty_sums, refine
from dcf.settings import Settings
from dcf.sketch.compress import SketchRecipe, compress, empty_sketch
from dcf.sketch.projections import CountSketch, Folded, Role, SparseSign
from dcf.solvers.models import Nonnegative
from dcf.solvers.reduction import MOST_TASKS
from dcf.storage.arrays import create_array
from dcf.storage.journal import BlockJournal
from dcf.storage.source import ArraySource
from dcf.types import Block, Layout

RANK, WIDTH, CHUNKS, TINY = 10, 10_000, (400, 10_000), 3
CHUNK_BYTES = 4 * CHUNKS[0] * CHUNKS[1]
MEMORY = 4 << 30
FARMS = 2  # processes that the workers share
MOST_SECONDS, MOST_PLAN_SECONDS, MOST_PLAN_BYTES = 60.0, 10.0, 500e6
TB = 10**12
# What each of a thousand workers in one process would look at fifty times a second, or tell of the process.
QUIET = {
    "distributed.admin.tick.interval": "1h",
    "distributed.admin.system-monitor.interval": "1h",
    "distributed.worker.profile.enabled": False,
    "distributed.scheduler.worker-ttl": None,
}


def layout_of_size(size: int) -> Layout:
    """Return the layout of a matrix of so many bytes."""
    return Layout((size // (4 * WIDTH), WIDTH), CHUNKS, None, "float32")


def recipe_of(plan: Plan) -> SketchRecipe:
    """Return what the first pass of a run of this plan collects."""
    return SketchRecipe(
        seed=0,
        probe=CountSketch(0, plan.probe_size, role=Role.probe),
        sample_capacity=plan.sample_size + plan.held_out + 1,
        projection=None,
        span=Folded(0, plan.range_size),
        corange=SparseSign(0, plan.corange_size, 2, Role.corange),
        dtype=plan.dtype,
        negatives_allowed=False,
    )


def entry_bytes(plan: Plan) -> int:
    """Return the bytes that the journal keeps of a block of the first pass."""
    recipe = recipe_of(plan)
    kept = empty_sketch(recipe, plan.width).to_arrays(recipe.sample_capacity)
    return sum(values.nbytes for values in kept.values())


# ---------------------------------------------------------------------- planning


def plan_afresh(source: Path, workers: int) -> tuple[float, int]:
    """Return the seconds and the peak resident bytes of `dcf plan` in a process of its own."""
    words = ["plan", str(source), "--rank", str(RANK), "--workers", str(workers), "--memory", str(MEMORY)]
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "dcf", *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(process.returncode)
    return time.perf_counter() - start, usage.ru_maxrss * 1024


# ---------------------------------------------------------------------- the graphs of both passes


@dataclass(frozen=True)
class Finished(BlockJournal):
    """The journal of a pass whose blocks are all finished, each with next to nothing in it."""

    entry: dict[str, Any] = field(default_factory=dict)
    """what it holds of every block"""

    def load(self, block: Block) -> dict[str, Any]:
        """Return a copy of the entry."""
        return {name: values.copy() for name, values in self.entry.items()}


def graphs(folder: Path, source: Path, plan: Plan) -> dict[str, Any]:
    """Return the graph of each pass, with the arguments that a run gives it."""
    data = ArraySource(
        zarr.open_array(source),
        plan.axis,
        plan.stripe_rows,
        plan.tile_rows,
        plan.chunks_in_flight,
        plan.dtype,
    )
    group, recipe = zarr.create_group(folder / "run"), recipe_of(plan)
    shape = (plan.rows, plan.range_size)
    rows = create_array(group, "rows", shape, (plan.range_chunk_rows, plan.range_size), plan.dtype)
    components = create_array(group, "H", (RANK, TINY), (RANK, TINY), "float64")
    components[:] = 0.0
    sketches = Finished(
        group, "run", rows, plan.range_chunk_rows, entry=empty_sketch(recipe, TINY).to_arrays(0)
    )
    sums = Finished(group, "run", rows, plan.refine_block_rows, entry=empty_sums(RANK, TINY).to_arrays())
    exact = (data, Nonnegative(), components, None, plan.dtype, sums, plan.refine_blocks, plan.workers)
    return {
        "sketch": compress(data, recipe, sketches, plan.sketch_blocks, plan.workers),
        "refine": refine(*exact),
    }


PLACE = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0"}


def serve(address: str, count: int) -> None:
    """Be so many workers of the scheduler at `address`, until this process is ended."""
    logging.disable()  # of event loops that have a thousand workers to serve
    threads = ThreadPoolExecutor(2)

    async def start() -> None:
        started: list[Worker] = []
        for first in range(0, count, 50):
            some = [
                Worker(address, nthreads=1, memory_limit=0, executor=threads, **PLACE)
                for _ in range(first, min(first + 50, count))
            ]
            started += await asyncio.gather(*some)
        await asyncio.gather(*(worker.finished() for worker in started))

    with dask.config.set({**CONFIG, **QUIET}):
        asyncio.run(start())


async def compute(passes: dict[str, Any], workers: int) -> list[float]:
    """Compute each graph on a scheduler of this process; return the seconds of each."""
    seconds = []
    async with Scheduler(port=0, **PLACE) as scheduler:
        spawn = multiprocessing.get_context("spawn")
        parts = [workers // FARMS + (i < workers % FARMS) for i in range(FARMS)]
        farms = [spawn.Process(target=serve, args=(scheduler.address, n), daemon=True) for n in parts]
        for farm in farms:
            farm.start()
        async with Client(scheduler.address, asynchronous=True) as client:
            await client.wait_for_workers(workers)
            for name, graph in passes.items():
                memory, cpu, start = peak_memory(), time.process_time(), time.perf_counter()
                await client.compute(graph)
                seconds.append(time.perf_counter() - start)
                busy = f"scheduler and client busy for {time.process_time() - cpu:.1f} s of it"
                more = f"{(peak_memory() - memory) / 1e6:.0f} MB more"
                print(f"{name}: {workers} workers, {seconds[-1]:.1f} s, {busy}, {more}", flush=True)
        for farm in farms:
            farm.terminate()
            farm.join()
    return seconds


# ---------------------------------------------------------------------- on paper


def table(rate: float) -> None:
    """Print what runs of 1, 10 and 100 TB take, by their plans."""
    columns = "data", "workers", "chunks", "blocks", "tasks", "read", "Z", "journal", "W", "hours"
    print(" | ".join(f"{name:>9}" for name in columns))
    for size, workers in ((TB, 10), (10 * TB, 100), (100 * TB, 100), (100 * TB, 1000)):
        layout = layout_of_size(size)
        plan = make_plan(layout, Settings.of(rank=RANK), MEMORY, workers)
        blocks = len(plan.sketch_blocks)
        # The last worker decides: each has as many blocks as the others, or one less.
        rounds = sum(
            -(-count // workers) * rows * plan.width * 4
            for count, rows in (
                (blocks, plan.sketch_block_rows),
                (len(plan.refine_blocks), plan.refine_block_rows),
            )
        )
        cells = (
            f"{size // TB} TB",
            f"{workers}",
            f"{layout.nbytes // CHUNK_BYTES}",
            f"{blocks} {len(plan.refine_blocks)}",
            f"{plan.tasks['sketch']} {plan.tasks['refine']}",
            f"{plan.bytes_to_read / TB:.0f} TB",
            f"{plan.range_bytes / 1e9:.0f} GB",
            f"{blocks * entry_bytes(plan) / 1e9:.0f} GB",
            f"{plan.rows * RANK * 4 / 1e9:.0f} GB",
            f"{rounds / rate / 3600:.1f}",
        )
        print(" | ".join(f"{cell:>9}" for cell in cells))


def main() -> None:
    logging.disable()
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--rate", default="300MB", help="bytes that a worker decodes and sketches a second")
    asked = parser.parse_args()
    checks = []
    with tempfile.TemporaryDirectory() as name, dask.config.set({**CONFIG, **QUIET}):
        folder = Path(name)
        for size in (16 * TB, 100 * TB):
            layout, source = layout_of_size(size), folder / f"{size // TB}.zarr"
            array = zarr.create_array(source, shape=layout.shape, chunks=CHUNKS, dtype="float32")
            seconds, peak = plan_afresh(source, asked.workers)
            what = (
                f"{size // TB} TB in {array.nchunks} chunks: planned in {seconds:.1f} s, {peak / 1e6:.0f} MB"
            )
            checks.append((what, seconds <= MOST_PLAN_SECONDS and peak <= MOST_PLAN_BYTES))
        plan = make_plan(layout_of_size(16 * TB), Settings.of(rank=RANK), MEMORY, asked.workers)
        start = time.perf_counter()
        passes = graphs(folder, folder / "16.zarr", plan)
        made = time.perf_counter() - start
        for name, graph in passes.items():
            tasks = dict(graph.__dask_graph__())
            whole = len(cloudpickle.dumps(tasks))
            leaf = max(len(cloudpickle.dumps(task)) for key, task in tasks.items() if "subtree" in str(key))
            leaves = sum("subtree" in str(key) for key in tasks)
            sizes = f"{whole / 1e6:.2f} MB pickled at once, a leaf {leaf / 1e3:.0f} kB alone"
            print(f"{name}: {leaves} leaves, {len(tasks)} tasks, {sizes}")
            checks.append(
                (
                    f"{name}: {leaves} leaves (at most {MOST_TASKS} a worker)",
                    leaves <= MOST_TASKS * plan.workers,
                )
            )
        for name, seconds in zip(passes, asyncio.run(compute(passes, asked.workers)), strict=True):
            whole_time = made + seconds
            checks.append((f"{name}: built and computed in {whole_time:.1f} s", whole_time <= MOST_SECONDS))
    for sentence, holds in checks:
        print(f"{'ok    ' if holds else 'FAILED'} {sentence}")
    table(parse_bytes(asked.rate))
    sys.exit(not all(holds for _, holds in checks))


if __name__ == "__main__":
    main()
