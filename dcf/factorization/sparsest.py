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

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from dcf.factorization.base import Multistart, sweep_until
from dcf.factorization.pair import Pair, ranked, starts_of
from dcf.factorization.stability import STARTS_COMPARED, fits_as_well, stability
from dcf.factorization.truncated import (
    LEAST_ZEROS,
    ZERO,
    Truncated,
    column_noise,
    distance,
    least_squares_weights,
    zero_fraction,
)
from dcf.solvers.gram_nnls import inverse_gram
from dcf.solvers.shared import in_threads
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
_POLISHES = 5


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
            zeros = m.left[np.abs(m.left @ t) <= ZERO * noise * np.linalg.norm(t)]
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
    before, after = (
        zero_fraction(m.times(h.T) @ inverse_gram(h @ h.T), limits) for h in (components, unmixed)
    )
    return unmixed if after > before else components


@dataclass(frozen=True)
class SparsestNMF(Multistart):
    """The factorization of a sketch that has the most zeros in W̃, known to the noise."""

    tol: float = 1e-9
    """to what W̃ is resolved, over its largest entry, where the noise sets no coarser limit"""

    def factorize(self, m: Real) -> FactorizationResult:
        """Return W (d, r), of any sign, and H ≥ 0 (r, m), rows of H of unit norm, with m ≈ W H.

        The zeros of W carry the noise of the sketch, of either sign. The `noise` of the result is no
        less than what `tol` resolves.
        """
        truncated = Truncated(m, self.rank)
        trials = starts_of(m, self.rank, self.restarts, self.seed)
        starts, tried = ranked(trials, self.tol, self.max_iter, self.threads)
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
            in_threads(self.threads, descend, rivals)
        error = distance(m, weights, pair.components) / (float(np.linalg.norm(m)) or 1.0)
        agreement = stability(pair, rivals, fits_as_well(pair.objective()))
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
            weights = m.times(pair.components.T) @ inverse_gram(pair.components @ pair.components.T)
            dense = zero_fraction(weights, column_noise(level, pair.components)) < LEAST_ZEROS
        return status, used, ratio
