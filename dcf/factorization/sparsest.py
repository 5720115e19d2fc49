"""The sparsest nonnegative factorization M̃ ≈ W̃ H of a sketch, as far as its noise lets it be known.

Theorem 1 of Sharan et al. 2019 speaks of the *sparsest* factorization: plain NMF of a sketch is not
unique when H has no zeros, for columns of W̃ may be mixed as long as both factors stay nonnegative.

1. The tail singular values of M̃ give the standard deviation of the noise in one entry of it.
2. HALS with an ℓ1 penalty on W̃ (see `pair`), carried down to a fraction of the noise.
3. What is left of the mixing is the shrinkage of the penalty. Where entries of W̃ are zero within the
   noise, least squares takes it out: with M̃ = F Vᵀ + noise, w̃_j = F t_j, and
   t_j = argmin ‖F_Z t‖ over ‖t‖ = 1, Z the zeros of column j (total least squares: the noise of F is
   the same in every entry).
4. W̃ is the *unclipped* least squares solution M̃ Hᵀ (H Hᵀ)⁻¹, whose errors have mean zero. Clipped
   at zero, what remains would be spurious mass that no nonnegative recovery can cancel.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from dcf.factorization.base import sweep_until
from dcf.factorization.initialization import leading_singular_vectors
from dcf.factorization.pair import Pair, ranked_starts
from dcf.factorization.stability import STARTS_COMPARED, stability
from dcf.types import FactorizationResult, Factors, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dcf.types import Float64, Real

# The ladder of penalties: from where it decides which entries are zero down by decades, to where its
# shrinkage is well inside the noise.
_FIRST = 1e-2
_STEP = 0.1
_LAST = 0.25
_STAGE_SWEEPS = 150
# A stage ends when the root mean square KKT violation is this part of its penalty.
_STAGE_TOL = 1e-2
# Entries within three standard deviations are zeros: 99.7 % of those that are.
_ZERO = 3.0
_POLISHES = 5
# With fewer zeros than this in some column of W̃, W is not sparse for its sketch: planted ones have at
# most 0.07 where k ≥ d, at least 0.13 where k ≤ 0.35 d (DESIGN.md). Lower penalties only find fewer.
LEAST_ZEROS = 0.1


class Truncated:
    """The part F Vᵀ of M in its leading r right singular vectors, in factored form.

    One subspace iteration sharpens them: the Gram matrix alone knows the small ones to ε σ₁² / σ_r².
    """

    def __init__(self, m: Real, rank: int) -> None:
        exact = m.astype(np.float64, copy=False)
        vectors = np.linalg.qr(leading_singular_vectors(exact, rank)[1].T)[0]
        self.right = np.linalg.qr(exact.T @ np.linalg.qr(exact @ vectors)[0])[0]
        self.left = exact @ self.right
        self.squared_norm = float(np.vdot(self.left, self.left))

    def times(self, right: Float64) -> Float64:
        """Return F Vᵀ · right, for (m, r)."""
        return np.asarray(self.left @ (self.right.T @ right))

    def transposed_times(self, left: Float64) -> Float64:
        """Return V Fᵀ · left, for (d, r)."""
        return np.asarray(self.right @ (self.left.T @ left))

    def noise(self, m: Real) -> float:
        """Return the standard deviation of an entry of `m` outside the truncated part.

        From the difference itself, not from norms, so that rounding alone leaves 1e-16.
        """
        rank = self.right.shape[1]
        freedom = (m.shape[0] - rank) * (m.shape[1] - rank)
        return _distance(m, self.left, self.right.T) / float(np.sqrt(max(freedom, 1)))


def _distance(m: Real, left: Float64, right: Float64) -> float:
    """Return ‖M − left · right‖_F, with one array of the size of M."""
    product = left @ right
    np.subtract(m, product, out=product)
    return float(np.linalg.norm(product))


def least_squares_weights(m: Real, components: Float64) -> Float64:
    """Return M Hᵀ (H Hᵀ)⁻¹ (d, r), entries of any sign."""
    a = (m @ components.T.astype(m.dtype)).astype(np.float64)
    return np.asarray(a @ _inverse_gram(components))


def _inverse_gram(components: Float64) -> Float64:
    return np.asarray(np.linalg.pinv(components @ components.T, rcond=1e-12, hermitian=True))


def column_noise(noise: float, components: Float64) -> Float64:
    """Return the standard deviation (r,) of the entries of each column of W̃ = M̃ Hᵀ (H Hᵀ)⁻¹.

    noise : of one entry of M̃; σ_j = noise · √((H Hᵀ)⁻¹_jj).
    """
    return np.asarray(noise * np.sqrt(np.diag(_inverse_gram(components))))


def zero_fraction(weights: Float64, noise: Float64) -> float:
    """Return the part of the entries of W̃ (d, r) that are zero within the noise (r,) of its columns.

    Of the column that has the fewest; one that is zero throughout tells nothing and counts as having
    none. Near zero where W is dense: then every bucket holds every component, nothing singles out one
    factorization of the sketch, and neither factor is to be believed. With k nonzeros a column of W
    and p ones a column of P it is near exp(−p k / d).
    """
    zeros = np.abs(weights) <= _ZERO * noise
    return float(np.where(zeros.all(axis=0), 0.0, zeros.mean(axis=0)).min())


def _ladder(first: float, last: float) -> Iterator[float]:
    """Yield the penalties from `first` down to `last`."""
    while first > last:
        yield first
        first *= _STEP
    yield last


def _unmix(m: Truncated, components: Float64, noise: float) -> Float64:
    """Return H (r, m) from the zeros of W̃ alone, at unit norm (step 3 of the module)."""
    mixing = m.right.T @ np.linalg.pinv(components)
    for _ in range(_POLISHES):
        columns = np.empty_like(mixing)
        for j, t in enumerate(mixing.T):
            zeros = m.left[np.abs(m.left @ t) <= _ZERO * noise * np.linalg.norm(t)]
            least = np.linalg.eigh(zeros.T @ zeros)[1][:, 0]
            columns[:, j] = least if least @ t >= 0 else -least
        components = np.linalg.pinv(columns) @ m.right.T
        mixing = columns * np.linalg.norm(components, axis=1)
    components = np.maximum(components, 0.0)
    norms = np.linalg.norm(components, axis=1, keepdims=True)
    return np.asarray(np.divide(components, norms, out=np.zeros_like(components), where=norms > 0))


def sparser(m: Truncated, components: Float64, noise: float) -> Float64:
    """Return H without the shrinkage of the penalty, where that leaves W̃ more zeros; else as it is."""
    if noise == 0.0 or np.linalg.matrix_rank(components) < len(components):
        return components
    unmixed = _unmix(m, components, noise)
    # By the same limits for both: those of nearly equal components grow without bound.
    limits = column_noise(noise, components)
    before, after = (zero_fraction(m.times(h.T) @ _inverse_gram(h), limits) for h in (components, unmixed))
    return unmixed if after > before else components


@dataclass(frozen=True)
class SparsestNMF:
    """The factorization of a sketch that has the most zeros in W̃, known to the noise."""

    rank: int
    """r"""
    restarts: int = 4
    """random starts besides NNDSVD"""
    tol: float = 1e-9
    """to what W̃ is resolved, over its largest entry, where the noise sets no coarser limit"""
    max_iter: int = 2000
    """most sweeps, over all penalties"""
    seed: int = 0
    """of the random starts"""
    threads: int = 1
    """starts that are tried at once; the result does not depend on it"""

    def factorize(self, m: Real) -> FactorizationResult:
        """Return W (d, r), of any sign, and H ≥ 0 (r, m), rows of H of unit norm, with m ≈ W H.

        The zeros of W carry the noise of the sketch, of either sign. The `noise` of the result is no
        less than what `tol` resolves.
        """
        truncated = Truncated(m, self.rank)
        starts, tried = ranked_starts(m, self.rank, self.restarts, self.tol, self.seed, self.threads)
        starts = starts[:STARTS_COMPARED]
        pair = Pair(truncated, starts[0].components)
        scale = float(pair.weights_problem()[0].max(initial=0.0))
        noise = max(truncated.noise(m), max(self.tol, np.finfo(np.float64).eps) * scale)
        descend = partial(self._descend, truncated, noise, scale)
        status, n_iter, ratio = descend(pair)
        weights = least_squares_weights(m, pair.components)
        rivals = []
        if zero_fraction(weights, column_noise(noise, pair.components)) >= LEAST_ZEROS:
            rivals = [Pair(truncated, start.components) for start in starts[1:]]
            with ThreadPoolExecutor(self.threads) as pool:
                list(pool.map(descend, rivals))
        error = _distance(m, weights, pair.components) / (float(np.linalg.norm(m)) or 1.0)
        agreement = stability(pair, rivals)
        factors = Factors(weights, pair.components)
        return FactorizationResult(factors, status, tried + n_iter, error, ratio, noise, agreement)

    def _descend(self, m: Truncated, noise: float, scale: float, pair: Pair) -> tuple[Status, int, float]:
        """Carry a start down the ladder of penalties, in place."""
        last, left, used = _LAST * noise, self.max_iter, 0
        status, ratio, dense = Status.converged, 0.0, False
        for penalty in _ladder(_FIRST * scale, last):
            if dense and penalty > last:
                continue
            linear = pair.weights_problem()[0]
            tol = _STAGE_TOL * penalty * np.sqrt(linear.size) / (np.linalg.norm(linear) or 1.0)
            most = max(1, left if penalty == last and not dense else min(left, _STAGE_SWEEPS))
            status, n_iter, ratio = sweep_until(partial(pair.sweep, penalty), tol, most)
            used, left = used + n_iter, left - n_iter
            level = max(penalty, noise)
            pair.components = sparser(m, pair.components, level)
            weights = m.times(pair.components.T) @ _inverse_gram(pair.components)
            dense = zero_fraction(weights, column_noise(level, pair.components)) < LEAST_ZEROS
        return status, used, ratio
