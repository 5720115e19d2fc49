"""Recover the factor along the compressed axis, one column a Dask task.

Step 3 of Compressed Factorization (Sharan et al. 2019, Algorithm 1): column j of W is the
sparse solution of ``P w = w̃_j``; the columns do not need one another.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from dask.delayed import delayed

from dcf.solvers.shared import block_task
from dcf.types import Block, ColumnSolution, Float64, Journal, Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from dcf.recovery.base import ColumnRecovery, IndexForm


@dataclass(frozen=True)
class ColumnReport:
    """How the recovery of one column ended."""

    status: Status
    """of the solve"""
    n_iter: int
    """sweeps over the active set"""
    residual: float
    """‖P w − w̃‖ / ‖w̃‖"""
    support: int
    """nonzeros of the column, or of the sparsest one found"""
    norm: float
    """‖w‖ as stored"""
    sparse: bool
    """whether it is the sparsest column found: no denser one foretold buckets kept out better"""

    def to_vector(self) -> Float64:
        """Return the report as numbers."""
        place = list(Status).index(self.status)
        return np.array([place, self.n_iter, self.residual, self.support, self.norm, self.sparse], np.float64)

    @classmethod
    def from_vector(cls, v: Float64) -> ColumnReport:
        """Read it back."""
        return cls(list(Status)[int(v[0])], int(v[1]), float(v[2]), int(v[3]), float(v[4]), bool(v[5]))


def recover_column(
    solver: ColumnRecovery, projection: IndexForm, rows: int, target: Float64
) -> ColumnSolution:
    """Return the column w (n,) with P w ≈ w̃, for w̃ = `target` (d,)."""
    return solver.recover(*projection.columns(0, rows), target)


def column_arrays(rows: int, dtype: str) -> dict[str, NDArray[Any]]:
    """Return empty arrays of the shapes that a column's journal entry has."""
    return {
        "column": np.empty(rows, dtype),
        "report": np.empty(len(fields(ColumnReport))),
    }


def finish_column(
    recovery: Callable[[float], ColumnRecovery],
    projection: IndexForm,
    rows: int,
    dtype: str,
    journal: Journal,
    target: Float64,
    noise: float,
    column: int,
) -> None:
    """Recover one column and journal it, unless the journal holds it."""
    place = Block(column, column, column + 1)
    if journal.load(place) is not None:
        return
    with block_task():
        solution = recover_column(recovery(noise), projection, rows, target)
        stored = solution.values.astype(dtype)
        report = ColumnReport(
            solution.status,
            solution.n_iter,
            solution.residual_norm,
            int(np.count_nonzero(stored)) if solution.sparsest is None else solution.sparsest,
            float(np.linalg.norm(stored.astype(np.float64))),
            solution.sparsest is None,
        )
        entry = {"column": stored, "report": report.to_vector()}
        journal.save(place, entry)


def recover(
    recovery: Callable[[float], ColumnRecovery],
    projection: IndexForm,
    rows: int,
    dtype: str,
    journal: Journal,
    targets: Float64,
    noises: Float64,
) -> Any:
    """Return the Dask graph that recovers every column of W from W̃ = `targets` (d, r).

    recovery : makes what solves a column, for the noise of its entries of W̃;
    noises : (r,), standard deviation of the entries of each column of W̃.

    Columns that the journal holds are not solved again.
    """
    task = delayed(partial(finish_column, recovery, projection, rows, dtype, journal), pure=False)
    columns = range(targets.shape[1])
    return delayed(list)([task(np.ascontiguousarray(targets[:, k]), float(noises[k]), k) for k in columns])
