"""New rows of data against an H that is known: W alone, exactly, tile by tile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from dcf.errors import BudgetError
from dcf.plan import DRIVER_BASE, STRIPE_BYTES, TILE_BYTES
from dcf.settings import parse_memory
from dcf.sizes import MIB, decoding
from dcf.sketch.compress import refuse_bad_entry
from dcf.solvers.shared import single_blas_thread
from dcf.solvers.sums import squared_row_norms
from dcf.storage.derived import InMemory
from dcf.storage.source import ArraySource, layout_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import zarr
    from numpy.typing import NDArray

    from dcf.types import BlockSource, Float64, Real

# Entries of H to this power of two have products far inside the range of float32.
_EXPONENT_AT_EASE = 40


def solve_stored(
    array: zarr.Array[Any],
    components: NDArray[Any],
    weights_solver: Callable[[Float64], Callable[[Float64], Float64]],
    negatives_allowed: bool,
    memory: str | int,
) -> Real:
    """Return W (n, r) = argmin ‖M − W H‖_F for a stored M, unfolded along its axis 0 to (n, m).

    components : H (r, m); weights_solver : as that of a `Model`. Reads every chunk once. Raises
    `BudgetError` before it reads one, where `memory` cannot hold a row of chunks and W; `SourceError`
    for what cannot be solved for.
    """
    layout = layout_of(array)
    rows, row_bytes = layout.shape[0], layout.nbytes // layout.shape[0]
    chunk_rows = min(layout.chunks[0], rows)
    stripe_rows = min(chunk_rows * max(1, STRIPE_BYTES // (chunk_rows * row_bytes)), rows)
    computed = np.dtype(layout.compute_dtype).itemsize
    tile_bytes = _tile_rows(components, computed) * components.shape[1] * computed
    result = rows * len(components) * computed
    need = (
        DRIVER_BASE
        + stripe_rows * row_bytes
        + decoding(layout, 0, stripe_rows)[1]
        + 8 * tile_bytes
        + 4 * components.nbytes
        + result
    )
    if need > parse_memory(memory):
        raise BudgetError(
            f"transform needs {-(-need // MIB)}MiB, memory allows {parse_memory(memory) // MIB}MiB (W itself"
            f" takes {-(-result // MIB)}MiB): raise memory, or store the data in smaller chunks."
        )
    source = ArraySource(
        array, 0, stripe_rows, _tile_rows(components, computed), 1, dtype=layout.compute_dtype
    )
    return _solve(source, rows, components.astype(source.dtype), weights_solver, negatives_allowed)


def solve_entries(
    entries: NDArray[Any],
    components: NDArray[Any],
    weights_solver: Callable[[Float64], Callable[[Float64], Float64]],
    negatives_allowed: bool,
) -> Real:
    """Return W (n, r) = argmin ‖M − W H‖_F for M in memory, unfolded along its axis 0 to (n, m)."""
    dtype = np.dtype(np.float64 if entries.dtype == np.float64 else np.float32)
    source = InMemory(entries.reshape(len(entries), -1), _tile_rows(components, dtype.itemsize))
    return _solve(source, len(entries), components.astype(dtype), weights_solver, negatives_allowed)


def _tile_rows(components: NDArray[Any], itemsize: int) -> int:
    return max(8, TILE_BYTES // (int(components.shape[1]) * itemsize))


def _solve(
    source: BlockSource,
    rows: int,
    h: Real,
    weights_solver: Callable[[Float64], Callable[[Float64], Float64]],
    negatives_allowed: bool,
) -> Real:
    weights = np.empty((rows, len(h)), h.dtype)
    exponent = int(np.frexp(np.abs(h).max(initial=0.0))[1])
    # The same power of two out of M and H leaves W as it is.
    exponent = exponent if abs(exponent) > _EXPONENT_AT_EASE else 0
    h = cast("Real", np.ldexp(h, -exponent)) if exponent else h
    with single_blas_thread():
        solve = weights_solver(h.astype(np.float64) @ h.T.astype(np.float64))
        for start, tile in source.tiles(0, rows, set()):
            entries = cast("Real", np.ascontiguousarray(tile, h.dtype))
            entries = cast("Real", np.ldexp(entries, -exponent)) if exponent else entries
            norms = np.empty(len(entries))
            squared_row_norms(entries, norms)
            if not np.isfinite(norms).all() or (not negatives_allowed and entries.min() < 0.0):
                refuse_bad_entry(source, negatives_allowed, ((0, entries),), start)
            weights[start : start + len(entries)] = solve((entries @ h.T).astype(np.float64))
    return weights
