"""The part of a matrix that stands out of its noise, and what of a factor is zero within it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dcf.factorization.initialization import leading_singular_vectors
from dcf.solvers.gram_nnls import inverse_gram

if TYPE_CHECKING:
    from dcf.types import Float64, Real

# Entries within three standard deviations are zeros: 99.7 % of those that are.
ZERO = 3.0
# With fewer zeros than this in some column of W̃, W is not sparse for its sketch: planted ones have at
# most 0.07 where k ≥ d, at least 0.13 where k ≤ 0.35 d (DESIGN.md). Lower penalties only find fewer.
LEAST_ZEROS = 0.1


class Truncated:
    """The part F Vᵀ of M in its leading r right singular vectors, in factored form.

    One subspace iteration sharpens them: the Gram matrix alone knows the small ones to ε σ₁² / σ_r².
    """

    def __init__(self, m: Real, rank: int) -> None:
        exact = m.astype(np.float64, copy=False)
        vectors = np.linalg.qr(leading_singular_vectors(exact, rank)[1].T)[0]
        self.right = np.linalg.qr(exact.T @ np.linalg.qr(exact @ vectors)[0])[0]
        self.left = exact @ self.right
        self.squared_norm = float(np.vdot(self.left, self.left))

    def times(self, right: Float64) -> Float64:
        """Return F Vᵀ · right, for (m, r)."""
        return np.asarray(self.left @ (self.right.T @ right))

    def transposed_times(self, left: Float64) -> Float64:
        """Return V Fᵀ · left, for (d, r)."""
        return np.asarray(self.right @ (self.left.T @ left))

    def noise(self, m: Real) -> float:
        """Return the standard deviation of an entry of `m` outside the truncated part.

        From the difference itself, not from norms, so that rounding alone leaves 1e-16.
        """
        rank = self.right.shape[1]
        freedom = (m.shape[0] - rank) * (m.shape[1] - rank)
        return distance(m, self.left, self.right.T) / float(np.sqrt(max(freedom, 1)))


def distance(m: Real, left: Float64, right: Float64) -> float:
    """Return ‖M − left · right‖_F, with one array of the size of M."""
    product = left @ right
    np.subtract(m, product, out=product)
    return float(np.linalg.norm(product))


def least_squares_weights(m: Real, components: Float64) -> Float64:
    """Return M Hᵀ (H Hᵀ)⁻¹ (d, r), entries of any sign."""
    a = (m @ components.T.astype(m.dtype)).astype(np.float64)
    return np.asarray(a @ inverse_gram(components @ components.T))


def column_noise(noise: float, components: Float64) -> Float64:
    """Return the standard deviation (r,) of the entries of each column of W̃ = M̃ Hᵀ (H Hᵀ)⁻¹.

    noise : of one entry of M̃; σ_j = noise · √((H Hᵀ)⁻¹_jj).
    """
    return np.asarray(noise * np.sqrt(np.diag(inverse_gram(components @ components.T))))


def zero_fraction(weights: Float64, noise: Float64) -> float:
    """Return the part of the entries of W̃ (d, r) that are zero within the noise (r,) of its columns.

    Of the column that has the fewest; one that is zero throughout tells nothing and counts as having
    none. Near zero where W is dense: then every bucket holds every component, nothing singles out one
    factorization of the sketch, and neither factor is to be believed. With k nonzeros a column of W
    and p ones a column of P it is near exp(−p k / d).
    """
    zeros = np.abs(weights) <= ZERO * noise
    return float(np.where(zeros.all(axis=0), 0.0, zeros.mean(axis=0)).min())
