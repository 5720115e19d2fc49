"""Semi-NMF: M ≈ W H with H ≥ 0 and W of any sign (Ding, Li & Jordan 2010), the best of several starts.

    minimise  ½ ‖M − W H‖²_F  over  W  and  H ≥ 0

W is least squares, exactly, in every sweep; H follows by cyclic coordinate descent (Cichocki & Phan 2009),
as in HALS.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from dcf.factorization.base import Multistart, sweep_until
from dcf.factorization.initialization import nndsvd, random_rows
from dcf.factorization.pair import Dense, best_of, trial_rows
from dcf.solvers.gram_nnls import descend_rows, inverse_gram, projected_gradient
from dcf.types import FactorizationResult, Factors

if TYPE_CHECKING:
    from dcf.types import Float64, Real

_INNER_SWEEPS = 10
_INNER_TOL = 1e-2


class SemiPair:
    """H (r, m) ≥ 0 of one start, rows of unit norm, and the W (d, r) that is best for it."""

    def __init__(self, m: Dense, components: Float64) -> None:
        self._m = m
        self.components = components.copy()
        self._normalise()
        self.weights = self._best_weights()

    def _best_weights(self) -> Float64:
        h = self.components
        return self._m.times(h.T) @ inverse_gram(h @ h.T)

    def _normalise(self) -> None:
        norms = np.linalg.norm(self.components, axis=1, keepdims=True)
        self.components /= np.where(norms > 0, norms, 1.0)

    def sweep(self) -> float:
        """Update H, then W; return the KKT ratio of H as it was (that of W is zero)."""
        b, c = self._m.transposed_times(self.weights), self.weights.T @ self.weights
        columns = np.ascontiguousarray(self.components.T)
        ratio = np.linalg.norm(projected_gradient(b, c, columns)) / (np.linalg.norm(b) or 1.0)
        descend_rows(b, c, columns, _INNER_SWEEPS, _INNER_TOL)
        self.components = np.ascontiguousarray(columns.T)
        self._normalise()
        self.weights = self._best_weights()
        return float(ratio)

    def objective(self) -> float:
        """Return ‖M − WH‖_F / ‖M‖_F."""
        if self._m.squared_norm == 0.0:
            return 0.0
        w, h = self.weights, self.components
        fitted = float((self._m.times(h.T) * w).sum())
        squared = self._m.squared_norm - 2.0 * fitted + float(((w.T @ w) * (h @ h.T)).sum())
        return float(np.sqrt(max(squared, 0.0) / self._m.squared_norm))


@dataclass(frozen=True)
class SemiNMF(Multistart):
    """The best of several starts, tried on some of the rows, carried to `tol` on all of them."""

    def factorize(self, m: Real) -> FactorizationResult:
        """Return W (d, r) and H ≥ 0 (r, m), rows of H of unit norm, with m ≈ W H."""
        rows = trial_rows(m, self.rank)
        positive = np.abs(rows)
        starts = [nndsvd(positive, self.rank)]
        starts += [random_rows(positive, self.rank, self.seed, i) for i in range(self.restarts)]
        trials = [SemiPair(Dense(rows), start) for start in starts]
        best, agreement, tried = best_of(trials, self.tol, self.max_iter, self.threads)
        result = self.carry_on(m, best.components)
        return replace(
            result,
            n_iter=tried + result.n_iter,
            stability=agreement,
        )

    def carry_on(self, m: Real, components: Float64) -> FactorizationResult:
        """Return the factors of `m` (d, m) that are reached from H = `components` (r, m)."""
        pair = SemiPair(Dense(m), components)
        status, n_iter, ratio = sweep_until(pair.sweep, self.tol, self.max_iter, floor=1e-6)
        factors = Factors(pair.weights, pair.components)
        return FactorizationResult(factors, status, n_iter, pair.objective(), ratio)
