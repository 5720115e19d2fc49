"""The truncated singular value decomposition of a matrix in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dcf.factorization.initialization import leading_singular_vectors
from dcf.types import FactorizationResult, Factors, Status

if TYPE_CHECKING:
    from dcf.types import Real


@dataclass(frozen=True)
class TruncatedSVD:
    """The leading singular vectors, from the smaller Gram matrix."""

    rank: int
    """r"""

    def factorize(self, m: Real) -> FactorizationResult:
        """Return W = M Vᵀ (d, r) and orthonormal rows H = V (r, m), the best pair of rank r for m (d, m)."""
        exact = m.astype(np.float64, copy=False)
        v = leading_singular_vectors(exact, self.rank)[1]
        w = exact @ v.T
        squared_norm = float(np.vdot(exact, exact))
        lost = max(squared_norm - float(np.vdot(w, w)), 0.0)
        error = float(np.sqrt(lost / squared_norm)) if squared_norm else 0.0
        return FactorizationResult(Factors(w, v), Status.converged, 1, error, 0.0)
