"""H of a canonical polyadic (CP) decomposition: each row a tensor of rank one.

T ≈ Σ_k a_k ∘ b_k ∘ c_k ∘ … unfolds along mode 0 to M ≈ A H with rows h_k = vec(b_k ∘ c_k ∘ …), in C
order. With A fixed the sums AᵀM and AᵀA know all that the other factors depend on:

    minimise  ½ ⟨AᵀA, H Hᵀ⟩ − ⟨AᵀM, H⟩  over  B, C, …

which is least squares in each of them alone. Alternating between them (Carroll & Chang 1970; Kolda &
Bader, *Tensor decompositions and applications*, SIAM Review 2009, §3.4) never raises it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from dcf.solvers.gram_nnls import inverse_gram, nonnegative_solve, projected_gradient
from dcf.solvers.models import Model, free_weights, nonnegative_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dcf.types import Float64

_SPLIT_SWEEPS = 20
_TOL = 1e-10
_MOST_SWEEPS = 500


def normalised(x: Float64) -> tuple[Float64, Float64]:
    """Return `x` (n, r) with columns of unit norm, zero ones left as they are, and the norms (r,)."""
    largest = np.abs(x).max(axis=0, initial=0.0)
    safe = np.where(largest > 0, largest, 1.0)
    scaled = x / safe  # whose squares neither overflow nor vanish
    norms = np.linalg.norm(scaled, axis=0)
    return scaled / np.where(norms > 0, norms, 1.0), norms * safe


def khatri_rao(factors: Sequence[Float64]) -> Float64:
    """Return H (r, Π n_j), row k the vectorised outer product of columns k of the factors (n_j, r)."""
    rows = np.ascontiguousarray(factors[0].T)
    for factor in factors[1:]:
        rows = (rows[:, :, None] * factor.T[:, None, :]).reshape(len(rows), -1)
    return rows


def _contract_after(tensors: Float64, factors: Sequence[Float64]) -> Float64:
    """Contract the last modes of each of r tensors (r, …) with column k of `factors`; return (r, rest)."""
    rest = tensors.reshape(len(tensors), -1)
    for factor in reversed(factors):
        vectors = np.ascontiguousarray(factor.T)[:, :, None]
        rest = (rest.reshape(len(rest), -1, len(factor)) @ vectors)[:, :, 0]
    return rest


def _contract_first(tensors: Float64, factor: Float64) -> Float64:
    """Contract the first mode of each of r tensors (r, n_j · rest) with column k; return (r, rest)."""
    vectors = np.ascontiguousarray(factor.T)[:, None, :]
    return np.asarray((vectors @ tensors.reshape(len(tensors), len(factor), -1))[:, 0, :])


def split(components: Float64, shape: Sequence[int]) -> tuple[list[Float64], Float64]:
    """Return factors (n_j, r) of unit columns, and norms (r,), whose Khatri-Rao product is near H.

    Exactly H where its rows are of rank one: the fibres through the largest entry of a row are then
    its factors. Otherwise they start the higher-order power method (De Lathauwer, De Moor &
    Vandewalle, SIMAX 2000). The largest entry of each column is positive in all modes but the first,
    which carries the sign of the row; a zero row gives zero columns.
    """
    rank = len(components)
    largest = np.unravel_index(np.abs(components).argmax(axis=1), tuple(shape))
    tensors = components.reshape(rank, *shape)
    factors = []
    for mode in range(len(shape)):
        through = [at[:, None] for at in largest]
        through[mode] = np.arange(shape[mode])[None, :]
        fibres = tensors[np.arange(rank)[:, None], *through]
        factors.append(normalised(np.ascontiguousarray(fibres.T))[0])
    norms = np.zeros(rank)
    for _ in range(_SPLIT_SWEEPS):
        before, rest = norms, components
        for mode in range(len(shape)):
            fitted = _contract_after(rest, factors[mode + 1 :])
            factors[mode], norms = normalised(np.ascontiguousarray(fitted.T))
            rest = _contract_first(rest, factors[mode])
        if (np.abs(norms - before) <= 1e-12 * norms).all():
            break
    for factor in factors[1:]:
        sign = np.where(factor[np.abs(factor).argmax(axis=0), np.arange(rank)] < 0, -1.0, 1.0)
        factor *= sign
        factors[0] *= sign
    return factors, norms


def orthonormal(factor: Float64) -> Float64:
    """Return an orthonormal basis (n, r) of the leading columns; `factor` itself where n < r."""
    return factor if len(factor) < factor.shape[1] else np.asarray(np.linalg.qr(factor)[0])


class ModeProblems:
    """The least squares problem of each other mode, given L = AᵀM (r, Π n_j) and G = AᵀA (r, r).

    Columns of A count as of unit norm, so that no component is lost beside a larger one: `norms` (r,)
    are theirs, `unit` (r,) the inverses.
    """

    def __init__(self, linear: Float64, gram: Float64, nonnegative: bool) -> None:
        self.norms = np.sqrt(np.maximum(np.diag(gram), 0.0))
        self.unit = np.divide(1.0, self.norms, out=np.zeros_like(self.norms), where=self.norms > 0)
        self._linear = linear
        self._gram = gram * self.unit * self.unit[:, None]
        self._nonnegative = nonnegative

    def _problem(
        self, mode: int, rest: Float64, factors: Sequence[Float64], grams: Sequence[Float64]
    ) -> tuple[Float64, Float64]:
        """Return the linear term (n_j, r) and the Gram matrix (r, r), modes before `mode` contracted."""
        a = np.ascontiguousarray(_contract_after(rest, factors[mode + 1 :]).T) * self.unit
        return a, prod((gram for j, gram in enumerate(grams) if j != mode), start=self._gram)

    def _ratio(self, a: Float64, g: Float64, x: Float64) -> float:
        gradient = projected_gradient(a, g, x) if self._nonnegative else x @ g - a
        return float(np.linalg.norm(gradient) / (np.linalg.norm(a) or 1.0))

    def _solve(self, a: Float64, g: Float64, x: Float64) -> Float64:
        if self._nonnegative:
            return nonnegative_solve(a, g)
        # A correction lowers the objective even where the inverse leaves directions out.
        solution = x + (a - x @ g) @ inverse_gram(g)
        return np.where(np.diag(g) > 0, solution, 0.0)

    def sweep(
        self, factors: list[Float64], norms: Float64, orthogonal: bool = False
    ) -> tuple[Float64, float]:
        """Solve for each of the `factors` (n_j, r) in turn, in place; return the norms and the KKT ratio.

        The ratio is the largest over the modes of the projected gradient, before the mode's own update,
        over its linear term. With `orthogonal` a mode sees the others' columns orthonormalised.
        """
        used = [orthonormal(factor) if orthogonal else factor for factor in factors]
        grams = [factor.T @ factor for factor in used]
        rest, ratio = self._linear, 0.0
        for mode, factor in enumerate(factors):
            a, g = self._problem(mode, rest, used, grams)
            x = factor * norms
            ratio = max(ratio, self._ratio(a, g, x))
            factors[mode], norms = normalised(self._solve(a, g, x))
            used[mode] = orthonormal(factors[mode]) if orthogonal else factors[mode]
            grams[mode] = used[mode].T @ used[mode]
            rest = _contract_first(rest, used[mode])
        return norms, ratio

    def violation(self, factors: Sequence[Float64], norms: Float64) -> float:
        """Return the largest projected gradient of a mode over its linear term."""
        grams = [factor.T @ factor for factor in factors]
        rest, ratio = self._linear, 0.0
        for mode, factor in enumerate(factors):
            a, g = self._problem(mode, rest, factors, grams)
            ratio = max(ratio, self._ratio(a, g, factor * norms))
            rest = _contract_first(rest, factor)
        return ratio


@dataclass(frozen=True)
class Polyadic(Model):
    """CP: rows of H are outer products of one vector a mode, W is the factor of the compressed mode."""

    shape: tuple[int, ...]
    """entries along each mode but the compressed one"""
    nonnegative: bool
    """whether all factors are at least zero"""

    def weights_solver(self, gram: Float64) -> Callable[[Float64], Float64]:
        """Return (nonnegative) least squares, row by row."""
        return nonnegative_weights(gram) if self.nonnegative else free_weights(gram)

    def feasible(self, x: Float64) -> Float64:
        """Return the nearest array to `x`, a factor or H, that the model allows the signs of."""
        return np.maximum(x, 0.0) if self.nonnegative else x

    def components(self, linear: Float64, gram: Float64, start: Float64) -> Float64:
        """Return H (r, Π n_j) of least ½⟨WᵀW, HHᵀ⟩ − ⟨WᵀM, H⟩ that alternating over the modes reaches.

        From the rank-one parts of `start` (r, Π n_j), to a KKT ratio of 1e-10 or for 500 sweeps.
        """
        problems = ModeProblems(linear, gram, self.nonnegative)
        factors, norms = split(self.feasible(start), self.shape)
        norms = norms * problems.norms
        for _ in range(_MOST_SWEEPS):
            norms, ratio = problems.sweep(factors, norms)
            if ratio <= _TOL:
                break
        factors[0] = factors[0] * (norms * problems.unit)
        return khatri_rao(factors)

    def violation(self, linear: Float64, gram: Float64, components: Float64) -> float:
        """Return the KKT ratio of the factors of H, the largest over the modes."""
        problems = ModeProblems(linear, gram, self.nonnegative)
        factors, norms = split(self.feasible(components), self.shape)
        return problems.violation(factors, norms * problems.norms)
