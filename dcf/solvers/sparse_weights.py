"""Sparse rows of W, of any sign: least squares on the entries that stand out of the noise.

Each row w of W solves, for M = W H + noise of standard deviation σ,

    minimise  ½ ‖m − w H‖² + ½ (c σ)² ‖w‖₀

by backward elimination from least squares: leaving out entry k of those that are left costs
w_k² / (2 B_kk), B the inverse of their part of H Hᵀ. The entry that costs least goes, while that is less
than ½ (c σ)², which is to say while |w_k| < c σ_k for σ_k = σ √B_kk the noise of that entry; the others
and B follow by a rank-one update (Efroymson 1960). Components that are orthogonal do not need one another,
and the minimum is reached.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dcf.solvers.gram_nnls import inverse_gram
from dcf.solvers.jit import kernel
from dcf.solvers.models import FreeComponents

if TYPE_CHECKING:
    from collections.abc import Callable

    from dcf.types import Float64

# Where H Hᵀ is singular to this part of its largest entry, so much is added to its diagonal: of
# dependent components those that are needed least then go first.
_SINGULAR = 1e-10
_RIDGE = 1e-8


@kernel
def eliminate(inverse: Float64, threshold: float, x: Float64) -> None:
    """Leave out entries of the rows of `x` (b, r), in place, while one costs less than ½ `threshold`².

    inverse : (r, r), (H Hᵀ)⁻¹; x : least squares solutions; threshold : c σ, in units of M.
    """
    r = x.shape[1]
    left, b, column = np.empty(r, np.bool_), np.empty((r, r)), np.empty(r)
    for i in range(x.shape[0]):
        w = x[i]
        copied = False
        left[:] = True
        for _ in range(r):
            least, cheapest = -1, threshold * threshold
            for k in range(r):
                if left[k]:
                    scale = b[k, k] if copied else inverse[k, k]
                    if w[k] * w[k] < cheapest * scale:
                        least, cheapest = k, w[k] * w[k] / scale
            if least < 0:
                break
            if not copied:
                b[:] = inverse
                copied = True
            column[:] = b[least]
            step = w[least] / column[least]
            for k in range(r):
                if left[k]:
                    w[k] -= step * column[k]
                    part = column[k] / column[least]
                    for j in range(r):
                        b[k, j] -= part * column[j]
            left[least] = False
            w[least] = 0.0
        for k in range(r):
            if not left[k]:
                w[k] = 0.0


@dataclass(frozen=True)
class SparseWeights(FreeComponents):
    """Sparse PCA: W of any sign, its entries zero where they do not stand out of the noise, any H."""

    noise: float
    """σ, standard deviation of an entry of M about W H"""
    rows: int
    """n, rows of M"""

    @property
    def cutoff(self) -> float:
        """√(2 ln n), about the largest of n numbers of noise alone (Donoho & Johnstone 1994)."""
        return float(np.sqrt(2.0 * np.log(max(self.rows, 2))))

    def weights_solver(self, gram: Float64) -> Callable[[Float64], Float64]:
        """Return least squares on the entries that stand out of the noise."""
        scale = float(np.diag(gram).max(initial=0.0))
        if np.linalg.eigvalsh(gram)[0] <= _SINGULAR * scale:
            gram = gram + _RIDGE * (scale or 1.0) * np.eye(len(gram))
        inverse = inverse_gram(gram)

        def solve(linear: Float64) -> Float64:
            solution = linear @ inverse
            eliminate(inverse, self.cutoff * self.noise, solution)
            return solution

        return solve
