"""The two-sided sketch: Z = M Ω (n, q) and X = Ψ M (l, m), and the low-rank surrogate they make.

Tropp, Yurtsever, Udell & Cevher, *Practical sketching algorithms for low-rank matrix
approximation*, SIMAX 2017: with an orthonormal basis Q of the range of Z, ``M ≈ Q (ΨQ)⁺ X``. The
rows of Z stay where their blocks are; only the triangles of a tall-and-skinny QR (Demmel, Grigori,
Hoemmen & Langou 2012) and X travel. ΨZ is not summed: it is X Ω.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dcf.types import BlockSource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dcf.types import Float64, Real, RowStore

_SLICE_ROWS = 8192


def triangle(rows: Real) -> Float64:
    """Return R (q, q), float64, with RᵀR = ZᵀZ for the rows of Z (b, q), slice by slice.

    In float64 by QR. In float32, Z is rounded more than its squares lose in float64, and the root of their
    sum takes a quarter of the time.
    """
    q = rows.shape[1]
    r, gram = np.zeros((q, q)), np.zeros((q, q))
    for start in range(0, len(rows), _SLICE_ROWS):
        part = rows[start : start + _SLICE_ROWS].astype(np.float64)
        if rows.dtype == np.float32:
            gram += part.T @ part
        else:
            r = meet(r, part)
    if rows.dtype == np.float32:
        values, vectors = np.linalg.eigh(gram)
        r = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
    return r


def meet(above: Float64, below: Float64) -> Float64:
    """Return the triangle (q, q) of two triangles, or of a triangle and rows, stacked."""
    q = above.shape[1]
    r = np.zeros((q, q))
    met = np.linalg.qr(np.concatenate([above, below]), mode="r")
    r[: len(met)] = met
    return r


@dataclass(frozen=True)
class Surrogate:
    """M̂ = (Z A − 1 cᵀ) V, of rank at most q (q + 1 with means): what the two-sided sketch knows of M."""

    coordinates: Float64
    """A (q, k): takes a row of Z to its coordinates in V"""
    directions: Float64
    """V (k, m), orthonormal rows"""
    mean: Float64
    """c (k,), what is taken from the coordinates of every row; zeros where M is not centred"""

    @classmethod
    def of(cls, corange: Real, triangle: Float64, omega: Float64, precision: float) -> Surrogate:
        """Return the surrogate of X = `corange` (l, m), R = `triangle` (q, q) and Ω = `omega` (m, q).

        Singular values of Z below `precision` of the largest are its rounding, and are left out.
        """
        x = corange.astype(np.float64)
        _, values, vt = np.linalg.svd(triangle)
        kept = values > precision * max(float(values[0]), np.finfo(np.float64).tiny)
        basis = vt[kept].T / values[kept]  # Q = Z · basis
        core = np.linalg.lstsq(x @ (omega @ basis), x, rcond=None)[0]  # (ΨQ)⁺ X
        v, lower = np.linalg.qr(core.T)
        return cls(np.ascontiguousarray(basis @ lower.T), np.ascontiguousarray(v.T), np.zeros(v.shape[1]))

    def less_mean(self, mean: Float64) -> Surrogate:
        """Return the surrogate of M − 1 μᵀ, for the means μ = `mean` (m,) of its columns."""
        along = self.directions @ mean
        apart = mean - along @ self.directions
        apart -= (self.directions @ apart) @ self.directions  # what rounding left in the span
        norm = float(np.linalg.norm(apart))
        norm = norm if norm > 1e-10 * float(np.linalg.norm(mean)) else 0.0
        new = apart / norm if norm else np.zeros_like(apart)
        return Surrogate(
            np.pad(self.coordinates, ((0, 0), (0, 1))),
            np.concatenate([self.directions, new[None]]),
            np.append(self.mean + along, norm),
        )

    def less_row_means(self) -> Surrogate:
        """Return the surrogate of M (I − 11ᵀ/m): every row less its mean."""
        centred = self.directions - self.directions.mean(axis=1, keepdims=True)
        u, values, vt = np.linalg.svd(centred, full_matrices=False)
        kept = values > 1e-10  # a constant direction leaves nothing but rounding
        mixed = u[:, kept] * values[kept]
        return Surrogate(self.coordinates @ mixed, vt[kept], self.mean @ mixed)

    def leading(self, gram: Float64, sums: Float64, rows: int, count: int) -> Float64:
        """Return the `count` leading right singular vectors of M̂ (count, m), zeros where its rank is less.

        gram : ZᵀZ (q, q); sums : 1ᵀZ (q,); rows : n.
        """
        c, a = self.mean, self.coordinates
        mixed = np.outer(a.T @ sums, c)
        gram_of_rows = a.T @ gram @ a - mixed - mixed.T + rows * np.outer(c, c)
        vectors = np.linalg.eigh(gram_of_rows)[1][:, ::-1][:, :count]
        leading = vectors.T @ self.directions
        return np.pad(leading, ((0, count - len(leading)), (0, 0)))

    def noise(self, gram: Float64, rows: int, rank: int) -> float:
        """Return the standard deviation of a coordinate of a row of M̂ beyond its `rank` leading directions.

        gram : ZᵀZ (q, q); rows : n.
        """
        squares = np.linalg.eigvalsh(self.coordinates.T @ gram @ self.coordinates)[::-1][rank:]
        return float(np.sqrt(np.maximum(squares, 0.0).mean() / rows)) if len(squares) else 0.0

    def project(self, components: Float64) -> Float64:
        """Return H Vᵀ (r, k), the coordinates of H = `components` (r, m)."""
        return components @ self.directions.T

    def unseen(self, sketch: Float64, omega: Float64) -> Float64:
        """Return S (M − M̂) (t, m) from the sketch S M = `sketch` (t, m), with no look at Z.

        The same for M less its means, since M̂ is then less the same.
        """
        return sketch - (sketch @ omega) @ self.coordinates @ self.directions


@dataclass(frozen=True)
class SurrogateRows(BlockSource):
    """The rows of M̂ in the coordinates of V, as a `BlockSource` of width k."""

    rows: RowStore
    """Z (n, q), on disk"""
    coordinates: Real
    """A (q, k), in the dtype of the tiles"""
    mean: Real
    """c (k,), likewise"""

    @property
    def width(self) -> int:
        """k, the rank of the surrogate."""
        return int(self.coordinates.shape[1])

    def tiles(self, start: int, stop: int, absent: set[str]) -> Iterator[tuple[int, Real]]:
        """Yield (first row, rows of Z A − 1 cᵀ) in order."""
        z = np.asarray(self.rows[start:stop])
        for first in range(0, len(z), _SLICE_ROWS):
            yield start + first, z[first : first + _SLICE_ROWS] @ self.coordinates - self.mean

    def decoded_bytes(self, start: int, stop: int) -> int:
        """Return 0: nothing of the source is read."""
        return 0

    def position(self, row: int, column: int) -> str:
        """Name an entry of M̂ V."""
        return f"[{row}, {column}] of the surrogate"
