"""What each decomposition has of its own: which W and H it allows, what factorizes, what recovers.

The one table in which the name of a decomposition is resolved.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from dcf.factorization.base import Factorizer
from dcf.factorization.cp import HalsCP
from dcf.factorization.nmf import HalsNMF
from dcf.factorization.orthogonalized import OrthogonalizedALS
from dcf.factorization.semi_nmf import SemiNMF
from dcf.factorization.sparse_pca import SparsePCA
from dcf.factorization.sparsest import SparsestNMF
from dcf.factorization.svd import TruncatedSVD
from dcf.factorization.unclipped import Unclipped
from dcf.recovery.checked import CheckedRecovery
from dcf.recovery.nnls import without_noise
from dcf.recovery.reweighted import ReweightedRecovery
from dcf.sizes import mean_of
from dcf.solvers.models import Nonnegative, RowCentred, SemiNonnegative, Unconstrained
from dcf.solvers.polyadic import Polyadic
from dcf.solvers.sparse_weights import SparseWeights

if TYPE_CHECKING:
    from collections.abc import Callable

    from dcf.plan import Plan
    from dcf.recovery.base import ColumnRecovery
    from dcf.settings import Settings
    from dcf.solvers.models import Model
    from dcf.types import FactorizationResult, Float64, Real


@runtime_checkable
class Comparable(Factorizer, Protocol):
    """What can also go on from an H, so that its candidates are compared on rows kept out."""

    def carry_on(self, m: Real, components: Float64) -> FactorizationResult:
        """Return the factors of `m` (d, m) that are reached from H = `components` (r, m)."""


def model_of(settings: Settings, plan: Plan, noise: float) -> Model:
    """Return which W and H the decomposition allows; noise: of an entry of M, where W is to be sparse."""
    match settings.decomposition:
        case "svd":
            return RowCentred() if mean_of(plan.axis, settings) == "rows" else Unconstrained()
        case "cp":
            return Polyadic(plan.others, settings.nonnegative)
        case "spca":
            return SparseWeights(noise, plan.rows)
        case "semi-nmf":
            return SemiNonnegative()
        case _:
            return Nonnegative()


def row_factorizer(settings: Settings, plan: Plan, threads: int) -> Factorizer:
    """Return what factorizes rows of M, or all of it."""
    common = _common(settings, threads)
    match settings.decomposition:
        case "svd":
            return TruncatedSVD(settings.rank)
        case "cp":
            tensor = OrthogonalizedALS if settings.signed else HalsCP
            return tensor(shape=plan.slices, **common)
        case "spca":
            return SparsePCA(**common)
        case "semi-nmf":
            return SemiNMF(**common)
        case _:
            return HalsNMF(**common)


def sketch_factorizer(settings: Settings, plan: Plan, threads: int) -> Factorizer:
    """Return what factorizes the one-sided sketch P M, with W̃ of any sign and the noise told."""
    if settings.decomposition == "nmf":
        return SparsestNMF(**_common(settings, threads))
    factorizer = row_factorizer(settings, plan, threads)
    return Unclipped(factorizer) if settings.decomposition == "cp" else factorizer


def recovery_of(settings: Settings) -> Callable[[float], ColumnRecovery]:
    """Return what makes the solver of a column of W, for the noise of an entry of W̃."""
    return CheckedRecovery if settings.nonnegative else partial(CheckedRecovery, signed=True)


def baseline_recovery_of(settings: Settings) -> Callable[[float], ColumnRecovery]:
    """Return what makes the solver of a column of M itself, for the noise of an entry of P M."""
    return without_noise if settings.negatives == "error" else partial(ReweightedRecovery, signed=True)


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
