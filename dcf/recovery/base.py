"""What a solver of one column is, and what it needs of a projection."""

from __future__ import annotations

import math
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


# k ln(n/k) rows is where recovery of k nonzeros among n begins to succeed; so much more is asked for.
SAFETY = 1.25


def rows_to_carry(support: int, rows: int) -> int:
    """Return the sketch size d that carries columns of k = `support` nonzeros among n = `rows`.

    d = 1.25 k ln(n/k), the order of Candès & Wakin 2008 (*An introduction to compressive sampling*); the
    factor is measured (DESIGN.md). Of more than n/e nonzeros, as of so many: it no longer grows.
    """
    k = min(support, rows / math.e)
    return math.ceil(SAFETY * k * math.log(rows / k)) if support else 0
