"""Refine: one exact step of alternating least squares a pass, as a Dask graph.

Per tile of rows, ``W_b = argmin_W ‖M_b − W H‖`` exactly; then, from sums over all rows,
``H⁺ = argmin_H ‖M − W H‖`` exactly, W and H from the sets of a `Model`. The sums are taken of the
residual R = M − W H and not of M, so that the error of the stored pair,

    ‖M − W H⁺‖² = ‖R‖² − 2 ⟨WᵀR, H⁺ − H⟩ + ⟨WᵀW (H⁺ − H), H⁺ − H⟩,

loses nothing to cancellation however small it is.

The same tasks sweep over the low-rank surrogate M̂ = Y V of a range sketch, whose rows are known
by their coordinates Y (Zhou, Cichocki & Xie 2012: lraNMF): there H is given by its coordinates
G = H Vᵀ and by H Hᵀ, which the part of H outside V has a share in.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from dask.delayed import delayed

from dcf.solvers.blocks import finished_blocks
from dcf.solvers.gram_nnls import inverse_gram
from dcf.solvers.reduction import fold, subtree_size
from dcf.solvers.shared import block_task
from dcf.solvers.sums import squared_row_norms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dcf.solvers.models import Model
    from dcf.types import Arrays, Block, BlockSource, Float64, Index, Journal, Projection, RowStore


@dataclass(frozen=True)
class Unjournalled:
    """The journal of a pass too short to be worth one."""

    behind = False

    def count(self) -> int:
        """Return 0."""
        return 0

    def save(self, block: Block, arrays: Arrays, rows: NDArray[Any] | None = None) -> None:
        """Keep nothing."""

    def load(self, block: Block) -> dict[str, NDArray[Any]] | None:
        """Return None: every block is to be done."""
        return None


@dataclass(frozen=True)
class RefineSums:
    """What a refine pass sums over rows; parts add."""

    gradient: Float64
    """WᵀR (r, m)"""
    gram: Float64
    """WᵀW (r, r)"""
    squared_residual: float
    """‖R‖²_F"""
    bytes_read: int
    """decoded bytes"""
    missing_chunks: int = 0
    """stored chunks that are absent and read as the fill value"""

    def merge(self, other: RefineSums) -> RefineSums:
        """Return the sums over both parts."""
        return RefineSums(
            self.gradient + other.gradient,
            self.gram + other.gram,
            self.squared_residual + other.squared_residual,
            self.bytes_read + other.bytes_read,
            self.missing_chunks + other.missing_chunks,
        )

    def linear(self, components: Float64) -> Float64:
        """Return WᵀM, the linear term of H's problem, for the H (or G) of the pass."""
        return self.gradient + self.gram @ components

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that a journal stores."""
        scalars = np.array([self.squared_residual, self.bytes_read, self.missing_chunks], np.float64)
        return {"gradient": self.gradient, "gram": self.gram, "scalars": scalars}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> RefineSums:
        """Read them back."""
        squared_residual, bytes_read, missing = arrays["scalars"]
        return cls(arrays["gradient"], arrays["gram"], float(squared_residual), int(bytes_read), int(missing))


@dataclass(frozen=True)
class Projected:
    """What a look at W alone tells of its error; parts add."""

    probe: Float64
    """S W (t, r)"""
    ones: Float64
    """S 1 (t, 1)"""
    gram: Float64
    """WᵀW (r, r)"""
    squared_residual: float
    """‖Y − W G‖²_F in the coordinates of a surrogate; 0 where there is none"""

    def merge(self, other: Projected) -> Projected:
        """Return the sums over both parts."""
        return Projected(
            self.probe + other.probe,
            self.ones + other.ones,
            self.gram + other.gram,
            self.squared_residual + other.squared_residual,
        )


def empty_sums(rank: int, width: int) -> RefineSums:
    """Return the sums over no rows."""
    return RefineSums(np.zeros((rank, width)), np.zeros((rank, rank)), 0.0, 0)


def refine_block(
    source: BlockSource,
    model: Model,
    components: Float64,
    gram: Float64 | None,
    dtype: str,
    block: Block,
    columns: Index | None = None,
) -> tuple[RefineSums, NDArray[Any]]:
    """Read the rows of `block` once; return their sums and their rows of W (b, r) in `dtype`.

    components : H (r, m), or its coordinates G (r, k) where `source` yields coordinates;
    gram : H Hᵀ (r, r), None where `components` is all of H; columns : where H is known for some
    columns of M alone, which: W is solved from these, and the sums are those of M itself, as if H were zero.
    """
    h = np.ascontiguousarray(components, dtype)
    if gram is None:
        gram = h.astype(np.float64) @ h.T.astype(np.float64)
    solve = model.weights_solver(gram)
    sums = empty_sums(len(h), source.width)
    squared_residual = 0.0
    weights = np.empty((block.stop - block.start, len(h)), dtype)
    absent: set[str] = set()
    for start, tile in source.tiles(block.start, block.stop, absent):
        seen = tile if columns is None else tile[:, columns]
        w = solve((seen @ h.T).astype(np.float64)).astype(dtype)
        residual = tile - w @ h if columns is None else tile
        norms = np.empty(len(tile))
        squared_row_norms(residual, norms)
        squared_residual += float(norms.sum())
        exact = w.astype(np.float64)
        # Sums of M itself cancel in the error: there float32 products would show.
        sums.gradient[:] += w.T @ residual if columns is None else exact.T @ residual.astype(np.float64)
        sums.gram[:] += exact.T @ exact
        weights[start - block.start : start - block.start + len(tile)] = w
    read = source.decoded_bytes(block.start, block.stop)
    return RefineSums(sums.gradient, sums.gram, squared_residual, read, len(absent)), weights


def refine_subtree(
    source: BlockSource,
    model: Model,
    components: RowStore | Float64,
    gram: Float64 | None,
    dtype: str,
    journal: Journal,
    columns: Index | None,
    blocks: Sequence[Block],
) -> RefineSums:
    """Refine the blocks of one task in order, storing each, and return their merged sums."""
    h = np.asarray(components[:])

    def make(block: Block) -> tuple[RefineSums, Arrays, NDArray[Any]]:
        sums, weights = refine_block(source, model, h, gram, dtype, block, columns)
        return sums, sums.to_arrays(), weights

    with block_task():
        return fold(finished_blocks(journal, blocks, RefineSums.from_arrays, make), RefineSums.merge)


def refine(
    source: BlockSource,
    model: Model,
    components: RowStore | Float64,
    gram: Float64 | None,
    dtype: str,
    journal: Journal,
    blocks: Sequence[Block],
    workers: int,
    columns: Index | None = None,
) -> Any:
    """Return the Dask graph (Delayed `RefineSums`) of one pass; `refine_block` says with what H.

    The rows of W go to the journal, block by block.
    """
    size = subtree_size(len(blocks), workers)
    part = partial(refine_subtree, source, model, components, gram, dtype, journal, columns)
    task = delayed(part, pure=False)
    roots = [task(tuple(blocks[i : i + size])) for i in range(0, len(blocks), size)]
    return fold(roots, delayed(RefineSums.merge, pure=False))


def update_components(model: Model, sums: RefineSums, components: Float64) -> tuple[Float64, float]:
    """Return H⁺ (r, m) and the exact ‖M − W H⁺‖²_F of the pair (W, H⁺)."""
    updated = model.components(sums.linear(components), sums.gram, components)
    step = updated - components
    squared = sums.squared_residual - 2.0 * float((sums.gradient * step).sum())
    squared += float(((sums.gram @ step) * step).sum())
    return updated, max(squared, 0.0)


def first_components(model: Model, sums: RefineSums) -> tuple[Float64, float]:
    """Return H (r, m) from sums of M itself, and the exact ‖M − W H‖²_F: H was known in part alone.

    It starts from least squares without any constraint.
    """
    start = inverse_gram(sums.gram) @ sums.gradient
    components = model.components(sums.gradient, sums.gram, start)
    squared = sums.squared_residual - 2.0 * float((sums.gradient * components).sum())
    squared += float(((sums.gram @ components) * components).sum())
    return components, max(squared, 0.0)


def transform_block(raw: RowStore, factor: RowStore, transform: Float64, block: Block) -> Float64:
    """Write the rows of `block` of the final factor, the raw one times `transform` (k, r).

    Returns the nonzeros of its columns (r,).
    """
    values = np.asarray(raw[block.start : block.stop])
    final = (values.astype(np.float64) @ transform).astype(values.dtype)
    factor[block.start : block.stop] = final
    return np.asarray(np.count_nonzero(final, axis=0), np.float64)


def transform_blocks(raw: RowStore, factor: RowStore, transform: Float64, blocks: Sequence[Block]) -> Float64:
    """Write the blocks of one task of the final factor; return the nonzeros of its columns there (r,)."""
    nonzeros = np.zeros(transform.shape[1])
    for block in blocks:
        nonzeros += transform_block(raw, factor, transform, block)
    return nonzeros


def transform(
    raw: RowStore, factor: RowStore, transform: Float64, blocks: Sequence[Block], workers: int
) -> Any:
    """Return the Dask graph that writes the final n × r factor, the raw one (n, k) times `transform` (k, r).

    Its result is the list of the nonzeros (r,) that the blocks of each task hold a column.
    """
    size = subtree_size(len(blocks), workers)
    task = delayed(partial(transform_blocks, raw, factor, transform), pure=False)
    return delayed(list)([task(tuple(blocks[i : i + size])) for i in range(0, len(blocks), size)])


def project_subtree(
    weights: RowStore,
    probe: Projection,
    surrogate: BlockSource | None,
    coordinates: Float64,
    blocks: Sequence[Block],
) -> Projected:
    """Return what the blocks of one task add to the sums of `project`."""
    rank = len(coordinates)

    def part(block: Block) -> Projected:
        w = np.ascontiguousarray(weights[block.start : block.stop], np.float64)
        sketch, ones, squared = np.zeros((probe.sketch_size, rank)), np.zeros((probe.sketch_size, 1)), 0.0
        probe.accumulate(w, block.start, sketch)
        probe.accumulate(np.ones((len(w), 1)), block.start, ones)
        if surrogate is not None:
            for start, tile in surrogate.tiles(block.start, block.stop, set()):
                first = start - block.start
                squared += float(np.square(tile - w[first : first + len(tile)] @ coordinates).sum())
        return Projected(sketch, ones, w.T @ w, squared)

    with block_task():
        return fold(map(part, blocks), Projected.merge)


def project(
    weights: RowStore,
    probe: Projection,
    surrogate: BlockSource | None,
    coordinates: Float64,
    blocks: Sequence[Block],
    workers: int,
) -> Any:
    """Return the Dask graph (Delayed `Projected`) of S W and ‖Y − W G‖² for W = `weights` on disk.

    Y (n, k) are the rows of `surrogate`, or nothing where it is None; G (r, k) = `coordinates`.
    """
    size = subtree_size(len(blocks), workers)
    task = delayed(partial(project_subtree, weights, probe, surrogate, coordinates), pure=False)
    roots = [task(tuple(blocks[i : i + size])) for i in range(0, len(blocks), size)]
    return fold(roots, delayed(Projected.merge, pure=False))
