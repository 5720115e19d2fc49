"""Factorization in factored form: min ‖M̂ − W H‖²_F for a surrogate M̂ known by blocks.

Zhou, Cichocki & Xie, *Fast nonnegative matrix/tensor factorization based on low-rank
approximation*, IEEE TSP 2012: with M̂ of low rank a sweep touches n(q + r) numbers and never M.
W is solved exactly, row by row, so that a sweep is a function of H alone and no n-sized array
is kept between sweeps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dcf.factorization.base import sweep_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from dcf.solvers.models import Model
    from dcf.types import Float64, Status


def factorize_surrogate(
    model: Model,
    sums: Callable[[Float64], tuple[Float64, Float64]],
    components: Float64,
    tol: float,
    max_sweeps: int,
) -> tuple[Float64, Status, int, float]:
    """Carry H = `components` (r, m) to a KKT ratio of `tol` on the surrogate, in at most `max_sweeps`.

    `sums` solves W for an H over all blocks and returns WᵀM̂ (r, m) and WᵀW (r, r). Returns H, with
    rows of unit norm, the status, the sweeps made and the last KKT ratio (that of W is zero).
    """
    h = np.array(components)

    def sweep() -> float:
        nonlocal h
        linear, gram = sums(h)
        ratio = model.violation(linear, gram, h)
        if ratio > tol:
            h = model.components(linear, gram, h)
            norms = np.linalg.norm(h, axis=1, keepdims=True)
            h /= np.where(norms > 0, norms, 1.0)
        return ratio

    status, n_iter, ratio = sweep_until(sweep, tol, max_sweeps)
    return h, status, n_iter, ratio
