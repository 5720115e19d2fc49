"""Nonnegative CP of a sample of rows of a tensor, or of all of it: the best of several starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dcf.factorization.initialization import nndsvd, random_factors, random_rows
from dcf.factorization.unfolded import TensorFactorizer
from dcf.solvers.polyadic import Polyadic, khatri_rao

if TYPE_CHECKING:
    from dcf.types import Float64, Real


class HalsCP(TensorFactorizer):
    """Factors ≥ 0, by the sweep of Cichocki & Phan 2009.

    With exact nonnegative least squares for a factor and extrapolation between the sweeps (see `unfolded`).
    """

    orthogonal_sweeps = 0

    @property
    def model(self) -> Polyadic:
        """What H may be."""
        return Polyadic(self.shape, nonnegative=True)

    def starts(self, rows: Real) -> list[Float64]:
        """Return NNDSVD and random starts, each an H (r, Π n_j).

        Random ones are of two kinds by turns: mixtures of rows go astray on sparse data, uniform factors on
        dense.
        """
        return [nndsvd(rows, self.rank), *(self._random(rows, restart) for restart in range(self.restarts))]

    def _random(self, rows: Real, restart: int) -> Float64:
        if restart % 2 == 0:
            return random_rows(rows, self.rank, self.seed, restart)
        return khatri_rao([np.abs(f) for f in random_factors(self.shape, self.rank, self.seed, restart)])
