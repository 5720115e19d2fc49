"""NMF of a sketch or sample by hierarchical alternating least squares (HALS).

    minimise  ½ ‖M − W H‖²_F + λ Σ W   over  W, H ≥ 0,  rows of H of unit norm

Cichocki & Phan 2009, with several sweeps per product (Gillis & Glineur 2012). The penalty λ is
carried down to zero when the *sparsest* factorization is wanted, the one that Theorem 1 of
Sharan et al. 2019 speaks of: plain NMF of a sketch is not unique when H has no zeros.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np

from dcf.factorization.base import sweep_until
from dcf.factorization.initialization import nndsvd, random_rows
from dcf.solvers.gram_nnls import descend_rows, projected_gradient
from dcf.types import FactorizationResult, Factors, Float64, Real

_INNER_SWEEPS = 10
_INNER_TOL = 1e-2
_TRIAL_SWEEPS = 20
_TRIAL_ROWS = 500
_CONTINUATION_SWEEPS = 150


class _Pair:
    """W and H of one start, swept in place."""

    def __init__(self, m: Real, components: Float64) -> None:
        self.m = m
        self.squared_norm = float(np.einsum("ij,ij->", m, m, dtype=np.float64))
        self.components = components
        self.weights = np.zeros((len(m), len(components)))
        self._normalise()
        a, g = self._weights_problem()
        self.weights = np.maximum(a @ np.linalg.pinv(g, rcond=1e-12, hermitian=True), 0.0)

    def _weights_problem(self) -> tuple[Float64, Float64]:
        h = self.components
        return (self.m @ h.T.astype(self.m.dtype)).astype(np.float64), h @ h.T

    def _components_problem(self) -> tuple[Float64, Float64]:
        w = self.weights
        return (self.m.T @ w.astype(self.m.dtype)).astype(np.float64), w.T @ w

    def _normalise(self) -> None:
        """Give every row of H unit norm; a component that has died stays zero."""
        norms = np.linalg.norm(self.components, axis=1)
        live = norms > 0
        self.components[live] /= norms[live, None]
        self.weights *= norms

    def sweep(self, penalty: float = 0.0) -> float:
        """Update W, then H; return the KKT ratio of the pair as it was."""
        a, g = self._weights_problem()
        a_norm = np.linalg.norm(a)
        if penalty:
            a -= penalty
        ratio = np.linalg.norm(projected_gradient(a, g, self.weights)) / (a_norm or 1.0)
        descend_rows(a, g, self.weights, _INNER_SWEEPS, _INNER_TOL)
        b, c = self._components_problem()
        columns = np.ascontiguousarray(self.components.T)
        violation = np.linalg.norm(projected_gradient(b, c, columns))
        ratio = max(ratio, violation / (np.linalg.norm(b) or 1.0))
        descend_rows(b, c, columns, _INNER_SWEEPS, _INNER_TOL)
        self.components = np.ascontiguousarray(columns.T)
        self._normalise()
        return float(ratio)

    def objective(self) -> float:
        """Return ‖M − WH‖_F / ‖M‖_F."""
        if self.squared_norm == 0.0:
            return 0.0
        b, c = self._components_problem()
        h = self.components
        squared = self.squared_norm - 2.0 * float((b * h.T).sum()) + float((c * (h @ h.T)).sum())
        return float(np.sqrt(max(squared, 0.0) / self.squared_norm))


@dataclass(frozen=True)
class HalsNMF:
    """The best of several starts, tried on some of the rows, carried to `tol` on all of them."""

    rank: int
    """r"""
    restarts: int = 4
    """random starts besides NNDSVD"""
    tol: float = 1e-4
    """KKT ratio: projected gradient over the norm of its linear term, the larger of W's and H's"""
    max_iter: int = 2000
    """most sweeps of the best start"""
    seed: int = 0
    """of the random starts"""
    threads: int = 1
    """starts that are tried at once; the result does not depend on it"""
    penalties: tuple[float, ...] = ()
    """ℓ1 weights on W, in units of the largest entry of M Hᵀ, each held for up to 150 sweeps
    before the sweeps without"""

    def factorize(self, m: Real) -> FactorizationResult:
        """Return nonnegative W (d, r) and H (r, m), rows of H of unit norm, with m ≈ W H."""
        if len(m) == 0:  # a sample of all-zero data has no rows
            m = np.zeros((1, m.shape[1]))
        step = -(-len(m) // max(_TRIAL_ROWS, 10 * self.rank))
        trial = cast("Real", np.ascontiguousarray(m[::step]))
        starts = [nndsvd(trial, self.rank)]
        starts += [random_rows(trial, self.rank, self.seed, i) for i in range(self.restarts)]
        trials = [_Pair(trial, start) for start in starts]
        with ThreadPoolExecutor(self.threads) as pool:  # the kernels and BLAS leave the GIL
            ended = pool.map(lambda pair: sweep_until(pair.sweep, self.tol, _TRIAL_SWEEPS), trials)
            used = max(n_iter for _, n_iter, _ in ended)
        best = _Pair(m, min(trials, key=_Pair.objective).components)
        for weight in self.penalties:
            scale = float(best._weights_problem()[0].max(initial=0.0))
            sweep = partial(best.sweep, weight * scale)
            used += sweep_until(sweep, self.tol, _CONTINUATION_SWEEPS)[1]
        status, n_iter, ratio = sweep_until(best.sweep, self.tol, self.max_iter, floor=1e-6)
        return FactorizationResult(
            Factors(best.weights, best.components), status, used + n_iter, best.objective(), ratio
        )
