"""Recovery of a column that may not be sparse: of three estimates the one that foretells most.

Of a column that is not sparse, what reweighted ℓ1 finds explains the sketch as well as any other, and its
error may be that of a column of noise. Besides it there are nonnegative least squares, which serves columns
of many small entries and few large ones, and the column nearest to a constant,

    minimise  ‖w − μ 1‖²  subject to  P w ≈ w̃,   w = μ 1 + Pᵀ (P Pᵀ + σ²/v I)⁻¹ (w̃ − μ P 1),

with v the variance of its entries: the best linear estimate, ridge regression about the mean (Hoerl &
Kennard 1970). Which is nearest is told by buckets that were kept out of all (Ward 2009, *Compressed sensing
with cross validation*).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.linalg import LinearOperator, cg

from dcf.recovery.base import rows_to_carry
from dcf.recovery.nnls import NonnegativeRecovery
from dcf.recovery.reweighted import ReweightedRecovery
from dcf.types import ColumnSolution, Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from dcf.types import Float64, Index

# One bucket in so many is kept out: few, for with fewer rows a column at the limit is lost.
_KEPT_OUT = 50
# Few items that leave so little of w̃ are the column: no dense one would have them do.
_EXPLAINED = 1e-6
# A column with fewer buckets than this part within three standard deviations of zero is not sparse: one of
# k ≤ 0.35 d nonzeros leaves a sixth of them empty. Looking for it would take all the sweeps there are.
_ZERO, _FEWEST_ZEROS = 3.0, 0.05
# A sparse column takes a few hundred sweeps, one at the limit of its sketch a few thousand.
_MOST_SWEEPS = 5000
# Least squares of a dense column converges slowly, to an answer that is rough in any case.
_ROUGH, _ROUGH_SWEEPS = 1e-4, 500


@dataclass(frozen=True)
class CheckedRecovery:
    """Reweighted ℓ1, checked on buckets kept out where it is not beyond doubt."""

    noise: float
    """σ, standard deviation of an entry of w̃"""
    signed: bool = False
    """whether the column may have negative entries"""

    def recover(self, index: Index, value: Float64, target: Float64) -> ColumnSolution:
        """Return the column w (n,) with P w ≈ w̃; one that is not sparse has many nonzeros.

        index, value : (n, p), P in index form; target : (d,), w̃.
        """
        n, d = len(index), len(target)
        sparse = ReweightedRecovery(self.noise, _MOST_SWEEPS, self.signed)
        size = np.abs(target) if self.signed else target
        everywhere = np.mean(size <= _ZERO * self.noise) < _FEWEST_ZEROS
        found = ColumnSolution(np.zeros(n), Status.converged, 0, 1.0, 0.0)
        if not everywhere:
            found = sparse.recover(index, value, target)
        support = n if everywhere else int(np.count_nonzero(found.values))
        if not everywhere and found.residual_norm <= _EXPLAINED and rows_to_carry(support, n) <= d:
            return found
        kept_out = np.arange(d) % _KEPT_OUT == 0
        out = kept_out[index]
        out[out.all(axis=1)] = False  # an item must be somewhere
        rest, seen = np.where(out, 0.0, value), np.where(kept_out, 0.0, target)

        def missed(way: Callable[[Index, Float64, Float64], Float64]) -> float:
            estimate = bucket(index, value, way(index, rest, seen), d)
            return float(np.square((target - estimate)[kept_out]).sum())

        of_sparse = np.inf if everywhere else missed(lambda *given: sparse.recover(*given).values)
        if of_sparse <= self._missed_by_the_truth(int(kept_out.sum())):
            return found
        of_dense = {missed(way): way for way in self._dense_ways()}
        least = min(of_dense)
        if of_sparse <= least:
            return found
        w = of_dense[least](index, value, target)
        left = float(np.linalg.norm(target - bucket(index, value, w, d)) / np.linalg.norm(target))
        return replace(found, values=w, residual_norm=left, sparsest=support)

    def _missed_by_the_truth(self, count: int) -> float:
        """Return the most that noise alone adds to so many buckets, four standard deviations up."""
        return self.noise**2 * (count + 4.0 * float(np.sqrt(2.0 * count)))

    def _dense_ways(self) -> list[Callable[[Index, Float64, Float64], Float64]]:
        """Return the estimates of a column that is not sparse."""
        if self.signed:  # least squares of any sign is what is nearest to a constant
            return [self._nearest_to_constant]
        least_squares = NonnegativeRecovery(tol=_ROUGH, max_iter=_ROUGH_SWEEPS)
        return [lambda *given: least_squares.recover(*given).values, self._nearest_to_constant]

    def _nearest_to_constant(self, index: Index, value: Float64, target: Float64) -> Float64:
        """Return w (n,) of the module, with what is below zero at zero where w ≥ 0."""
        n, d = len(index), len(target)
        mean = float(target.sum()) / float(value.sum())
        apart = target - bucket(index, value, np.full(n, mean), d)
        share = float(np.square(value).sum()) / d
        variance = max(float(np.square(apart).mean()) - self.noise**2, 0.0) / share
        if variance == 0.0:
            return np.full(n, mean if self.signed else max(mean, 0.0))
        ridge = self.noise**2 / variance
        rows = csr_array((value.ravel(), index.ravel(), np.arange(0, value.size + 1, value.shape[1])), (n, d))
        system = LinearOperator((d, d), matvec=lambda x: rows.T @ (rows @ x) + ridge * x, dtype=np.float64)
        w = mean + rows @ cg(system, apart, rtol=1e-6, maxiter=200)[0]
        return np.asarray(w if self.signed else np.maximum(w, 0.0))


def bucket(index: Index, value: Float64, w: Float64, d: int) -> Float64:
    """Return P w (d,), for P in index form (n, p)."""
    return np.asarray(np.bincount(index.ravel(), (value * w[:, None]).ravel(), minlength=d), np.float64)
