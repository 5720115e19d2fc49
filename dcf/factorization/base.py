"""The one loop of every factorizer: sweep until a KKT ratio falls below a tolerance."""

from collections.abc import Callable

from dcf.types import Status

_PATIENCE = 200


def sweep_until(
    sweep: Callable[[], float], tol: float, max_iter: int, floor: float = 0.0
) -> tuple[Status, int, float]:
    """Call `sweep`, which returns the KKT ratio of the point it started from, until it is ≤ `tol`.

    Returns the status, the sweeps made and the last ratio. `stagnated` means that the ratio has
    not improved for 200 sweeps while below `floor`, the level that rounding allows.
    """
    best, since, ratio = float("inf"), 0, float("inf")
    for n_iter in range(1, max_iter + 1):
        ratio = sweep()
        if ratio <= tol:
            return Status.converged, n_iter, ratio
        since = 0 if ratio < best else since + 1
        best = min(best, ratio)
        if since >= _PATIENCE and best <= floor:
            return Status.stagnated, n_iter, ratio
    return Status.max_iter_reached, max_iter, ratio
