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
from dcf.sketch.kernels import look_at, sketch_panel
from dcf.sketch.projections import Product, row_sums
from dcf.sketch.range import meet, triangle
from dcf.sketch.rows import RowSample, RowSampler
from dcf.solvers.blocks import finished_blocks
from dcf.solvers.reduction import fold, subtree_size
from dcf.solvers.shared import block_task
from dcf.solvers.sums import REACH
from dcf.types import (
    Arrays,
    Block,
    BlockSource,
    Float64,
    Index,
    Journal,
    Panels,
    Projection,
    Real,
    Statistics,
)

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


class _Collector:
    """What the rows of a block have given so far."""

    def __init__(self, source: BlockSource, recipe: SketchRecipe, bound: float) -> None:
        width, dtype = recipe.width(source), recipe.dtype
        self._source, self._recipe = source, recipe
        self._reach = float(np.sqrt(REACH[dtype][1]))
        self.product = recipe.span.product(width, dtype) if recipe.span else Product.none(width, dtype)
        self.sketch = empty_sketch(recipe, width)
        self.sampler = RowSampler(recipe.seed, recipe.sample_capacity, width, np.dtype(dtype), bound)
        self.least, self.most = unseen(source.width, dtype)
        self.squared_norm, self.zeros = 0.0, 0

    def add(self, panels: Panels, start: int, z: Real) -> None:
        """Take all sketches of the rows start … start + b of M; write theirs of Z (b, q) to `z`."""
        recipe, sketch = self._recipe, self.sketch
        norms, folded = np.zeros(len(z)), self.product.sums(len(z))
        if recipe.columns is None:
            part, norms_of_part = panels, norms
            self.zeros += self._scatter(part, start, folded, norms, self.least, self.most)
        else:
            self.zeros += sum(look_at(panel, i, norms, self.least, self.most) for i, panel in panels)
            whole = np.concatenate([panel for _, panel in panels], axis=1)
            part, norms_of_part = ((0, cast("Real", whole.take(recipe.columns, axis=1))),), np.zeros(len(z))
            self._scatter(part, start, folded, norms_of_part, *unseen(len(recipe.columns), recipe.dtype))
        low, high = float(self.least.min()), float(self.most.max())
        if not np.isfinite(norms).all() or (low < 0.0 and not recipe.negatives_allowed):
            refuse_bad_entry(self._source, recipe.negatives_allowed, panels, start)
        if max(-low, high) > self._reach:
            raise ScaleError(max(-low, high))
        self.squared_norm += float(norms.sum())
        self.product.mix(part, folded, z)
        if recipe.mean_of == "columns":
            for first, panel in part:
                sketch.means[first : first + panel.shape[1]] += panel.sum(axis=0, dtype=np.float64)
        elif recipe.mean_of == "rows":
            sketch.means[:] += float(np.square(row_sums(part)).sum()) / sketch.probe.shape[1]
        if recipe.sample_capacity:
            self.sampler.offer(part, norms_of_part, start)

    def _scatter(
        self, panels: Panels, start: int, folded: Real, norms: Float64, least: Real, most: Real
    ) -> int:
        """Add rows to the sparse sketches, and what they are to the rest; return their zeros."""
        rows, product = len(folded), self.product
        probe, compressed, corange = (
            projection.scattered(start, start + rows, out) if projection else nothing_scattered(rows, out)
            for projection, out in (
                (self._recipe.probe, self.sketch.probe),
                (self._recipe.projection, self.sketch.compressed),
                (self._recipe.corange, self.sketch.corange),
            )
        )
        zeros = 0
        for first, panel in panels:
            found = norms, least, most, probe, compressed, corange
            zeros += sketch_panel(panel, first, *found, product.sign, product.size, folded)
        return zeros


def compress_block(
    source: BlockSource, recipe: SketchRecipe, block: Block, bound: float = np.inf
) -> tuple[Sketch, Real]:
    """Read the rows of `block` once; return their sketch and their rows of Z = M Ω (b, q).

    bound : no row with a key from there on will be in the sample of the whole. Raises `SourceError` at the
    first NaN, Inf or (unless allowed) negative entry, `ScaleError` for one too large to multiply.
    """
    taken = _Collector(source, recipe, bound)
    z = cast("Real", np.empty((block.stop - block.start, taken.product.matrix.shape[1]), recipe.dtype))
    absent: set[str] = set()
    for start, panels in source.panels(block.start, block.stop, absent):
        first = start - block.start
        taken.add(panels, start, z[first : first + len(panels[0][1])])
    if absent and not recipe.absence_allowed:
        more = f" (and {len(absent) - 1} more of the same rows)" if len(absent) > 1 else ""
        raise SourceError(
            f"SOURCE lacks the chunk {min(absent)}{more}, which would read as its fill value;"
            " restore it, or use --missing-chunks report if it is meant to be empty."
        )
    statistics = Statistics(
        taken.squared_norm,
        float(taken.least.min()),
        taken.zeros,
        len(absent),
        source.decoded_bytes(block.start, block.stop),
        float(taken.most.max()),
    )
    complete = replace(
        taken.sketch, statistics=statistics, sample=taken.sampler.sample(), triangle=triangle(z)
    )
    return complete, z


def unseen(width: int, dtype: str) -> tuple[Real, Real]:
    """Return the least and the greatest entry (m,) of columns of which nothing has been seen."""
    return cast("Real", np.full(width, np.inf, dtype)), cast("Real", np.full(width, -np.inf, dtype))


def nothing_scattered(rows: int, out: Real) -> tuple[Index, Real, Real]:
    """Return what a kernel needs of a sketch that was not asked for."""
    return np.empty((rows, 0), np.int64), cast("Real", np.empty((rows, 0), out.dtype)), out


def refuse_bad_entry(source: BlockSource, negatives_allowed: bool, panels: Panels, start: int) -> None:
    """Raise `EntryError` for the first entry of the rows that cannot be factorized, else `ScaleError`."""
    tile = np.concatenate([panel for _, panel in panels], axis=1)
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
    workers: int,
) -> Any:
    """Return the Dask graph (a Delayed `Sketch`) of the whole pass.

    The rows of Z go to the journal, block by block. What it holds already is loaded, not read again.
    """
    size = subtree_size(len(blocks), workers)
    task = delayed(partial(compress_subtree, source, recipe, journal), pure=False)
    roots = [task(tuple(blocks[i : i + size])) for i in range(0, len(blocks), size)]
    return fold(roots, delayed(partial(Sketch.merge, capacity=recipe.sample_capacity), pure=False))
