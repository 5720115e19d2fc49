"""Nonnegative sparse recovery of one column: ``min ½ ‖P w − w̃‖²  subject to  w ≥ 0``.

For 0/1 P with p ones a column, ``1ᵀP = p 1ᵀ``: every feasible point has the same ℓ1 norm, so
plain nonnegative least squares *is* the ℓ1 programme of Sharan et al. 2019 (Slawski & Hein 2013;
Kueng & Jung 2018). Coordinate descent on the index form of P keeps the residual up to date; a
bucket that is zero forces the items in it to zero, which starts the active set, and items that
violate the KKT conditions come back. `descend` also takes an ℓ1 weight for each item, and columns of
any sign.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.linalg import lsqr

from dcf.solvers.jit import kernel
from dcf.types import ColumnSolution, Float64, Index, Status

_SWEEPS_PER_CHECK = 20


@kernel
def _sweep(
    active: Index,
    index: Index,
    value: Float64,
    penalty: Float64,
    w: Float64,
    residual: Float64,
    sweeps: int,
    tol: float,
    signed: bool,
) -> int:
    """Sweep the active items until the largest gradient step is ≤ `tol`; return the sweeps."""
    p = index.shape[1]
    for sweep in range(sweeps):
        largest = 0.0
        for a in range(active.shape[0]):
            item = active[a]
            gradient, curvature = -penalty[item], 0.0
            for k in range(p):
                gradient += value[item, k] * residual[index[item, k]]
                curvature += value[item, k] * value[item, k]
            updated = max(0.0, w[item] + gradient / curvature)
            if signed and updated == 0.0:
                updated = min(0.0, w[item] + (gradient + 2.0 * penalty[item]) / curvature)
            step = updated - w[item]
            if step != 0.0:
                w[item] = updated
                for k in range(p):
                    residual[index[item, k]] -= step * value[item, k]
                largest = max(largest, abs(step) * curvature)
        if largest <= tol:
            return sweep + 1
    return sweeps


@kernel
def _residual(index: Index, value: Float64, w: Float64, target: Float64, residual: Float64) -> None:
    """Write w̃ − P w into `residual`."""
    residual[:] = target
    for item in range(index.shape[0]):
        if w[item] != 0.0:
            for k in range(index.shape[1]):
                residual[index[item, k]] -= w[item] * value[item, k]


@kernel
def _violations(
    index: Index, value: Float64, residual: Float64, penalty: Float64, w: Float64, signed: bool, out: Float64
) -> float:
    """Write the KKT violation of every item into `out` (n,); return the largest.

    Of an item at zero it is below zero where the item wants to stay.
    """
    violation = 0.0
    for item in range(index.shape[0]):
        total = 0.0 if signed else -penalty[item]
        for k in range(index.shape[1]):
            total += value[item, k] * residual[index[item, k]]
        if signed:
            if w[item] != 0.0:
                total -= np.copysign(penalty[item], w[item])
            else:
                total = abs(total) - penalty[item]
        out[item] = abs(total) if w[item] != 0.0 else total
        violation = max(violation, out[item])
    return violation


@kernel
def _all_buckets_positive(index: Index, target: Float64, out: Index) -> int:
    """Write the items whose buckets are all positive into `out`; return how many."""
    found = 0
    for item in range(index.shape[0]):
        alive = True
        for k in range(index.shape[1]):
            alive = alive and target[index[item, k]] > 0.0
        if alive:
            out[found] = item
            found += 1
    return found


def bucket_sums(index: Index, value: Float64, target: Float64) -> Float64:
    """Return Pᵀ w̃ (n,)."""
    nothing, out = np.zeros(len(index)), np.empty(len(index))
    _violations(index, value, target, nothing, nothing, False, out)
    return out


def descend(
    index: Index,
    value: Float64,
    target: Float64,
    penalty: Float64,
    w: Float64,
    tol: float,
    max_iter: int,
    signed: bool = False,
) -> tuple[int, float, Float64]:
    """Bring w (n,) to the minimum of ½ ‖P w − w̃‖² + Σ_i λ_i |w_i|, in place, from where it is.

    index, value : (n, p), P in index form; target : (d,), w̃; penalty : (n,), λ; tol : the largest
    KKT violation that remains, in units of Pᵀ w̃; signed : whether w may be negative, else w ≥ 0.
    Returns the sweeps made, the violation and the residual w̃ − P w (d,).
    """
    n = len(index)
    residual, violations = np.empty_like(target), np.empty(n)
    cold, used = not w.any(), 0
    while True:
        _residual(index, value, w, target, residual)  # drops the rounding that updates pile up
        violation = float(_violations(index, value, residual, penalty, w, signed, violations))
        if violation <= tol or used >= max_iter:
            return used, violation, residual
        if cold and used == 0 and not signed:
            # Of an empty column nearly every item wants to come in; most have a bucket that is empty.
            active = np.empty(n, np.int64)
            active = active[: _all_buckets_positive(index, target, active)]
        else:
            # Items at zero that want to stay there leave the active set; violators come back.
            active = np.flatnonzero((w != 0.0) | (violations > 0.1 * tol))
        budget = min(_SWEEPS_PER_CHECK, max_iter - used)
        used += int(_sweep(active, index, value, penalty, w, residual, budget, 0.1 * tol, signed))


@dataclass(frozen=True)
class NonnegativeRecovery:
    """Coordinate-descent NNLS with an active set."""

    tol: float = 1e-8
    """largest KKT violation, over ‖Pᵀ w̃‖_∞"""
    max_iter: int = 20_000
    """most sweeps over the active set"""

    def recover(self, index: Index, value: Float64, target: Float64) -> ColumnSolution:
        """Return the column w (n,) ≥ 0 with P w ≈ w̃.

        index, value : (n, p), P in index form; target : (d,), w̃.
        """
        n = len(index)
        w = np.zeros(n)
        scale = float(np.abs(bucket_sums(index, value, target)).max(initial=0.0))
        if scale == 0.0:
            return ColumnSolution(w, Status.converged, 0, 0.0, 0.0)
        tol = self.tol * scale
        used, violation, residual = descend(index, value, target, np.zeros(n), w, tol, self.max_iter)
        status = Status.converged if violation <= tol else Status.max_iter_reached
        norm = float(np.linalg.norm(target)) or 1.0
        return ColumnSolution(w, status, used, float(np.linalg.norm(residual)) / norm, violation / scale)


def least_squares_on(support: Index, index: Index, value: Float64, target: Float64) -> Float64:
    """Return the entries (k,) on `support` that minimise ‖P w − w̃‖, to rounding, by conjugate gradients.

    index, value : (n, p), P in index form; target : (d,), w̃. Where every item has a bucket nearly to
    itself the equations are well conditioned: a few steps do.
    """
    k, p = len(support), index.shape[1]
    rows, entries = index[support].ravel(), value[support].ravel()
    part = csr_array((entries, rows, np.arange(0, k * p + 1, p)), shape=(k, len(target)))  # Pᵀ on the support
    return np.asarray(lsqr(part.T, target, atol=1e-15, btol=1e-15)[0])


def without_noise(noise: float) -> NonnegativeRecovery:
    """Return the solver that asks for no noise, of any: `noise` plays no part."""
    return NonnegativeRecovery()
