"""Nonnegative sparse recovery of one column from a sketch whose noise is known.

    minimise  ½ ‖P w − w̃‖² + Σ_i λ_i w_i   over  w ≥ 0,   λ_i = λ₀ ε₀ / (w_i + ε)

Reweighted ℓ1 (Candès, Wakin & Boyd 2008): every round takes its weights from the last, while ε goes
down to ε₀, so that what is large is hardly penalised and what is small has to explain more than the
noise does. It stands for Σ log(w_i + ε₀), and finds the sparser of columns that explain w̃ equally
well, where ℓ1 cannot tell them apart: for 0/1 P they all have the same ℓ1 norm.

Nonnegative least squares on the support that remains takes out the shrinkage.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dcf.recovery.nnls import NonnegativeRecovery, descend
from dcf.types import ColumnSolution, Float64, Index, Status

# ε over the size of an entry, round by round: from convex in all but the largest entries to nearly
# a count of them.
_SMOOTHING = np.geomspace(0.2, 0.02, 8)
# λ₀ is twice σ √(2 p ln n), the size of the largest of n gradients of noise alone. At that size
# itself an item or two of every column is admitted that only explains noise.
_STRENGTH = 2.0
# The least noise, over the size of an entry, that the first rounds assume: weights much smaller than
# the entries would move the column too slowly from where plain least squares leaves it.
_COARSEST = 0.01
# The least that rounding lets coordinate descent tell from zero, over the size of an entry.
_FINEST = 1e-10
# A round ends when its KKT conditions hold to this part of the noise.
_ROUND_TOL = 1e-2


@dataclass(frozen=True)
class ReweightedRecovery:
    """Reweighted ℓ1 by coordinate descent, at a coarse level, then at the noise."""

    noise: float
    """σ, standard deviation of an entry of w̃"""
    max_iter: int = 20_000
    """most sweeps over the active set, over all rounds"""

    def recover(self, index: Index, value: Float64, target: Float64) -> ColumnSolution:
        """Return the sparse column w (n,) ≥ 0 with P w ≈ w̃.

        index, value : (n, p), P in index form; target : (d,), w̃, whose zeros may carry noise of
        either sign.
        """
        n, w = len(index), np.zeros(len(index))
        if not target.any():
            return ColumnSolution(w, Status.converged, 0, 0.0, 0.0)
        size = float(target @ target / np.abs(target).sum())
        gain = _STRENGTH * np.sqrt(2.0 * float(np.square(value).sum()) / n * np.log1p(n))
        fine, coarse = (max(self.noise, least * size) for least in (_FINEST, _COARSEST))
        left = self.max_iter
        for noise, smoothing in ((coarse, _SMOOTHING), (fine, _SMOOTHING[-1:])):
            tol = _ROUND_TOL * noise
            for epsilon in smoothing * size:
                penalty = gain * noise * _SMOOTHING[-1] * size / (w + epsilon)
                used, violation, _ = descend(index, value, target, penalty, w, tol, max(1, left))
                left -= used
            support = np.flatnonzero(w)
            exact = NonnegativeRecovery(max_iter=max(1, left)).recover(index[support], value[support], target)
            w[support] = exact.values
            left -= exact.n_iter
        status = exact.status if violation <= tol else Status.max_iter_reached
        return ColumnSolution(w, status, self.max_iter - left, exact.residual_norm, exact.kkt)
