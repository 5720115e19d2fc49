"""CP of an unfolded tensor, M (d, Π n_j) ≈ A H with rank-one rows of H, from several starts.

    minimise  ½ ‖M − A H‖²_F  over  A and H = (B ⊙ C ⊙ …)ᵀ

A sweep multiplies with M twice: M Hᵀ gives A exactly, row by row; AᵀM is the small problem of all the
other factors, which is swept several times (as Gillis & Glineur 2012 do for HALS). Swamps, where
alternating creeps for hundreds of sweeps, are crossed by extrapolation: the sweep starts ahead of the
factors, F + β (F − F_before), where that is no worse (Ang, Cohen, Gillis & Hien, *Extrapolated
alternating algorithms for approximate canonical polyadic decomposition*, ICASSP 2020). With A solved
exactly this costs a product only where it fails.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from dcf.factorization.base import sweep_until
from dcf.factorization.pair import Dense, best_of, trial_rows
from dcf.solvers.polyadic import ModeProblems, khatri_rao, normalised, orthonormal, split
from dcf.types import FactorizationResult, Factors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dcf.factorization.pair import Factorable
    from dcf.solvers.polyadic import Polyadic
    from dcf.types import Float64, Real

_INNER_SWEEPS = 3
_INNER_RATIO = 0.1
# β of the extrapolation: where it starts, and what a success and a failure make of it.
_MOMENTUM = 0.5
_FASTER = 1.2
_SLOWER = 0.5


class Unfolded:
    """A (d, r) and H (r, Π n_j) of one start; rows of H are of unit norm, A carries the scale."""

    def __init__(
        self, m: Factorable, model: Polyadic, components: Float64, orthogonal_sweeps: int = 0
    ) -> None:
        """Start from the rank-one parts of `components`, the first sweeps by Orthogonalized ALS."""
        self._m = m
        self._model = model
        self._orthogonal_sweeps = orthogonal_sweeps
        self._factors, _ = split(model.feasible(components), model.shape)
        self._before: list[Float64] | None = None
        self._momentum = _MOMENTUM
        self.solve_weights()

    def _weights(self, h: Float64) -> tuple[Float64, float]:
        """Return the best A (d, r) for an H (r, Π n_j) and ‖M − A H‖²."""
        a, g = self._m.times(h.T), h @ h.T
        w = self._model.weights_solver(g)(a)
        return w, self._m.squared_norm - 2.0 * float((a * w).sum()) + float(((w.T @ w) * g).sum())

    def solve_weights(self) -> None:
        """Make A the best one for H as it is."""
        self.components = khatri_rao(self._factors)
        self.weights, self._squared = self._weights(self.components)

    def sweep(self) -> float:
        """Update A, then the other factors; return the KKT ratio of the point it started from."""
        if self._orthogonal_sweeps > 0:
            self._orthogonal_sweeps -= 1
            self._orthogonal_sweep()
            return float("inf")
        start, weights = self._starting_point()
        self._before = self._factors
        linear, gram = np.ascontiguousarray(self._m.transposed_times(weights).T), weights.T @ weights
        problems = ModeProblems(linear, gram, self._model.nonnegative)
        self._factors, norms = list(start), problems.norms
        norms, ratio = problems.sweep(self._factors, norms)
        for _ in range(_INNER_SWEEPS - 1):
            norms, last = problems.sweep(self._factors, norms)
            if last <= _INNER_RATIO * ratio:
                break
        scale = norms * problems.unit
        self.weights = weights * scale
        h = self.components = khatri_rao(self._factors)
        fitted = float(scale @ np.einsum("kj,kj->k", linear, h))
        squared = float((gram * np.outer(scale, scale) * (h @ h.T)).sum())
        self._squared = self._m.squared_norm - 2.0 * fitted + squared
        return ratio

    def _starting_point(self) -> tuple[list[Float64], Float64]:
        """Return the factors, extrapolated if that is no worse, and the best A for them."""
        if self._before is not None:
            pairs = zip(self._factors, self._before, strict=True)
            ahead = [self._model.feasible(now + self._momentum * (now - before)) for now, before in pairs]
            ahead = [normalised(factor)[0] for factor in ahead]
            weights, squared = self._weights(khatri_rao(ahead))
            if squared <= self._squared:
                self._momentum = min(1.0, _FASTER * self._momentum)
                return ahead, weights
            self._momentum *= _SLOWER
        return self._factors, self._weights(self.components)[0]

    def _orthogonal_sweep(self) -> None:
        """Update all factors, each from orthonormalised ones (Sharan & Valiant 2017, algorithm 3)."""
        weights, _ = self._weights(khatri_rao([orthonormal(factor) for factor in self._factors]))
        weights = orthonormal(weights)
        linear = np.ascontiguousarray(self._m.transposed_times(weights).T)
        problems = ModeProblems(linear, weights.T @ weights, self._model.nonnegative)
        problems.sweep(self._factors, problems.norms, orthogonal=True)
        self.solve_weights()

    def objective(self) -> float:
        """Return ‖M − A H‖_F / ‖M‖_F."""
        return float(np.sqrt(max(self._squared, 0.0) / (self._m.squared_norm or 1.0)))


@dataclass(frozen=True)
class TensorFactorizer(ABC):
    """CP from several starts, tried on some of the rows, the best carried to `tol` on all of them."""

    rank: int
    """r"""
    shape: tuple[int, ...]
    """n_1, n_2, …: entries along each mode but the compressed one"""
    restarts: int = 4
    """random starts besides the first"""
    tol: float = 3e-5
    """KKT ratio: projected gradient over the norm of its linear term, the largest of the modes"""
    max_iter: int = 2000
    """most sweeps of the best start"""
    seed: int = 0
    """of the random starts"""
    threads: int = 1
    """starts that are tried at once; the result does not depend on it"""

    @property
    @abstractmethod
    def model(self) -> Polyadic:
        """What H may be."""

    @property
    @abstractmethod
    def orthogonal_sweeps(self) -> int:
        """How many of the first sweeps orthonormalise the factors."""

    @abstractmethod
    def starts(self, rows: Real) -> Sequence[Float64]:
        """Return an H (r, Π n_j) for each start, from the rows that they are tried on."""

    def factorize(self, m: Real) -> FactorizationResult:
        """Return A (d, r) and H (r, Π n_j), rows of H of unit norm and rank one, with m ≈ A H."""
        rows = trial_rows(m, self.rank)
        sample = Dense(rows)
        trials = [Unfolded(sample, self.model, start, self.orthogonal_sweeps) for start in self.starts(rows)]
        best, agreement, tried = best_of(trials, self.tol, self.max_iter, self.threads)
        result = self.carry_on(m, best.components)
        return replace(result, n_iter=tried + result.n_iter, stability=agreement)

    def carry_on(self, m: Real, components: Float64) -> FactorizationResult:
        """Return the factors of `m` (d, Π n_j) that are reached from H = `components` (r, Π n_j)."""
        point = Unfolded(Dense(m), self.model, components)
        status, n_iter, ratio = sweep_until(point.sweep, self.tol, self.max_iter, floor=1e-6)
        point.solve_weights()
        factors = Factors(point.weights, point.components)
        return FactorizationResult(factors, status, n_iter, point.objective(), ratio)
