"""Refine: one exact step of alternating nonnegative least squares a pass, as a Dask graph.

Per tile of rows, ``W_b = argmin_{W ≥ 0} ‖M_b − W H‖`` exactly; then, from sums over all rows,
``H⁺ = argmin_{H ≥ 0} ‖M − W H‖`` exactly. The sums are taken of the residual R = M − W H and
not of M, so that the error of the stored pair,

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

from dcf.solvers.gram_nnls import gram_nnls, nonnegative_solve
from dcf.solvers.reduction import fold, subtree_size
from dcf.solvers.shared import single_blas_thread
from dcf.solvers.sums import squared_row_norms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dcf.types import Arrays, Block, BlockSource, Float64, Journal, Projection, RowStore


_SLICE_ROWS = 65_536


@dataclass(frozen=True)
class Unjournalled:
    """The journal of a pass too short to be worth one."""

    def finished(self) -> frozenset[int]:
        """Return nothing: every block is to be done."""
        return frozenset()

    def count(self) -> int:
        """Return 0."""
        return 0

    def save(self, block: int, arrays: Arrays) -> None:
        """Keep nothing."""

    def load(self, block: int) -> dict[str, NDArray[Any]]:
        """Raise `KeyError`: nothing was kept."""
        raise KeyError(block)


@dataclass(frozen=True)
class RefineSums:
    """What a refine pass sums over rows; parts add."""

    gradient: Float64
    """WᵀR (r, m)"""
    gram: Float64
    """WᵀW (r, r)"""
    squared_residual: float
    """‖R‖²_F"""
    support: Float64
    """(r,) nonzeros of each column of W"""
    bytes_read: int
    """decoded bytes"""

    def merge(self, other: RefineSums) -> RefineSums:
        """Return the sums over both parts."""
        return RefineSums(
            self.gradient + other.gradient,
            self.gram + other.gram,
            self.squared_residual + other.squared_residual,
            self.support + other.support,
            self.bytes_read + other.bytes_read,
        )

    def linear(self, components: Float64) -> Float64:
        """Return WᵀM, the linear term of H's problem, for the H (or G) of the pass."""
        return self.gradient + self.gram @ components

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that a journal stores."""
        scalars = np.array([self.squared_residual, self.bytes_read], np.float64)
        return {"gradient": self.gradient, "gram": self.gram, "support": self.support, "scalars": scalars}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> RefineSums:
        """Read them back."""
        squared_residual, bytes_read = arrays["scalars"]
        return cls(
            arrays["gradient"],
            arrays["gram"],
            float(squared_residual),
            arrays["support"],
            int(bytes_read),
        )


def empty_sums(rank: int, width: int) -> RefineSums:
    """Return the sums over no rows."""
    return RefineSums(np.zeros((rank, width)), np.zeros((rank, rank)), 0.0, np.zeros(rank), 0)


def refine_block(
    source: BlockSource, components: Float64, gram: Float64 | None, dtype: str, block: Block
) -> tuple[RefineSums, NDArray[Any]]:
    """Read the rows of `block` once; return their sums and their rows of W (b, r) in `dtype`.

    components : H (r, m), or its coordinates G (r, k) where `source` yields coordinates;
    gram : H Hᵀ (r, r), None where `components` is all of H.
    """
    h = np.ascontiguousarray(components, dtype)
    if gram is None:
        gram = h.astype(np.float64) @ h.T.astype(np.float64)
    inverse = np.linalg.pinv(gram, rcond=1e-13, hermitian=True)
    sums = empty_sums(*h.shape)
    squared_residual = 0.0
    weights = np.empty((block.stop - block.start, len(h)), dtype)
    for start, tile in source.tiles(block.start, block.stop, set()):
        linear = (tile @ h.T).astype(np.float64)
        solution = np.maximum(linear @ inverse, 0.0)
        gram_nnls(linear, gram, solution)
        w = solution.astype(dtype)
        residual = tile - w @ h
        norms = np.empty(len(tile))
        squared_row_norms(residual, norms)
        squared_residual += float(norms.sum())
        sums.gradient[:] += w.T @ residual
        exact = w.astype(np.float64)
        sums.gram[:] += exact.T @ exact
        sums.support[:] += np.count_nonzero(w, axis=0)
        weights[start - block.start : start - block.start + len(tile)] = w
    read = source.decoded_bytes(block.start, block.stop)
    return RefineSums(sums.gradient, sums.gram, squared_residual, sums.support, read), weights


def refine_subtree(
    source: BlockSource,
    components: RowStore | Float64,
    gram: Float64 | None,
    dtype: str,
    factor: RowStore | None,
    journal: Journal,
    blocks: Sequence[Block],
    finished: frozenset[int],
) -> RefineSums:
    """Refine the blocks of one task in order, storing each, and return their merged sums."""
    h = np.asarray(components[:])

    def finish(block: Block) -> RefineSums:
        if block.index in finished:
            return RefineSums.from_arrays(journal.load(block.index))
        sums, weights = refine_block(source, h, gram, dtype, block)
        if factor is not None:
            factor[block.start : block.stop] = weights
        journal.save(block.index, sums.to_arrays())
        return sums

    with single_blas_thread():
        return fold(map(finish, blocks), RefineSums.merge)


def refine(
    source: BlockSource,
    components: RowStore | Float64,
    gram: Float64 | None,
    dtype: str,
    factor: RowStore | None,
    journal: Journal,
    blocks: Sequence[Block],
    most_tasks: int,
) -> Any:
    """Return the Dask graph (Delayed `RefineSums`) of one pass; `refine_block` says with what H.

    The rows of W go to `factor`, where one is given, block by block.
    """
    finished, size = journal.finished(), subtree_size(len(blocks), most_tasks)
    task = delayed(partial(refine_subtree, source, components, gram, dtype, factor, journal), pure=False)
    roots = [
        task(
            parts := tuple(blocks[i : i + size]),
            frozenset(b.index for b in parts) & finished,
        )
        for i in range(0, len(blocks), size)
    ]
    return fold(roots, delayed(RefineSums.merge, pure=False))


def update_components(sums: RefineSums, components: Float64) -> tuple[Float64, float]:
    """Return H⁺ (r, m) and the exact ‖M − W H⁺‖²_F of the pair (W, H⁺)."""
    linear = np.ascontiguousarray(sums.linear(components).T)
    updated = np.ascontiguousarray(nonnegative_solve(linear, sums.gram).T)
    step = updated - components
    squared = sums.squared_residual - 2.0 * float((sums.gradient * step).sum())
    squared += float(((sums.gram @ step) * step).sum())
    return updated, max(squared, 0.0)


def scale_block(raw: RowStore, factor: RowStore, order: Sequence[int], scale: Float64, block: Block) -> None:
    """Write the rows of `block` of the final factor: columns reordered and scaled."""
    values = np.asarray(raw[block.start : block.stop])
    factor[block.start : block.stop] = (values[:, list(order)] * scale).astype(values.dtype)


def scale(
    raw: RowStore, factor: RowStore, order: Sequence[int], scales: Float64, blocks: Sequence[Block]
) -> Any:
    """Return the Dask graph that rewrites the n × r factor with columns in `order`, times `scales`."""
    task = delayed(partial(scale_block, raw, factor, tuple(order), scales), pure=False)
    return delayed(list)([task(block) for block in blocks])


def project_subtree(weights: RowStore, probe: Projection, rank: int, blocks: Sequence[Block]) -> Float64:
    """Return what the blocks of one task add to S W (t, r)."""

    def part(block: Block) -> Float64:
        out = np.zeros((probe.sketch_size, rank))
        for start in range(block.start, block.stop, _SLICE_ROWS):
            rows = np.asarray(weights[start : min(start + _SLICE_ROWS, block.stop)])
            probe.accumulate(np.ascontiguousarray(rows, np.float64), start, out)
        return out

    return fold(map(part, blocks), np.add)


def project(weights: RowStore, probe: Projection, rank: int, blocks: Sequence[Block], most_tasks: int) -> Any:
    """Return the Dask graph (Delayed (t, r)) of S W for W = `weights` (n, r) on disk."""
    size = subtree_size(len(blocks), most_tasks)
    task = delayed(partial(project_subtree, weights, probe, rank), pure=False)
    return fold([task(tuple(blocks[i : i + size])) for i in range(0, len(blocks), size)], delayed(np.add))
