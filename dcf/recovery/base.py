"""What a solver of one column is, and what it needs of a projection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from dcf.types import Projection

if TYPE_CHECKING:
    from dcf.types import ColumnSolution, Float64, Index


class IndexForm(Projection, Protocol):
    """A sparse projection, whose columns can be had as rows and entries."""

    def columns(self, start: int, stop: int) -> tuple[Index, Float64]:
        """Return columns start … stop: rows and entries, both (stop − start, p)."""


class ColumnRecovery(Protocol):
    """What solves P w = w̃ for a sparse w."""

    def recover(self, index: Index, value: Float64, target: Float64) -> ColumnSolution:
        """Return the column w (n,) with P w ≈ w̃, for P in index form (n, p) and w̃ (d,)."""
