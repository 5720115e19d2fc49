"""What every factorizer has: several starts, and the one loop, until a KKT ratio falls below a tolerance."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from dcf.types import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from dcf.types import FactorizationResult, Real

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


class Factorizer(Protocol):
    """What factorizes a matrix in memory."""

    def factorize(self, m: Real) -> FactorizationResult:
        """Return W (d, r) and H (r, m), rows of H of unit norm, with m ≈ W H for m (d, m)."""


@dataclass(frozen=True)
class Multistart(ABC):
    """A factorizer that takes the best of several starts."""

    rank: int
    """r"""
    restarts: int = 4
    """random starts besides the first"""
    tol: float = 1e-4
    """KKT ratio at which it has converged"""
    max_iter: int = 2000
    """most sweeps of the best start"""
    seed: int = 0
    """of the random starts"""
    threads: int = 1
    """starts that are tried at once; the result does not depend on it"""

    @abstractmethod
    def factorize(self, m: Real) -> FactorizationResult:
        """Return W (d, r) and H (r, m), rows of H of unit norm, with m ≈ W H for m (d, m)."""
