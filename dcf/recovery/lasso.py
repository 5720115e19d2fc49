"""Recovery of one column of any sign: ``min ½ ‖P w − w̃‖² + λ ‖w‖₁`` (Tibshirani 1996).

The same coordinate descent as `nnls`, with soft thresholding (Friedman, Hastie & Tibshirani 2010).
At λ = 0 it is least squares, which takes the shrinkage out of a column whose support is known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dcf.recovery.nnls import bucket_sums, descend
from dcf.types import ColumnSolution, Float64, Index, Status


@dataclass(frozen=True)
class Lasso:
    """Coordinate descent for ℓ1-penalised least squares, with an active set, on a warm path of penalties."""

    penalty: float
    """λ over ‖Pᵀ w̃‖_∞, from which on the column is zero; 0 for least squares"""
    tol: float = 1e-8
    """largest KKT violation, over ‖Pᵀ w̃‖_∞"""
    max_iter: int = 20_000
    """most sweeps over the active set"""

    def recover(self, index: Index, value: Float64, target: Float64) -> ColumnSolution:
        """Return the column w (n,), of any sign, with P w ≈ w̃.

        index, value : (n, p), P in index form; target : (d,), w̃.
        """
        w = np.zeros(len(index))
        scale = float(np.abs(bucket_sums(index, value, target)).max(initial=0.0))
        if scale == 0.0:
            return ColumnSolution(w, Status.converged, 0, float(target.any()), 0.0)
        tol, used = self.tol * scale, 0
        for part in self._path():
            weights, left = np.full(len(index), part * scale), max(1, self.max_iter - used)
            sweeps, violation, residual = descend(index, value, target, weights, w, tol, left, signed=True)
            used += sweeps
        status = Status.converged if violation <= tol else Status.max_iter_reached
        fit = float(np.linalg.norm(residual) / np.linalg.norm(target))
        return ColumnSolution(w, status, used, fit, violation / scale)

    def _path(self) -> list[float]:
        """Return the penalties, by decades down to the one asked for."""
        if self.penalty == 0.0:
            return [0.0]
        return [0.1**k for k in range(1, math.ceil(-math.log10(self.penalty)))] + [self.penalty]
