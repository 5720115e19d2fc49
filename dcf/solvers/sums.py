"""Sums that every pass needs, in float64 whatever the data."""

import numpy as np

from dcf.solvers.jit import kernel
from dcf.types import Float64, Real

# ‖M‖²_F between which products of M with the factors, and their squares, stay in the range of the numbers.
REACH = {"float32": (1e-28, 1e34), "float64": (1e-120, 1e120)}


@kernel
def squared_row_norms(tile: Real, out: Float64) -> None:
    """Write the float64 squared ℓ2 norm of every row of `tile` (b, m) into `out` (b,)."""
    for i in range(tile.shape[0]):
        total = 0.0
        for j in range(tile.shape[1]):
            entry = np.float64(tile[i, j])
            total += entry * entry
        out[i] = total
