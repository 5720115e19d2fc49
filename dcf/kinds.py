"""What each decomposition has of its own: which W and H it allows, what factorizes, what recovers.

The one table in which the name of a decomposition is resolved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from dcf.factorization.nmf import HalsNMF
from dcf.factorization.sparsest import SparsestNMF
from dcf.factorization.svd import TruncatedSVD
from dcf.plan import mean_of
from dcf.recovery.nnls import without_noise
from dcf.recovery.reweighted import ReweightedRecovery
from dcf.solvers.models import Nonnegative, RowCentred, SemiNonnegative, Unconstrained

if TYPE_CHECKING:
    from collections.abc import Callable

    from dcf.plan import Plan
    from dcf.recovery.base import ColumnRecovery
    from dcf.settings import Settings
    from dcf.solvers.models import Model
    from dcf.types import FactorizationResult, Float64, Real


class Factorizer(Protocol):
    """What factorizes a matrix in memory."""

    def factorize(self, m: Real) -> FactorizationResult:
        """Return W (d, r) and H (r, m), rows of H of unit norm, with m ≈ W H for m (d, m)."""


@runtime_checkable
class Comparable(Factorizer, Protocol):
    """What can also go on from an H, so that its candidates are compared on rows kept out."""

    def carry_on(self, m: Real, components: Float64) -> FactorizationResult:
        """Return the factors of `m` (d, m) that are reached from H = `components` (r, m)."""


def model_of(settings: Settings, plan: Plan, noise: float) -> Model:
    """Return which W and H the decomposition allows; noise: of an entry of M, where W is to be sparse."""
    kind = settings.decomposition
    if kind == "svd":
        return RowCentred() if mean_of(plan.axis, settings) == "rows" else Unconstrained()
    return SemiNonnegative() if kind == "semi-nmf" else Nonnegative()


def row_factorizer(settings: Settings, plan: Plan, threads: int) -> Factorizer:
    """Return what factorizes rows of M, or all of it."""
    if settings.decomposition == "svd":
        return TruncatedSVD(settings.rank)
    return HalsNMF(**_common(settings, threads))


def sketch_factorizer(settings: Settings, plan: Plan, threads: int) -> Factorizer:
    """Return what factorizes the one-sided sketch P M, with W̃ of any sign and the noise told."""
    return SparsestNMF(**_common(settings, threads))


def recovery_of(settings: Settings) -> Callable[[float], ColumnRecovery]:
    """Return what makes the solver of a column of W, for the noise of an entry of W̃."""
    return ReweightedRecovery


def baseline_recovery_of(settings: Settings) -> Callable[[float], ColumnRecovery]:
    """Return what makes the solver of a column of M itself, of which no noise is known."""
    return without_noise


def _common(settings: Settings, threads: int) -> dict[str, Any]:
    tol = {} if settings.tol is None else {"tol": settings.tol}
    return {
        "rank": settings.rank,
        "restarts": settings.restarts,
        "max_iter": settings.max_iter,
        "seed": settings.seed,
        "threads": threads,
        **tol,
    }
