"""CP of any sign by Orthogonalized ALS: the best of several starts.

Sharan & Valiant, *Orthogonalized ALS: a theoretically principled tensor decomposition algorithm for
practical use*, ICML 2017: the estimates of the factors are orthonormalised before each step of the
first sweeps, so that no two components can chase the same one; plain ALS then ends the work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dcf.factorization.initialization import random_factors
from dcf.factorization.unfolded import TensorFactorizer
from dcf.solvers.polyadic import Polyadic, khatri_rao

if TYPE_CHECKING:
    from dcf.types import Float64, Real


class OrthogonalizedALS(TensorFactorizer):
    """Factors of any sign."""

    orthogonal_sweeps = 10

    @property
    def model(self) -> Polyadic:
        """What H may be."""
        return Polyadic(self.shape, nonnegative=False)

    def starts(self, rows: Real) -> list[Float64]:
        """Return random starts, each an H (r, Π n_j); `rows` play no part."""
        each = range(self.restarts + 1)
        return [khatri_rao(random_factors(self.shape, self.rank, self.seed, i)) for i in each]
