"""A pair (W, H), swept in place by hierarchical alternating least squares (HALS), and its start.

    minimise  ½ ‖M − W H‖²_F + λ Σ_k ‖w_k‖₁ ‖h_k‖₂   over  W, H ≥ 0

Cichocki & Phan 2009, with several sweeps per product (Gillis & Glineur 2012). The penalty does not
change when a component is scaled; rows of H are kept at unit norm, where it is the ℓ1 norm of W.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar, cast

import numpy as np

from dcf.factorization.base import sweep_until
from dcf.factorization.initialization import nndsvd, random_rows
from dcf.factorization.stability import STARTS_COMPARED, fits_as_well, stability
from dcf.solvers.gram_nnls import descend_rows, inverse_gram, projected_gradient
from dcf.solvers.shared import in_threads
from dcf.solvers.sums import squared_row_norms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dcf.types import Float64, Real, Status

_INNER_SWEEPS = 10
_INNER_TOL = 1e-2
_TRIAL_SWEEPS = 20
_TRIAL_ROWS = 500


class Factorable(Protocol):
    """M (d, m), as much of it as HALS asks for."""

    squared_norm: float

    def times(self, right: Float64) -> Float64:
        """Return M · right, for (m, r)."""

    def transposed_times(self, left: Float64) -> Float64:
        """Return Mᵀ · left, for (d, r)."""


class Sweepable(Protocol):
    """A start on its way."""

    def sweep(self) -> float:
        """Update all factors; return the KKT ratio of the point it started from."""


class Dense:
    """M as an array, multiplied in its own precision."""

    def __init__(self, m: Real) -> None:
        self._m = m
        self.squared_norm = float(np.einsum("ij,ij->", m, m, dtype=np.float64))

    def times(self, right: Float64) -> Float64:
        """Return M · right, for (m, r)."""
        return np.asarray(self._m @ right.astype(self._m.dtype), np.float64)

    def transposed_times(self, left: Float64) -> Float64:
        """Return Mᵀ · left, for (d, r)."""
        return np.asarray(self._m.T @ left.astype(self._m.dtype), np.float64)


class Pair:
    """W and H of one start."""

    def __init__(self, m: Factorable, components: Float64) -> None:
        self.m = m
        self.components = components.copy()
        self.weights = np.zeros((0, len(components)))
        self._normalise()
        a, g = self.weights_problem()
        self.weights = np.maximum(a @ inverse_gram(g), 0.0)

    def weights_problem(self) -> tuple[Float64, Float64]:
        """Return M Hᵀ (d, r) and H Hᵀ (r, r)."""
        h = self.components
        return self.m.times(h.T), h @ h.T

    def _components_problem(self) -> tuple[Float64, Float64]:
        w = self.weights
        return self.m.transposed_times(w), w.T @ w

    def _normalise(self) -> None:
        """Give every row of H unit norm; a component that has died stays zero."""
        norms = np.linalg.norm(self.components, axis=1)
        live = norms > 0
        self.components[live] /= norms[live, None]
        self.weights *= norms

    def sweep(self, penalty: float = 0.0) -> float:
        """Update W, then H; return the KKT ratio of the pair as it was."""
        a, g = self.weights_problem()
        a_norm = np.linalg.norm(a)
        a -= penalty
        ratio = np.linalg.norm(projected_gradient(a, g, self.weights)) / (a_norm or 1.0)
        descend_rows(a, g, self.weights, _INNER_SWEEPS, _INNER_TOL)
        b, c = self._components_problem()
        # ‖h‖ ≤ (‖h‖² + 1) / 2, with equality at the unit norm from which H starts.
        c[np.diag_indices_from(c)] += penalty * self.weights.sum(axis=0)
        columns = np.ascontiguousarray(self.components.T)
        violation = np.linalg.norm(projected_gradient(b, c, columns))
        ratio = max(ratio, violation / (np.linalg.norm(b) or 1.0))
        descend_rows(b, c, columns, _INNER_SWEEPS, _INNER_TOL)
        self.components = np.ascontiguousarray(columns.T)
        self._normalise()
        return float(ratio)

    def objective(self) -> float:
        """Return ‖M − WH‖_F / ‖M‖_F."""
        if self.m.squared_norm == 0.0:
            return 0.0
        b, c = self._components_problem()
        h = self.components
        squared = self.m.squared_norm - 2.0 * float((b * h.T).sum()) + float((c * (h @ h.T)).sum())
        return float(np.sqrt(max(squared, 0.0) / self.m.squared_norm))


class Start(Protocol):
    """A factorization on its way from one of several starts."""

    @property
    def components(self) -> Float64:
        """H (r, m)."""

    def sweep(self) -> float:
        """Update the factors; return the KKT ratio of the point it started from."""

    def objective(self) -> float:
        """Return ‖M − WH‖_F / ‖M‖_F."""


S = TypeVar("S", bound=Start)


def trial_rows(m: Real, rank: int) -> Real:
    """Return the rows of `m` (d, m) that starts are tried on, at most 500 (or 10 r), evenly over ‖m‖².

    A component in few rows is in enough of these; of rows of equal norm every so manieth is taken.
    """
    if len(m) == 0:  # a sample of all-zero data has no rows
        m = cast("Real", np.zeros((1, m.shape[1])))
    count = max(_TRIAL_ROWS, 10 * rank)
    norms = np.empty(len(m))
    squared_row_norms(m, norms)
    if len(m) <= count or not norms.any():
        return m[:count]
    reached = np.cumsum(norms)
    places = np.searchsorted(reached, (np.arange(count) + 0.5) / count * reached[-1])
    return cast("Real", np.ascontiguousarray(m[np.unique(places)]))


def starts_of(m: Real, rank: int, restarts: int, seed: int) -> list[Pair]:
    """Return the starts of NMF, on some of the rows: NNDSVD, and random ones."""
    rows = trial_rows(m, rank)
    starts = [nndsvd(rows, rank), *(random_rows(rows, rank, seed, i) for i in range(restarts))]
    return [Pair(Dense(rows), start) for start in starts]


def ranked(trials: Sequence[S], tol: float, max_iter: int, threads: int) -> tuple[list[S], int]:
    """Try the starts for a few sweeps; return them, best first, and the sweeps."""
    used = max(n_iter for _, n_iter, _ in carry(trials, tol, min(_TRIAL_SWEEPS, max_iter), threads))
    return sorted(trials, key=lambda trial: trial.objective()), used


def best_of(trials: Sequence[S], tol: float, max_iter: int, threads: int) -> tuple[S, Float64 | None, int]:
    """Carry the best starts to `tol`; return the best of these, its `stability`, and the sweeps."""
    trials, used = ranked(trials, tol, max_iter, threads)
    compared = trials[:STARTS_COMPARED]
    ended = carry(compared, tol, max_iter, threads)
    best = min(compared, key=lambda trial: trial.objective())
    others = [trial for trial in compared if trial is not best]
    agreement = stability(best, others, fits_as_well(best.objective()))
    return best, agreement, used + ended[compared.index(best)][1]


def carry(
    pairs: Sequence[Sweepable], tol: float, max_iter: int, threads: int
) -> list[tuple[Status, int, float]]:
    """Sweep each start to `tol`, several at once; the results do not depend on how many."""
    return in_threads(threads, lambda pair: sweep_until(pair.sweep, tol, max_iter), pairs)
