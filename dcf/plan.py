"""Shapes and a budget → a plan: pure integer arithmetic, no chunk read.

What decides the bits of a result (blocks, stripes, tiles, sketch sizes) follows from the layout
and the settings alone. Memory and workers decide only whether the plan fits, how many chunks
are in flight and how many blocks a task owns.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dcf.errors import BudgetError, UsageError
from dcf.settings import IN_MEMORY
from dcf.sizes import (
    CARRIED_ON,
    MIB,
    MOST_CHUNKS_ASKED_FOR,
    MOST_CHUNKS_IN_FLIGHT,
    carried_of,
    compressed_axes,
    decoding,
    largest_divisor,
    mean_of,
    mib,
    panel_rows,
    refuse_senseless_rank,
    sketch_sizes,
    slices_of,
)
from dcf.solvers.reduction import subtree_size
from dcf.types import Block, Layout

if TYPE_CHECKING:
    from collections.abc import Callable

    from dcf.settings import Settings

TILE_BYTES = 1 * MIB  # fits the second-level cache of a core beside its products
STRIPE_BYTES = 16 * MIB  # enough to hide the cost of a read call behind its decoding
BLOCK_BYTES = 64 * MIB  # least work of a block, so that its journal entry costs nothing
MOST_BLOCKS = 4096
READ_PER_JOURNAL_BYTE = 20
CHUNK_NOTES = 4096  # what Zarr remembers of a chunk while it reads a stripe of them
SLICE_ROWS = 8192  # of Z that are worked on at once
RANGE_CHUNK_BYTES = 4 * MIB  # of Z: a file costs as much as a megabyte
CHUNKS_OF_RANGE = 10  # of Z that Zarr reads at once, by its own default
PROBE_SIZE = 256
CORANGE_BYTES = 2 * MIB  # l as large as this lets it be, between 2q + 1 and 6q
MOST_SWEEPS = 40
# A process with its kernels before its first block (benchmarks/baseline_memory.py), rounded up.
WORKER_BASE = 256 * MIB
DRIVER_BASE = 320 * MIB


@dataclass(frozen=True)
class Plan:
    """All the integers of a run: sizes in entries, memory and reading in bytes."""

    method: str
    """the route to H; auto where the evidence of the first pass is to choose it"""
    axis: int
    """the compressed axis of the source"""
    rows: int
    """n, entries along it"""
    width: int
    """m, entries of the other axes together"""
    others: tuple[int, ...]
    """entries along each of the other axes, in their order"""
    slices: tuple[int, ...]
    """entries along each of them that the sketches see: all, or a sample of a tensor's second modes"""
    rank: int
    """r, components"""
    carried: int
    """components that the passes carry: r, and for an SVD some to spare"""
    dtype: str
    """of tiles and factors"""
    sketch_size: int
    """d, rows of P; 0 where no one-sided sketch is taken"""
    sample_size: int
    """s, rows of the sample that is fitted; 0 where none is taken"""
    held_out: int
    """sampled rows kept out of the fit, on which candidates for H are compared"""
    range_size: int
    """q, columns of Z = M Ω; 0 where no range sketch is taken"""
    corange_size: int
    """l, rows of X = Ψ M; 0 where no range sketch is taken"""
    most_sweeps: int
    """most times that the factorization goes over Z, n q numbers each"""
    probe_size: int
    """t, rows of the probe"""
    stripe_rows: int
    """rows read at once"""
    tile_rows: int
    """rows of a tile, the unit of arithmetic"""
    sketch_block_rows: int
    """rows of a block of the sketch pass"""
    range_chunk_rows: int
    """rows of a chunk of Z, which divide a block of the sketch pass"""
    refine_block_rows: int
    """rows of a block of a refine pass, and of a chunk of the factor"""
    passes: int
    """times that every chunk is decoded"""
    bytes_to_read: int
    """decoded bytes of all passes together"""
    tasks: dict[str, int]
    """Dask tasks of each stage that reads or writes blocks"""
    saves_behind: bool
    """whether a block is saved while the next is read, which takes the memory of one more"""
    chunks_in_flight: int
    """chunks being decoded at once in a worker"""
    worker_bytes: int
    """predicted peak memory of a worker"""
    driver_bytes: int
    """predicted peak memory of the driver"""
    out_bytes: int
    """bytes that OUT takes at its largest, before what lies between is deleted"""
    memory: int
    """the budget of each of them"""
    workers: int
    """workers that the tasks are cut for"""

    @property
    def sketch_blocks(self) -> tuple[Block, ...]:
        """The blocks of the sketch pass, in order."""
        return blocks_of(self.rows, self.sketch_block_rows)

    @property
    def refine_blocks(self) -> tuple[Block, ...]:
        """The blocks of a refine pass, in order."""
        return blocks_of(self.rows, self.refine_block_rows)

    @property
    def sketch_width(self) -> int:
        """Entries of a row that the sketches see."""
        return math.prod(self.slices)

    @property
    def range_bytes(self) -> int:
        """Bytes of Z (n, q) in the run group."""
        return self.rows * self.range_size * np.dtype(self.dtype).itemsize

    def record(self) -> dict[str, Any]:
        """Return the plan as JSON."""
        return asdict(self)


def blocks_of(rows: int, block_rows: int) -> tuple[Block, ...]:
    """Cut `rows` into blocks of `block_rows`, the last one shorter."""
    starts = range(0, rows, block_rows)
    return tuple(Block(i, start, min(start + block_rows, rows)) for i, start in enumerate(starts))


def make_plan(
    layout: Layout,
    settings: Settings,
    memory: int,
    workers: int,
    threads: int = 1,
    in_driver: bool = False,
    mapped: int = 0,
) -> Plan:
    """Plan a run of `workers` tasks at once, `threads` of them in a process, or refuse it.

    `in_driver` says that they are threads of the driver, whose memory is then one with theirs; `mapped`
    are bytes of shared libraries that a process here has resident beyond those that the bases count.
    Raises `UsageError` where rank or sketch size make no sense for the shape, `BudgetError`
    where the predicted peak of a worker or of the driver exceeds `memory` bytes.
    """
    place = (memory, workers, threads, in_driver, mapped)
    plan = _planned(layout, settings, *place, behind=True)[0]
    if max(plan.worker_bytes, plan.driver_bytes) <= memory:
        return plan
    plan, stage, parts = _planned(layout, settings, *place)
    if max(plan.worker_bytes, plan.driver_bytes) <= memory:
        return plan

    def fits(sketch_size: int) -> bool:
        smaller = _planned(layout, replace(settings, sketch_size=sketch_size), *place)[0]
        return max(smaller.worker_bytes, smaller.driver_bytes) <= memory

    raise _refusal(plan, layout, stage, parts, mapped, lambda: _largest_that_fits(plan, settings, fits))


def _largest_that_fits(plan: Plan, settings: Settings, fits: Callable[[int], bool]) -> int:
    """Return the largest sketch size that fits, found by bisection; 0 where none does."""
    least = max(settings.rank, settings.nnz_per_column if plan.sketch_size else 1)
    most = plan.sketch_size or plan.sample_size
    if most <= least or not fits(least):
        return 0
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if fits(middle) else (least, middle)
    return least


def _planned(
    layout: Layout,
    settings: Settings,
    memory: int,
    workers: int,
    threads: int,
    in_driver: bool,
    mapped: int,
    behind: bool = False,
) -> tuple[Plan, str, dict[str, int]]:
    """Return a plan, whether it fits or not, and the stage that needs most of a worker, part by part."""
    if workers < 1:
        raise UsageError(f"--workers is {workers}; it must be a whole number from 1 on.")
    axis, *sampled = compressed_axes(layout, settings)
    others = layout.shape[:axis] + layout.shape[axis + 1 :]
    rows, width = layout.shape[axis], math.prod(others)
    refuse_senseless_rank(layout, settings)
    method = settings.method
    slices = slices_of(axis, sampled, layout, settings)
    seen = math.prod(slices)
    d, s, held_out, q = sketch_sizes(rows, seen, layout, settings)
    carried = carried_of(axis, settings, q)
    computed = 8 if layout.compute_dtype == "float64" else 4
    corange = max(2 * q + 1, min(6 * q, CORANGE_BYTES // (computed * seen))) if q else 0

    row_bytes = width * layout.itemsize
    chunk_rows = min(layout.chunks[axis], rows)
    stored_rows = layout.shards[axis] if layout.shards else chunk_rows
    stripe_rows = chunk_rows * max(1, STRIPE_BYTES // (chunk_rows * row_bytes))
    stripe_rows = min(stripe_rows, -(-rows // chunk_rows) * chunk_rows)
    tile_rows = max(8, TILE_BYTES // (width * computed))
    sample_bytes = (s + held_out + 1) * (seen * computed + 16) if s else 0
    sketch_bytes = 8 * (seen * (PROBE_SIZE + d) + q * q) + computed * seen * corange + sample_bytes
    sums_bytes = 8 * carried * (width + carried)
    sketch_block_rows = _block_rows(rows, row_bytes, stored_rows, sketch_bytes)
    range_chunk_rows = stored_rows * largest_divisor(
        sketch_block_rows // stored_rows, RANGE_CHUNK_BYTES // (max(q, 1) * computed * stored_rows)
    )
    refine_block_rows = _block_rows(rows, row_bytes, stored_rows, sums_bytes)

    sketch_blocks, refine_blocks = -(-rows // sketch_block_rows), -(-rows // refine_block_rows)
    sketch_tasks = -(-sketch_blocks // subtree_size(sketch_blocks, workers))
    # Nodes of the whole tree: a worker may hold the roots of tasks that wait for their partners.
    sketch_depth, refine_depth = (sketch_blocks - 1).bit_length(), (refine_blocks - 1).bit_length()
    chunks_of_stripe, stripe_bytes, in_flight_bytes = decoding(layout, axis, stripe_rows)
    tile_bytes = tile_rows * width * computed
    panel_bytes = panel_rows(tile_rows, width * computed) * width * computed
    reading = stripe_bytes + in_flight_bytes + chunks_of_stripe * CHUNK_NOTES
    factor_bytes = refine_block_rows * carried * computed
    # The journal pads the sample, and Zarr writes an array through two copies.
    journal_bytes = sample_bytes + 3 * max(sample_bytes, 8 * seen * max(PROBE_SIZE, d))
    # A node a level, the one in hand, one not given back (benchmarks/memory.py); for the one saved, two more.
    held_bytes = (sketch_depth + (4 if behind else 2)) * sketch_bytes
    saved_bytes = journal_bytes if behind else max(2 * sketch_bytes, journal_bytes)
    z_rows = (2 if behind else 1) * sketch_block_rows + 3 * range_chunk_rows
    slice_bytes = 32 * q * min(SLICE_ROWS, sketch_block_rows)
    stages: dict[str, dict[str, int]] = {
        "sketch": {
            "data": reading + 2 * panel_bytes + 2 * tile_bytes,  # where converted, and folded
            "sketch": held_bytes + saved_bytes,
            "range": q * computed * (z_rows + 5 * seen) + slice_bytes,
        },
        "refine": {
            "data": reading + 8 * tile_bytes,
            "factors": (5 if behind else 4) * factor_bytes + (refine_depth + 6) * sums_bytes,
        },
        "scale": {"factors": 9 * factor_bytes},
    }
    if d:
        stages["recover"] = {"column": rows * (24 * settings.nnz_per_column + 72)}
    sweeps = q > 0 and settings.decomposition in CARRIED_ON
    if q:
        swept = sketch_block_rows * computed * (2 * q + 3 * carried) + 2 * slice_bytes
        chunks = q * computed * min(2 * CHUNKS_OF_RANGE * range_chunk_rows, 2 * sketch_block_rows)
        stages["sweep"] = {"range": swept + chunks + (sketch_depth + 6) * sums_bytes}
    if method in IN_MEMORY:
        if method == "full":
            del stages["sketch"]
        # Singular vectors come from the square of the matrix, in float64.
        squares = settings.decomposition in ("svd", "spca")
        exact = 8 * (rows * width + 2 * min(rows, width) ** 2) if squares else 0
        exact += rows * width * computed if mean_of(axis, settings) == "rows" else 0  # M less its means
        dense = rows * width * computed + 64 * rows * settings.rank + reading
        driver = DRIVER_BASE + mapped + dense + exact + 2 * sketch_bytes + 32 * MIB
    else:
        factorized = max(2 * d, 3 * (s + held_out) + 3 * q + corange)
        # Beside the rows, a few factors as long as they are: they count where the rank is near the width.
        workspace = 8 * (factorized * (seen + 3 * settings.rank) + 8 * width * carried)
        driver = DRIVER_BASE + mapped + 2 * sketch_bytes + workspace
    needs = {stage: sum(parts.values()) for stage, parts in stages.items()}
    largest = max(needs, key=lambda stage: needs[stage])
    base = driver if in_driver else WORKER_BASE + mapped
    readers = max(needs[stage] for stage in ("sketch", "refine") if stage in needs)
    spare = ((memory - base) // threads - readers) // in_flight_bytes
    # Of a shard, that many chunks again would be in flight at once.
    most = MOST_CHUNKS_ASKED_FOR if layout.remote and not layout.shards else MOST_CHUNKS_IN_FLIGHT
    in_flight = max(1, min(most, 1 + spare, chunks_of_stripe))
    worker = base + threads * max(needs[largest], readers + (in_flight - 1) * in_flight_bytes)
    if in_driver:
        driver = worker
    passes = 1 + settings.refine
    journal = max(sketch_blocks * sketch_bytes, refine_blocks * sums_bytes)
    journal += rows * computed * (width if method == "recover-factorize" else settings.rank) if d else 0
    plan = Plan(
        method=method,
        axis=axis,
        rows=rows,
        width=width,
        others=others,
        slices=slices,
        rank=settings.rank,
        carried=carried,
        dtype=layout.compute_dtype,
        sketch_size=d,
        sample_size=s,
        held_out=held_out,
        range_size=q,
        corange_size=corange,
        most_sweeps=min(MOST_SWEEPS, settings.max_iter) if sweeps else 0,
        probe_size=PROBE_SIZE,
        stripe_rows=stripe_rows,
        tile_rows=tile_rows,
        sketch_block_rows=sketch_block_rows,
        range_chunk_rows=range_chunk_rows,
        refine_block_rows=refine_block_rows,
        passes=passes,
        bytes_to_read=passes * rows * row_bytes,
        tasks={
            "sketch": 0 if method == "full" else sketch_tasks,
            "sweep": sketch_tasks if sweeps else 0,
            "recover": (width if method == "recover-factorize" else settings.rank if d else 0)
            + (sketch_tasks if q and not settings.refine else 0),
            "refine": settings.refine * -(-refine_blocks // subtree_size(refine_blocks, workers)),
        },
        saves_behind=behind,
        chunks_in_flight=in_flight,
        worker_bytes=worker,
        driver_bytes=driver,
        out_bytes=journal + rows * computed * (q + 2 * carried),
        memory=memory,
        workers=workers,
    )
    return plan, largest, stages[largest]


def _block_rows(rows: int, row_bytes: int, stored_rows: int, journal_bytes: int) -> int:
    """Return the rows of a block: whole chunks (or shards), where there are many a multiple of many of them.

    Enough reading to pay for its journal entry, and about a power of two of blocks, so that they
    share out evenly.
    """
    least = max(READ_PER_JOURNAL_BYTE * journal_bytes, BLOCK_BYTES, rows * row_bytes // MOST_BLOCKS)
    count = max(1, rows * row_bytes // least)
    count = 1 << (count.bit_length() - 1)
    block, step = -(-rows // count), stored_rows
    while 16 * step <= block:
        step *= 2
    return min(-(-block // step) * step, -(-rows // stored_rows) * stored_rows)


def _refusal(
    plan: Plan,
    layout: Layout,
    stage: str,
    parts: dict[str, int],
    mapped: int,
    smaller_sketch: Callable[[], int],
) -> BudgetError:
    """Return the sentence for a plan that does not fit: who needs how much, and which number to change."""

    def lower_sketch() -> str:
        now, fit = plan.sketch_size or plan.sample_size, smaller_sketch()
        return f", or lower --sketch-size (now {now}; {fit} fit)" if fit else ""

    if plan.worker_bytes > plan.memory:
        who, need, base = f"A worker in the {stage} stage", plan.worker_bytes, WORKER_BASE + mapped
        advice = f" (a worker process alone takes {mib(base)})"
        if plan.memory >= base:
            part = max(parts, key=lambda part: parts[part])
            advice = {
                "data": ", store the data in smaller chunks (now"
                f" {' x '.join(map(str, layout.chunks))}, read in rows of chunks over the full width), or try"
                f" another --axis (now {plan.axis})",
                "factors": ", or lower --rank",
                "range": ", or lower --rank",
                "column": ", or use --method range",
            }.get(part) or lower_sketch()
    else:
        who, need, base = f"The driver of method {plan.method}", plan.driver_bytes, DRIVER_BASE + mapped
        advice = f" (the driver process alone takes {mib(base)})"
        if plan.memory >= base:
            advice = ", or use --method auto" if plan.method in IN_MEMORY else lower_sketch()
    return BudgetError(
        f"{who} needs {mib(need)}, --memory allows {mib(plan.memory)}:"
        f" raise --memory to {mib(max(plan.worker_bytes, plan.driver_bytes))}{advice}."
    )
