"""Nonnegative CP of a sample of rows of a tensor, or of all of it: the best of several starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dcf.factorization.initialization import nndsvd, random_factors, random_rows
from dcf.factorization.pair import trial_rows
from dcf.factorization.unfolded import best_of_starts, carry_on
from dcf.solvers.polyadic import Polyadic, khatri_rao

if TYPE_CHECKING:
    from dcf.types import FactorizationResult, Float64, Real


@dataclass(frozen=True)
class HalsCP:
    """The best of several starts, tried on some of the rows, carried to `tol` on all of them.

    Cichocki & Phan 2009, with exact nonnegative least squares for a factor and extrapolation between
    the sweeps (see `unfolded`).
    """

    rank: int
    """r"""
    shape: tuple[int, ...]
    """n_1, n_2, …: entries along each mode but the compressed one"""
    restarts: int = 4
    """random starts besides NNDSVD"""
    tol: float = 3e-5
    """KKT ratio: projected gradient over the norm of its linear term, the largest of the modes"""
    max_iter: int = 2000
    """most sweeps of the best start"""
    seed: int = 0
    """of the random starts"""
    threads: int = 1
    """starts that are tried at once; the result does not depend on it"""

    @property
    def model(self) -> Polyadic:
        """What H may be."""
        return Polyadic(self.shape, nonnegative=True)

    def factorize(self, m: Real) -> FactorizationResult:
        """Return A (d, r) and H (r, Π n_j), both ≥ 0, rows of H of unit norm and rank one, m ≈ A H."""
        rows = trial_rows(m, self.rank)
        return best_of_starts(m, rows, self.model, self._starts(rows), self.tol, self.max_iter, self.threads)

    def carry_on(self, m: Real, components: Float64) -> FactorizationResult:
        """Return the factors of `m` (d, Π n_j) that are reached from H = `components` (r, Π n_j)."""
        return carry_on(m, self.model, components, self.tol, self.max_iter)

    def _starts(self, rows: Real) -> list[Float64]:
        # Of two kinds by turns: mixtures of rows go astray on sparse data, uniform factors on dense.
        return [nndsvd(rows, self.rank), *(self._random(rows, restart) for restart in range(self.restarts))]

    def _random(self, rows: Real, restart: int) -> Float64:
        if restart % 2 == 0:
            return random_rows(rows, self.rank, self.seed, restart)
        return khatri_rao([np.abs(f) for f in random_factors(self.shape, self.rank, self.seed, restart)])
