"""Compile the kernels of a run once, in the driver, before its workers load them from the cache.

Compiling takes a process some 80 MB and ten seconds the first time; each worker doing it for
itself would break the memory promise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dcf.refinement.alternating import refine_block
from dcf.sketch.compress import SketchRecipe, compress_block
from dcf.sketch.projections import CountSketch, Folded, Role, SparseBinary, SparseSign
from dcf.types import Block, BlockSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dcf.plan import Plan
    from dcf.recovery.base import ColumnRecovery
    from dcf.solvers.models import Model
    from dcf.types import Real

_ROWS, _WIDTH = 12, 4


class _Tiny(BlockSource):
    """A dozen rows of M."""

    width = _WIDTH

    def __init__(self, dtype: str) -> None:
        self._entries: Real = np.arange(1, _ROWS * _WIDTH + 1).reshape(_ROWS, _WIDTH).astype(dtype)

    def tiles(self, start: int, stop: int, absent: set[str]) -> Iterator[tuple[int, Real]]:
        """Yield one tile."""
        yield start, self._entries[start:stop]

    def decoded_bytes(self, start: int, stop: int) -> int:
        """Return the bytes of these rows."""
        return int(self._entries[start:stop].nbytes)

    def position(self, row: int, column: int) -> str:
        """Name an entry."""
        return f"[{row}, {column}]"


def compile_kernels(plan: Plan, model: Model, recovery: Callable[[float], ColumnRecovery]) -> None:
    """Run the block tasks of `plan` on a dozen rows of the same dtype."""
    source, block = _Tiny(plan.dtype), Block(0, 0, _ROWS)
    projection = SparseBinary(0, 8, 2) if plan.sketch_size else None
    probe = CountSketch(0, 4, role=Role.probe)
    span = Folded(0, 3) if plan.range_size else None
    corange = SparseSign(0, 8, 2, Role.corange) if plan.range_size else None
    capacity = 3 if plan.sample_size else 0
    recipe = SketchRecipe(0, probe, capacity, projection, span, corange, plan.dtype, False)
    compress_block(source, recipe, block)
    refine_block(source, model, np.ones((2, _WIDTH)), None, plan.dtype, block)
    if projection is not None:
        recovery(1.0).recover(*projection.columns(0, _ROWS), np.ones(8))
