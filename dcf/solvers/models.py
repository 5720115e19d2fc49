"""Which W and H a decomposition M ≈ W H allows: all that one has of its own in a pass over the data.

Each model solves ``min ½ ‖M − W H‖²_F`` exactly for W with H fixed, row by row from M Hᵀ and H Hᵀ, and
for H with W fixed, from WᵀM and WᵀW: sums of which a pass over row blocks needs no more.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dcf.solvers.gram_nnls import gram_nnls, inverse_gram, nonnegative_solve, projected_gradient

if TYPE_CHECKING:
    from collections.abc import Callable

    from dcf.types import Float64


class Model(ABC):
    """The sets that W and H are taken from."""

    @abstractmethod
    def weights_solver(self, gram: Float64) -> Callable[[Float64], Float64]:
        """Return what solves rows of W (b, r) from M Hᵀ (b, r), for H Hᵀ = `gram` (r, r)."""

    @abstractmethod
    def components(self, linear: Float64, gram: Float64, start: Float64) -> Float64:
        """Return H (r, m) for WᵀM = `linear` (r, m) and WᵀW = `gram` (r, r), from H = `start` (r, m)."""

    @abstractmethod
    def violation(self, linear: Float64, gram: Float64, components: Float64) -> float:
        """Return the KKT ratio of H: its projected gradient over the norm of `linear`."""


def _ratio(gradient: Float64, linear: Float64) -> float:
    return float(np.linalg.norm(gradient) / (np.linalg.norm(linear) or 1.0))


def nonnegative_weights(gram: Float64) -> Callable[[Float64], Float64]:
    """Return nonnegative least squares, row by row, on the Gram matrix (r, r)."""
    inverse = inverse_gram(gram)

    def solve(linear: Float64) -> Float64:
        solution = np.maximum(linear @ inverse, 0.0)
        gram_nnls(linear, gram, solution)
        return solution

    return solve


def free_weights(gram: Float64) -> Callable[[Float64], Float64]:
    """Return least squares, row by row, on the Gram matrix (r, r)."""
    inverse = inverse_gram(gram)
    return lambda linear: linear @ inverse


class _NonnegativeComponents(Model):
    """H ≥ 0."""

    def components(self, linear: Float64, gram: Float64, start: Float64) -> Float64:
        """Return H (r, m) ≥ 0, column by column; `start` plays no part."""
        return np.ascontiguousarray(nonnegative_solve(np.ascontiguousarray(linear.T), gram).T)

    def violation(self, linear: Float64, gram: Float64, components: Float64) -> float:
        """Return the projected gradient of H over the norm of `linear`."""
        columns = np.ascontiguousarray(components.T)
        return _ratio(projected_gradient(np.ascontiguousarray(linear.T), gram, columns), linear)


class FreeComponents(Model):
    """H of any sign."""

    def components(self, linear: Float64, gram: Float64, start: Float64) -> Float64:
        """Return H (r, m) = (WᵀW)⁺ WᵀM; `start` plays no part."""
        return inverse_gram(gram) @ linear

    def violation(self, linear: Float64, gram: Float64, components: Float64) -> float:
        """Return the gradient of H over the norm of `linear`."""
        return _ratio(gram @ components - linear, linear)


@dataclass(frozen=True)
class Nonnegative(_NonnegativeComponents):
    """NMF: W ≥ 0 and H ≥ 0."""

    def weights_solver(self, gram: Float64) -> Callable[[Float64], Float64]:
        """Return nonnegative least squares, row by row."""
        return nonnegative_weights(gram)


@dataclass(frozen=True)
class SemiNonnegative(_NonnegativeComponents):
    """Semi-NMF (Ding, Li & Jordan 2010): W of any sign, H ≥ 0."""

    def weights_solver(self, gram: Float64) -> Callable[[Float64], Float64]:
        """Return least squares."""
        return free_weights(gram)


@dataclass(frozen=True)
class Unconstrained(FreeComponents):
    """Any W and H: least squares, whose answer is the truncated SVD."""

    def weights_solver(self, gram: Float64) -> Callable[[Float64], Float64]:
        """Return least squares."""
        return free_weights(gram)


@dataclass(frozen=True)
class RowCentred(Unconstrained):
    """Any W and H for rows less their means: the last row of H is 1ᵀ/√m, that column of W their √m-fold.

    The other rows of H are orthogonal to it, so that M − W H is what it would be for M (I − 11ᵀ/m).
    """

    def components(self, linear: Float64, gram: Float64, start: Float64) -> Float64:
        """Return H (r, m), its last row as it was."""
        centred = linear[:-1] - linear[:-1].mean(axis=1, keepdims=True)
        free = super().components(centred, gram[:-1, :-1], start[:-1])
        return np.concatenate([free, start[-1:]])
