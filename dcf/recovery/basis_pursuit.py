"""Sparse recovery of one column by linear programming, as in the paper.

    minimise  ‖w‖₁  subject to  P w = w̃,  and  w ≥ 0  where the column is nonnegative

Basis pursuit (Chen, Donoho & Saunders 1998) is step 3 of Compressed Factorization (Sharan et al. 2019,
Algorithm 1). A signed column is the difference w = u − v of nonnegative ones: min 1ᵀ(u + v) subject to
P(u − v) = w̃. The equations are exact: a target with noise that no column explains is infeasible.

For 0/1 P with p ones a column and a w̃ that some w ≥ 0 explains, the two have the same solutions:
1ᵀw = 1ᵀw̃ / p for all that explain it, and ‖w‖₁ is as small as that only where w ≥ 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csc_array, hstack

from dcf.types import ColumnSolution, Float64, Index, Status

# What linprog calls its ends. Number 3, unbounded, cannot be: the objective is at least zero.
_STATUS = {
    0: Status.converged,
    1: Status.max_iter_reached,
    2: Status.infeasible,
    4: Status.stagnated,
}


@dataclass(frozen=True)
class BasisPursuit:
    """The linear program, by HiGHS."""

    nonnegative: bool
    """whether w ≥ 0"""
    time_limit: float | None = None
    """seconds after which the solve ends as it is; None for none"""

    def recover(self, index: Index, value: Float64, target: Float64) -> ColumnSolution:
        """Return the column w (n,) of least ℓ1 norm with P w = w̃; zeros where HiGHS has found none.

        index, value : (n, p), P in index form; target : (d,), w̃.
        """
        n, p = index.shape
        scale = float(np.abs(target).max(initial=0.0))
        if scale == 0.0:
            return ColumnSolution(np.zeros(n), Status.converged, 0, 0.0, 0.0)
        pointers = np.arange(0, n * p + 1, p)
        projection = csc_array((value.ravel(), index.ravel(), pointers), shape=(len(target), n))
        equations = projection if self.nonnegative else hstack([projection, -projection], format="csc")
        limit = {} if self.time_limit is None else {"time_limit": self.time_limit}
        scaled = target / scale  # the tolerances of HiGHS are absolute
        end = linprog(
            np.ones(equations.shape[1]),
            A_eq=equations,
            b_eq=scaled,
            # 2.6 times faster than the simplex under noise, 1.3 times slower without (n = 7129, d = 1425).
            method="highs-ipm",
            # Presolve takes out the items in empty buckets, if w ≥ 0; of a signed column it finds nothing,
            # and takes as long as the solve.
            options={"presolve": self.nonnegative} | limit,
        )
        w, gap = np.zeros(n), np.inf
        if end.x is not None:
            w = end.x if self.nonnegative else end.x[:n] - end.x[n:]
            # The dual: max w̃ᵀ y subject to Pᵀ y ≤ 1, or |Pᵀ y| ≤ 1.
            gap = abs(float(end.fun - scaled @ end.eqlin.marginals)) / abs(float(end.fun))
        residual = float(np.linalg.norm(projection @ w - scaled) / np.linalg.norm(scaled))
        return ColumnSolution(scale * w, _STATUS[end.status], int(end.nit), residual, gap)
