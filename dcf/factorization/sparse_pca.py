"""Sparse PCA of a sketch or a sample: M ≈ W H, W column-sparse and of any sign, H free.

The best rank-r approximation leaves W and H free up to a rotation: with M = F Vᵀ + noise, F = U_r S_r,
every W = F Q, H = Q⁻¹ Vᵀ explains M as well. The sparsest W decides (Sharan et al. 2019, Theorem 1):

    minimise  J(Q) = Σ_j mean_i ½ log((f_i q_j)² + ε_j² ‖q_j‖²) − log |det Q|

The noise of F is the same in every entry, so ε_j ‖q_j‖ is a multiple of that of column j of W; the
determinant keeps columns apart. J does not change when columns of Q are scaled.

1. Start: FastICA with tanh (Hyvärinen 1999), symmetric, on the whitened F, from a random rotation.
2. Sweep over columns: with D_j = diag 1 / ((f_i q_j)² + ε_j² ‖q_j‖²), A_j = mean_i D_ii (f_i f_iᵀ + ε_j² I)
   majorises column j's term, and q_j ∝ A_j⁻¹ (Q⁻¹)_jᵀ minimises what that leaves exactly (Ono & Miyabe
   2010), so that J never rises.
3. ε goes from the size of each column down to 2 σ, σ the noise of an entry of F: from nearly convex to
   a count of the entries that are not zero.
4. W is the least squares solution M Hᵀ (H Hᵀ)⁻¹, its zeros still carrying their noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import qr

from dcf.factorization.base import Multistart, sweep_until
from dcf.factorization.initialization import random_rotation
from dcf.factorization.stability import STARTS_COMPARED, stability
from dcf.factorization.truncated import Truncated, distance, least_squares_weights
from dcf.solvers.shared import in_threads
from dcf.types import FactorizationResult, Factors

if TYPE_CHECKING:
    from dcf.types import Float64, Real, Status

_FASTICA_SWEEPS = 30
# ε by these steps, so many sweeps each before the last. Half as fast a descent ends in the same places.
_STEP = 0.3
_STAGE_SWEEPS = 15
# The last ε over the noise: entries within it count as zeros.
_LAST = 2.0
# The least ε over the size of a column: A has a condition near 1 / ε².
_FINEST = 1e-7
# What W is resolved to, over its largest entry, where there is no noise.
_RESOLVED = 1e-9
# Directions with less than this part of the largest singular value are not in the data.
_RANK = 1e-10
# A start that finds so many nats a row less of sparsity is a worse answer, not another.
_AS_SPARSE = 0.01
# Below this, a ratio that no longer falls is rounding.
_STAGNANT = 1e-2


class Rotation:
    """Q (r, r) of one start, its columns of unit norm, swept in place.

    left, right : F (d, r) and V (m, r) of M = F Vᵀ.
    """

    def __init__(self, left: Float64, right: Float64, mixing: Float64) -> None:
        self._left, self._right = left, right
        self.mixing = mixing / np.linalg.norm(mixing, axis=0)
        # Of each column: where it starts, its root mean square.
        self.epsilon = np.sqrt(np.square(left @ self.mixing).mean(axis=0))

    @property
    def components(self) -> Float64:
        """H = Q⁻¹ Vᵀ (r, m), rows of unit norm."""
        rows = np.linalg.inv(self.mixing) @ self._right.T
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))

    def objective(self) -> float:
        """Return J(Q)."""
        columns = self._left @ self.mixing
        sparsity = 0.5 * np.log(np.square(columns) + self.epsilon**2).mean(axis=0).sum()
        return float(sparsity - np.linalg.slogdet(self.mixing)[1])

    def sweep(self) -> float:
        """Update the columns of Q in turn; return how far from stationary they were.

        At a stationary point q_k ⟂ q_j in A_j for all k ≠ j; the cosines are what is left of it.
        """
        squared = 0.0
        for j, epsilon in enumerate(self.epsilon):
            q = self.mixing[:, j]
            weights = 1.0 / (np.square(self._left @ q) + epsilon**2)
            majoriser = (self._left.T * weights) @ self._left / len(weights)
            majoriser[np.diag_indices_from(majoriser)] += epsilon**2 * weights.mean()
            gram = self.mixing.T @ majoriser @ self.mixing
            cosines = np.delete(gram[j], j) / np.sqrt(gram[j, j] * np.delete(np.diag(gram), j))
            squared += float(cosines @ cosines)
            updated = np.linalg.solve(majoriser, np.linalg.inv(self.mixing)[j])
            self.mixing[:, j] = updated / np.linalg.norm(updated)
        return float(np.sqrt(squared / max(len(self.mixing), 1)))

    def descend(self, noise: float, tol: float, max_iter: int) -> tuple[Status, int, float]:
        """Sweep while ε goes down to the noise, then to `tol`; return status, sweeps and last ratio."""
        first, used, part = self.epsilon, 0, 1.0
        last = np.maximum(_LAST * noise, _FINEST * first)
        while (part * first > last).any() and used < max_iter:
            self.epsilon = np.maximum(part * first, last)
            used += sweep_until(self.sweep, tol, min(_STAGE_SWEEPS, max_iter - used))[1]
            part *= _STEP
        self.epsilon = last
        status, n_iter, ratio = sweep_until(self.sweep, tol, max(1, max_iter - used), floor=_STAGNANT)
        return status, used + n_iter, ratio


def fastica(whitened: Float64, rotation: Float64) -> Float64:
    """Return the rotation (r, r) that FastICA reaches from `rotation` on whitened data (d, r)."""
    for _ in range(_FASTICA_SWEEPS):
        bounded = np.tanh(whitened @ rotation)
        step = whitened.T @ bounded / len(whitened) - rotation * (1.0 - np.square(bounded)).mean(axis=0)
        u, _, vt = np.linalg.svd(step)
        rotation = u @ vt
    return rotation


@dataclass(frozen=True)
class SparsePCA(Multistart):
    """The rotation of the leading r singular vectors that makes W sparsest: the best of several starts."""

    tol: float = 1e-4
    """cosine that columns of Q may be from where the objective has its minimum"""

    def factorize(self, m: Real) -> FactorizationResult:
        """Return W (d, r) and H (r, m), of any sign, rows of H of unit norm, with m ≈ W H.

        Components beyond the rank of `m` are zero. The `noise` of the result is that of an entry of m,
        no less than what W is resolved to.
        """
        left, right, noise = self._truncate(m)
        rank = left.shape[1]
        _, scales, vt = np.linalg.svd(left, full_matrices=False)
        whitening = vt.T * (np.sqrt(len(left)) / scales)

        def start(rotation: Float64) -> Rotation:
            return Rotation(left, right, whitening @ fastica(left @ whitening, rotation))

        rotations = [np.eye(rank), *(random_rotation(rank, self.seed, i) for i in range(self.restarts))]
        tried = in_threads(self.threads, start, rotations)
        starts = sorted(tried, key=Rotation.objective)[:STARTS_COMPARED]
        ended = in_threads(self.threads, lambda s: s.descend(noise, self.tol, self.max_iter), starts)
        best = min(starts, key=Rotation.objective)
        others = [other for other in starts if other is not best]
        agreement = stability(best, others, best.objective() + _AS_SPARSE)
        result = self._result(m, noise, best, ended[starts.index(best)])
        return result if agreement is None else replace(result, stability=self._padded(agreement))

    def carry_on(self, m: Real, components: Float64) -> FactorizationResult:
        """Return the factors of `m` (d, m) that are reached from H = `components` (r, m)."""
        left, right, noise = self._truncate(m)
        known = components @ right
        # Where m is of lower rank than H: of its components the most independent.
        known = known[qr(known.T, mode="r", pivoting=True)[1][: left.shape[1]]]
        u, s, vt = np.linalg.svd(known)
        rotation = Rotation(left, right, vt.T / np.maximum(s, _RANK * s.max(initial=0.0)) @ u.T)
        rotation.epsilon = np.maximum(_LAST * noise, _FINEST * rotation.epsilon)
        ended = sweep_until(rotation.sweep, self.tol, self.max_iter, floor=_STAGNANT)
        return self._result(m, noise, rotation, ended)

    def _truncate(self, m: Real) -> tuple[Float64, Float64, float]:
        """Return F (d, k), V (m, k) and σ of M ≈ F Vᵀ, k ≤ r the rank of it."""
        if len(m) == 0:  # a sample of all-zero data has no rows
            m = np.zeros((1, m.shape[1]))
        truncated = Truncated(m, min(self.rank, *m.shape))
        u, s, vt = np.linalg.svd(truncated.left, full_matrices=False)
        kept = s > _RANK * s.max(initial=0.0)
        noise = max(truncated.noise(m), _RESOLVED * float(np.abs(truncated.left).max(initial=0.0)))
        return u[:, kept] * s[kept], truncated.right @ vt[kept].T, noise

    def _padded(self, live: Float64) -> Float64:
        """Return what there is of each live component, zero for the others."""
        return np.concatenate([live, np.zeros((self.rank - len(live), *live.shape[1:]))])

    def _result(
        self, m: Real, noise: float, rotation: Rotation, ended: tuple[Status, int, float]
    ) -> FactorizationResult:
        components = self._padded(rotation.components)
        weights = least_squares_weights(m, components)
        error = distance(m, weights, components) / (float(np.linalg.norm(m)) or 1.0)
        status, n_iter, ratio = ended
        return FactorizationResult(Factors(weights, components), status, n_iter, error, ratio, noise)
