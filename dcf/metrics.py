"""How good factors are, against the truth or one another, after matching permutation and scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import linear_sum_assignment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dcf.types import Float64


def _unit_columns(w: NDArray[Any]) -> Float64:
    w = np.asarray(w, np.float64)
    norms = np.linalg.norm(w, axis=0)
    return w / np.where(norms > 0, norms, 1.0)


def match(w: NDArray[Any], truth: NDArray[Any]) -> tuple[NDArray[np.int64], Float64]:
    """Match the columns of `w` to those of `truth`, both (n, r), by the size of their cosine.

    Returns for every column of `truth` its partner in `w` (r,) and their cosine (r,); where neither
    factor has to be nonnegative a component may come back with the other sign, and so does its cosine.
    """
    cosines = _unit_columns(truth).T @ _unit_columns(w)
    _, partners = linear_sum_assignment(-np.abs(cosines))
    return partners, cosines[np.arange(len(partners)), partners]


def factor_match_score(factors: Sequence[NDArray[Any]], truth: Sequence[NDArray[Any]]) -> float:
    """Return the mean over the components of Π_j |cos| between factors and truth, lists of (n_j, r).

    The components are matched by assignment; their weights are left out. Acar, Dunlavy, Kolda &
    Mørup, *Scalable tensor factorizations for incomplete data*, 2011.
    """
    cosines = [np.abs(_unit_columns(b).T @ _unit_columns(a)) for a, b in zip(factors, truth, strict=True)]
    scores = np.prod(cosines, axis=0)
    return float(scores[linear_sum_assignment(-scores)].mean())


def column_errors(w: NDArray[Any], truth: NDArray[Any]) -> Float64:
    """Return ‖w_k − truth_k‖ of the matched unit columns, their signs as they match best, (r,)."""
    partners, cosines = match(w, truth)
    matched = _unit_columns(w)[:, partners] * np.where(cosines < 0, -1.0, 1.0)
    return np.asarray(np.linalg.norm(matched - _unit_columns(truth), axis=0))


def support_f1(w: NDArray[Any], truth: NDArray[Any]) -> Float64:
    """Return the F1 score of the supports of the matched columns, (r,)."""
    partners, _ = match(w, truth)
    found, true = np.asarray(w)[:, partners] != 0, np.asarray(truth) != 0
    both = (found & true).sum(0)
    return np.asarray(2.0 * both / np.maximum(found.sum(0) + true.sum(0), 1))
