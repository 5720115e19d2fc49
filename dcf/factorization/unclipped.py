"""W̃ of a sketch for recovery: unclipped least squares, with the noise told.

Clipped at zero the zeros of W̃ would be spurious mass that no recovery can cancel; unclipped, their
errors have mean zero.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from dcf.factorization.truncated import distance, least_squares_weights
from dcf.types import FactorizationResult, Factors

if TYPE_CHECKING:
    from dcf.factorization.base import Factorizer
    from dcf.types import Real


@dataclass(frozen=True)
class Unclipped:
    """A factorizer whose W̃ is then replaced by least squares, of any sign, and whose noise is told."""

    inner: Factorizer
    """what finds H"""

    def factorize(self, m: Real) -> FactorizationResult:
        """Return W̃ = M̃ Hᵀ (H Hᵀ)⁻¹ (d, r) and H (r, m) for m = M̃ (d, m)."""
        result = self.inner.factorize(m)
        h = result.factors.components
        weights = least_squares_weights(m, h)
        left = distance(m, weights, h)
        freedom = max((m.shape[0] - len(h)) * m.shape[1], 1)
        resolved = float(np.finfo(np.float32).eps) * float(np.abs(weights).max(initial=0.0))
        noise = max(left / float(np.sqrt(freedom)), resolved)
        error = left / (float(np.linalg.norm(m)) or 1.0)
        return replace(result, factors=Factors(weights, h), objective=error, noise=noise)
