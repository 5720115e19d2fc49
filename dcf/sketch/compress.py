"""Compress: the one pass that decodes every chunk once and takes all sketches from it.

Step 1 of Compressed Factorization (Sharan et al. 2019, Algorithm 1: ``M̃ = P M``), together
with the row sample, the two-sided range sketch, the probe and the statistics, as a Dask graph of
block tasks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from dask.delayed import delayed

from dcf.errors import EntryError, ScaleError, SourceError
from dcf.sketch.kernels import look_at
from dcf.sketch.range import meet, triangle
from dcf.sketch.rows import RowSample, RowSampler
from dcf.solvers.blocks import finished_blocks
from dcf.solvers.reduction import fold, subtree_size
from dcf.solvers.shared import block_task
from dcf.solvers.sums import REACH, squared_row_norms
from dcf.types import Arrays, Block, BlockSource, Float64, Index, Journal, Projection, Real, Statistics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dcf.sketch.projections import Folded


@dataclass(frozen=True)
class SketchRecipe:
    """What the pass collects; it pickles to bytes, but for the columns where it sees a part of them."""

    seed: int
    """of the run"""
    probe: Projection
    """S, independent of everything else"""
    sample_capacity: int
    """s + 1 rows kept, or 0 for no sample"""
    projection: Projection | None
    """P, or None for no one-sided sketch"""
    span: Folded | None
    """Ω (m, q), or None for no range sketch"""
    corange: Projection | None
    """Ψ (l, n), or None for no range sketch"""
    dtype: str
    """of the tiles and the sampled rows: float32 or float64"""
    negatives_allowed: bool
    """whether an entry below zero is data or an error"""
    absence_allowed: bool = True
    """whether an absent chunk is data (the fill value) or an error"""
    mean_of: str = "no"
    """whose means will be taken out of M: no, its columns' or its rows'"""
    columns: Index | None = None
    """the columns of M that the sketches see; all where None"""

    def width(self, source: BlockSource) -> int:
        """Return how many columns the sketches see."""
        return source.width if self.columns is None else len(self.columns)


@dataclass(frozen=True)
class Sketch:
    """All that one pass took of some rows."""

    statistics: Statistics
    """norm, minimum, zeros, absent chunks, bytes"""
    probe: Float64
    """S M (t, m)"""
    sample: RowSample
    """rows of smallest keys, at most `sample_capacity`"""
    compressed: Float64
    """M̃ = P M (d, m); d = 0 where it was not asked for"""
    corange: Real
    """X = Ψ M (l, m), in the precision of Z, its partner; l = 0 where it was not asked for"""
    triangle: Float64
    """R (q, q) with RᵀR = ZᵀZ, Z = M Ω; q = 0 where it was not asked for"""
    means: Float64
    """1ᵀM (m,) where means of columns are to be taken out, ‖M 1‖²/m (1,) where those of rows; else (0,)"""

    def merge(self, other: Sketch, capacity: int) -> Sketch:
        """Return the sketch of both parts: linear parts add, samples and triangles meet."""
        return Sketch(
            self.statistics.merge(other.statistics),
            self.probe + other.probe,
            self.sample.merge(other.sample, capacity),
            self.compressed + other.compressed,
            cast("Real", self.corange + other.corange),
            meet(self.triangle, other.triangle),
            self.means + other.means,
        )

    def to_arrays(self, capacity: int) -> dict[str, NDArray[Any]]:
        """Return the arrays that a journal stores, the sample padded to `capacity` rows."""
        sample, pad = self.sample, capacity - len(self.sample.keys)
        return {
            "probe": self.probe,
            "sample_keys": np.pad(sample.keys, (0, pad), constant_values=np.inf),
            "sample_index": np.pad(sample.index, (0, pad)),
            "sample_rows": np.pad(sample.rows, ((0, pad), (0, 0))),
            "compressed": self.compressed,
            "corange": self.corange,
            "triangle": self.triangle,
            "means": self.means,
            "statistics": self.statistics.to_vector(),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> Sketch:
        """Read them back."""
        kept = int(np.isfinite(arrays["sample_keys"]).sum())
        return cls(
            Statistics.from_vector(arrays["statistics"]),
            arrays["probe"],
            RowSample(
                arrays["sample_keys"][:kept], arrays["sample_index"][:kept], arrays["sample_rows"][:kept]
            ),
            arrays["compressed"],
            arrays["corange"],
            arrays["triangle"],
            arrays["means"],
        )


def empty_sketch(recipe: SketchRecipe, width: int) -> Sketch:
    """Return the sketch of no rows of width m: the neutral element of `merge`."""
    d, q, size = (p.sketch_size if p else 0 for p in (recipe.projection, recipe.span, recipe.corange))
    return Sketch(
        Statistics(),
        np.zeros((recipe.probe.sketch_size, width)),
        RowSample(np.empty(0), np.empty(0, np.int64), np.empty((0, width), recipe.dtype)),
        np.zeros((d, width)),
        cast("Real", np.zeros((size, width), recipe.dtype)),
        np.zeros((q, q)),
        np.zeros({"no": 0, "columns": width, "rows": 1}[recipe.mean_of]),
    )


def compress_block(
    source: BlockSource, recipe: SketchRecipe, block: Block, bound: float = np.inf
) -> tuple[Sketch, Real]:
    """Read the rows of `block` once; return their sketch and their rows of Z = M Ω (b, q).

    bound : no row with a key from there on will be in the sample of the whole. Raises `SourceError` at the
    first NaN, Inf or (unless allowed) negative entry, `ScaleError` for one too large to multiply.
    """
    width, whole = recipe.width(source), source.width
    sketch = empty_sketch(recipe, width)
    sampler = RowSampler(recipe.seed, recipe.sample_capacity, width, np.dtype(recipe.dtype), bound)
    multiply = recipe.span.product(width, recipe.dtype) if recipe.span else None
    q = recipe.span.sketch_size if recipe.span else 0
    z = cast("Real", np.empty((block.stop - block.start, q), recipe.dtype))
    least = cast("Real", np.full(whole, np.inf, recipe.dtype))
    most = cast("Real", np.full(whole, -np.inf, recipe.dtype))
    squared_norm, zeros = 0.0, 0
    absent: set[str] = set()
    reach = float(np.sqrt(REACH[recipe.dtype][1]))
    for start, tile in source.tiles(block.start, block.stop, absent):
        norms = np.empty(len(tile))
        zeros += look_at(tile, norms, least, most)
        low, high = float(least.min()), float(most.max())
        if not np.isfinite(norms).all() or (low < 0.0 and not recipe.negatives_allowed):
            refuse_bad_entry(source, recipe.negatives_allowed, tile, start)
        if max(-low, high) > reach:
            raise ScaleError(max(-low, high))
        squared_norm += float(norms.sum())
        if recipe.columns is not None:
            tile = cast("Real", np.ascontiguousarray(tile[:, recipe.columns]))
            squared_row_norms(tile, norms)
        recipe.probe.accumulate(tile, start, sketch.probe)
        if recipe.projection is not None:
            recipe.projection.accumulate(tile, start, sketch.compressed)
        if recipe.corange is not None:
            recipe.corange.accumulate(tile, start, sketch.corange)
        if multiply is not None:
            multiply(tile, z[start - block.start : start - block.start + len(tile)])
        if recipe.mean_of == "columns":
            sketch.means[:] += tile.sum(axis=0, dtype=np.float64)
        elif recipe.mean_of == "rows":
            sketch.means[:] += float(np.square(tile.sum(axis=1, dtype=np.float64)).sum()) / tile.shape[1]
        if recipe.sample_capacity:
            sampler.offer(tile, norms, start)
    if absent and not recipe.absence_allowed:
        more = f" (and {len(absent) - 1} more of the same rows)" if len(absent) > 1 else ""
        raise SourceError(
            f"SOURCE lacks the chunk {min(absent)}{more}, which would read as its fill value;"
            " restore it, or use --missing-chunks report if it is meant to be empty."
        )
    statistics = Statistics(
        squared_norm,
        float(least.min()),
        zeros,
        len(absent),
        source.decoded_bytes(block.start, block.stop),
        float(most.max()),
    )
    complete = replace(
        sketch,
        statistics=statistics,
        sample=sampler.sample(),
        triangle=triangle(z),
    )
    return complete, z


def refuse_bad_entry(source: BlockSource, negatives_allowed: bool, tile: Real, start: int) -> None:
    """Raise `EntryError` for the first entry of `tile` that cannot be factorized, else `ScaleError`."""
    finite = np.isfinite(tile)
    good = finite if negatives_allowed else finite & ~(tile < 0.0)
    if good.all():
        raise ScaleError(float(np.abs(tile).max()))
    row, column = (int(i) for i in np.argwhere(~good)[0])
    where, entry = source.position(start + row, column), float(tile[row, column])
    if np.isnan(entry) or np.isinf(entry):
        raise EntryError(f"The entry at {where} is {entry}; dcf needs finite data. Clean it and run again.")
    raise EntryError(
        f"The entry at {where} is {entry:.6g}, below zero, which is refused where all factors are to be"
        " nonnegative or --negatives error is asked for. Use --negatives allow to fit it as it is"
        " (nonnegative factors stay so), or shift the data first."
    )


def compress_subtree(
    source: BlockSource, recipe: SketchRecipe, journal: Journal, blocks: Sequence[Block]
) -> Sketch:
    """Compress the blocks of one task in order, storing each, and return their merged sketch."""
    smallest = np.empty(0)  # keys so far, as many as a sample holds

    def bounded(sketch: Sketch) -> Sketch:
        nonlocal smallest
        smallest = np.sort(np.concatenate([smallest, sketch.sample.keys]))[: recipe.sample_capacity]
        return sketch

    def load(kept: dict[str, NDArray[Any]]) -> Sketch:
        return bounded(Sketch.from_arrays(kept))

    def make(block: Block) -> tuple[Sketch, Arrays, Real | None]:
        full = 0 < len(smallest) == recipe.sample_capacity
        sketch, z = compress_block(source, recipe, block, float(smallest[-1]) if full else np.inf)
        kept = bounded(sketch).to_arrays(recipe.sample_capacity)
        return sketch, kept, z if recipe.span else None

    with block_task():
        parts = finished_blocks(journal, blocks, load, make)
        return fold(parts, partial(Sketch.merge, capacity=recipe.sample_capacity))


def compress(
    source: BlockSource,
    recipe: SketchRecipe,
    journal: Journal,
    blocks: Sequence[Block],
    most_tasks: int,
) -> Any:
    """Return the Dask graph (a Delayed `Sketch`) of the whole pass.

    The rows of Z go to the journal, block by block. What it holds already is loaded, not read again.
    """
    size = subtree_size(len(blocks), most_tasks)
    task = delayed(partial(compress_subtree, source, recipe, journal), pure=False)
    roots = [task(tuple(blocks[i : i + size])) for i in range(0, len(blocks), size)]
    return fold(roots, delayed(partial(Sketch.merge, capacity=recipe.sample_capacity), pure=False))
