"""Sparse recovery of one column, nonnegative or of any sign, from a sketch whose noise is known.

    minimise  ½ ‖P w − w̃‖² + Σ_i λ_i |w_i|   over  w ≥ 0 or all w,   λ_i = λ₀ ε₀ / (|w_i| + ε)

Reweighted ℓ1 (Candès, Wakin & Boyd 2008): every round takes its weights from the last, while ε goes
down to ε₀, so that what is large is hardly penalised and what is small has to explain more than the
noise does. It stands for Σ log(|w_i| + ε₀), and finds the sparser of columns that explain w̃ equally
well, where ℓ1 cannot tell them apart: for 0/1 P all nonnegative ones have the same ℓ1 norm.

Least squares on the support that remains, nonnegative where w is, takes out the shrinkage. That is
done first as if the noise were large, which moves the column fast to a sparse one, then at lower and
lower levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dcf.recovery.lasso import Lasso
from dcf.recovery.nnls import NonnegativeRecovery, bucket_sums, descend, least_squares_on
from dcf.types import ColumnSolution, Float64, Index, Status

# ε over the size of an entry, round by round: from convex in all but the largest entries to nearly
# a count of them.
_SMOOTHING = np.geomspace(0.2, 0.02, 8)
# λ₀ is twice σ √(2 p ln n), the size of the largest of n gradients of noise alone. At that size
# itself an item or two of every column is admitted that only explains noise.
_STRENGTH = 2.0
# Without the sign ℓ1 says less, and as few rounds end in other columns where there are many nonzeros:
# noiseless d = 400, n = 2000, k = 140 in 1 and 7 of 10 seeds (±(0.2 + Exp), Gaussian) against 6 and 9.
_SIGNED_SMOOTHING = np.geomspace(0.2, 0.02, 24)
# So many rounds bring every item to its limit, which may be lower for the same support.
_SIGNED_STRENGTH = 1.7
# The least noise, over the size of an entry, that the first rounds assume: weights much smaller than
# the entries would move the column too slowly from where plain least squares leaves it.
_COARSEST = 0.01
# From there down to the noise, so that the entries too small for one level come back, sparsely, at the
# next.
_FINER = 0.1
# The least that rounding lets coordinate descent tell from zero, over the size of an entry.
_FINEST = 1e-10
# Noise of less than this, over the size of an entry, is next to none: then fewer nonzeros than this part of
# the buckets that explain w̃ are the sparsest column, and plain least squares is tried first.
_NO_NOISE = 1e-7
_FEW = 0.2
# A round ends when its KKT conditions hold to this part of the noise.
_ROUND_TOL = 1e-2


@dataclass(frozen=True)
class ReweightedRecovery:
    """Reweighted ℓ1 by coordinate descent, at a coarse level of noise, then down to the true one."""

    noise: float
    """σ, standard deviation of an entry of w̃"""
    max_iter: int = 20_000
    """most sweeps over the active set, in all rounds together; as many for the least squares of each level"""
    signed: bool = False
    """whether the column may have negative entries"""

    def recover(self, index: Index, value: Float64, target: Float64) -> ColumnSolution:
        """Return the sparse column w (n,) with P w ≈ w̃.

        index, value : (n, p), P in index form; target : (d,), w̃, whose zeros may carry noise of
        either sign.
        """
        n, w = len(index), np.zeros(len(index))
        least_squares: Lasso | NonnegativeRecovery = NonnegativeRecovery(max_iter=self.max_iter)
        if self.signed:
            least_squares = Lasso(0.0, max_iter=self.max_iter)
        if not target.any():
            return ColumnSolution(w, Status.converged, 0, 0.0, 0.0)
        size = float(target @ target / np.abs(target).sum())
        strength, smoothing = _STRENGTH, _SMOOTHING
        if self.signed:
            strength, smoothing = _SIGNED_STRENGTH, _SIGNED_SMOOTHING
        gain = strength * np.sqrt(2.0 * float(np.square(value).sum()) / n * np.log1p(n))
        last = max(self.noise, _FINEST * size)
        if last <= _NO_NOISE * size and not self.signed:
            plain = self._plain(index, value, target, gain * last)
            if plain is not None:
                return plain
        noise, used = max(last, _COARSEST * size), 0
        while True:
            tol = _ROUND_TOL * noise
            for epsilon in smoothing * size:
                penalty = gain * noise * _SMOOTHING[-1] * size / (np.abs(w) + epsilon)
                left = max(1, self.max_iter - used)
                n_iter, violation, _ = descend(index, value, target, penalty, w, tol, left, self.signed)
                used += n_iter
            support = np.flatnonzero(w)
            exact = least_squares.recover(index[support], value[support], target)
            w[support] = exact.values
            used += exact.n_iter
            if noise == last or used >= self.max_iter:
                break
            noise, smoothing = max(last, _FINER * noise), _SMOOTHING[-1:]
        done = noise == last and violation <= tol
        status = exact.status if done else Status.max_iter_reached
        return ColumnSolution(w, status, used, exact.residual_norm, exact.kkt)

    def _plain(self, index: Index, value: Float64, target: Float64, limit: float) -> ColumnSolution | None:
        """Return what nonnegative least squares finds, if few items explain w̃: nothing else then does.

        limit : gradients (in units of Pᵀ w̃) that are no more than the noise.
        """
        found = NonnegativeRecovery(max_iter=self.max_iter).recover(index, value, target)
        p = index.shape[1]
        support = np.flatnonzero(found.values * p > limit)
        if len(support) > _FEW * len(target):
            return None
        w, left = np.zeros(len(index)), target
        for _ in range(2):  # the second time what rounding left, and without items that are zero by now
            entries = w[support] + least_squares_on(support, index, value, left)
            w[support] = np.where(entries * p > limit, entries, 0.0)
            support, left = np.flatnonzero(w), target.copy()
            np.subtract.at(left, index[support], w[support, None] * value[support])
        kkt = float(np.abs(bucket_sums(index, value, left)).max())
        if kkt > limit:
            return None
        scale = float(np.abs(bucket_sums(index, value, target)).max())
        fit = float(np.linalg.norm(left) / np.linalg.norm(target))
        return ColumnSolution(w, Status.converged, found.n_iter, fit, kkt / scale)
