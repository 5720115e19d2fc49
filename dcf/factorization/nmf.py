"""NMF of a sample of rows, or of all of the matrix: the best of several starts, by HALS."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dcf.factorization.base import Multistart, sweep_until
from dcf.factorization.pair import Dense, Pair, best_of, starts_of
from dcf.types import FactorizationResult, Factors

if TYPE_CHECKING:
    from dcf.types import Float64, Real


@dataclass(frozen=True)
class HalsNMF(Multistart):
    """The best of several starts, tried on some of the rows, carried to `tol` on all of them."""

    def factorize(self, m: Real) -> FactorizationResult:
        """Return nonnegative W (d, r) and H (r, m), rows of H of unit norm, with m ≈ W H."""
        trials = starts_of(m, self.rank, self.restarts, self.seed)
        best, agreement, tried = best_of(trials, self.tol, self.max_iter, self.threads)
        result = self.carry_on(m, best.components)
        return replace(result, n_iter=tried + result.n_iter, stability=agreement)

    def carry_on(self, m: Real, components: Float64) -> FactorizationResult:
        """Return the factors of `m` (d, m) that are reached from H = `components` (r, m)."""
        pair = Pair(Dense(m), components)
        status, n_iter, ratio = sweep_until(pair.sweep, self.tol, self.max_iter, floor=1e-6)
        factors = Factors(pair.weights, pair.components)
        return FactorizationResult(factors, status, n_iter, pair.objective(), ratio)
