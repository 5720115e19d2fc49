"""The form in which factors are stored: unit columns, components by decreasing norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from dcf.types import Float64, Index


@dataclass(frozen=True)
class Canonical:
    """What takes a raw pair W (n, k), H (k, m) to the stored one, W T (n, r) and H' (r, m)."""

    transform: Float64
    """T (k, r)"""
    components: Float64
    """H' (r, m), rows of the norms below"""
    norms: Float64
    """(r,) of the components, decreasing"""
    order: Index
    """(r,) which component of the raw pair each of them was, where they are the same ones"""
    squared_loss: float = 0.0
    """‖W H − W T H'‖²_F"""


def unit_columns(gram: Float64, components: Float64) -> Canonical:
    """Scale the columns of W to unit norm, which H takes over, and order them.

    gram : WᵀW (r, r), of which the diagonal counts; components : H (r, m).
    """
    weight_norms = np.sqrt(np.diag(gram))
    norms = weight_norms * np.linalg.norm(components, axis=1)
    order = np.argsort(-norms, kind="stable")
    scales = np.divide(1.0, weight_norms, out=np.zeros_like(norms), where=weight_norms > 0)
    transform = np.zeros_like(gram)
    transform[order, np.arange(len(order))] = scales[order]
    return Canonical(transform, components[order] * weight_norms[order, None], norms[order], order)


def singular_triplets(gram: Float64, components: Float64, rank: int, precision: float = 0.0) -> Canonical:
    """Return the leading `rank` singular triplets of W H: orthonormal W T, orthogonal rows of H'.

    gram : WᵀW (k, k); components : H (k, m). The columns of W are brought to unit norm first, so that
    the square root of their Gram matrix is accurate however their norms differ. A triplet of no more than
    `precision` times the largest, the rounding of the data, is none.
    """
    k = len(gram)
    norms = np.sqrt(np.diag(gram))
    scales = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    values, vectors = np.linalg.eigh(gram * np.outer(scales, scales))
    kept = values > k * np.finfo(np.float64).eps * max(float(values[-1]), 0.0)
    # W = Q R with Q = W D V Λ^-1/2 orthonormal and R = Λ^1/2 Vᵀ D⁻¹.
    roots, basis = np.sqrt(values[kept]), vectors[:, kept]
    to_q = scales[:, None] * basis / roots
    left, singular, right = np.linalg.svd(
        (roots[:, None] * basis.T * norms) @ components, full_matrices=False
    )
    singular = np.where(singular > precision * singular.max(initial=0.0), singular, 0.0)
    left = left * (singular > 0.0)
    short = max(0, rank - len(singular))
    loss = float(np.square(singular[rank:]).sum())
    singular, right = np.pad(singular[:rank], (0, short)), np.pad(right[:rank], ((0, short), (0, 0)))
    transform = np.pad((to_q @ left)[:, :rank], ((0, 0), (0, short)))
    # Of each vector the largest entry is positive, whatever sign the solver gave it.
    signs = np.where(right[np.arange(rank), np.abs(right).argmax(axis=1)] < 0, -1.0, 1.0)
    components = right * (signs * singular)[:, None]
    return Canonical(transform * signs, components, singular, np.arange(rank), loss)
