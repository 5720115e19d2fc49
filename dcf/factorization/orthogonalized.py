"""CP of any sign by Orthogonalized ALS: the best of several starts.

Sharan & Valiant, *Orthogonalized ALS: a theoretically principled tensor decomposition algorithm for
practical use*, ICML 2017: the estimates of the factors are orthonormalised before each step of the
first sweeps, so that no two components can chase the same one; plain ALS then ends the work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dcf.factorization.initialization import random_factors
from dcf.factorization.pair import trial_rows
from dcf.factorization.unfolded import best_of_starts, carry_on
from dcf.solvers.polyadic import Polyadic, khatri_rao

if TYPE_CHECKING:
    from dcf.types import FactorizationResult, Float64, Real

_ORTHOGONAL_SWEEPS = 10


@dataclass(frozen=True)
class OrthogonalizedALS:
    """The best of several starts, tried on some of the rows, carried to `tol` on all of them."""

    rank: int
    """r"""
    shape: tuple[int, ...]
    """n_1, n_2, …: entries along each mode but the compressed one"""
    restarts: int = 4
    """random starts besides the first"""
    tol: float = 3e-5
    """KKT ratio: gradient over the norm of its linear term, the largest of the modes"""
    max_iter: int = 2000
    """most sweeps of the best start"""
    seed: int = 0
    """of the starts"""
    threads: int = 1
    """starts that are tried at once; the result does not depend on it"""

    @property
    def model(self) -> Polyadic:
        """What H may be."""
        return Polyadic(self.shape, nonnegative=False)

    def factorize(self, m: Real) -> FactorizationResult:
        """Return A (d, r) and H (r, Π n_j), rows of H of unit norm and rank one, with m ≈ A H."""
        rows, starts = trial_rows(m, self.rank), self._starts()
        return best_of_starts(
            m, rows, self.model, starts, self.tol, self.max_iter, self.threads, _ORTHOGONAL_SWEEPS
        )

    def carry_on(self, m: Real, components: Float64) -> FactorizationResult:
        """Return the factors of `m` (d, Π n_j) that are reached from H = `components` (r, Π n_j)."""
        return carry_on(m, self.model, components, self.tol, self.max_iter)

    def _starts(self) -> list[Float64]:
        each = range(self.restarts + 1)
        return [khatri_rao(random_factors(self.shape, self.rank, self.seed, i)) for i in each]
