"""Random projections P (d, n) whose column i depends on (seed, role, i) alone.

Nothing of P is stored: a task makes the columns of the rows it reads. All of them pickle to a
few integers.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

import numpy as np

from dcf.sketch.kernels import (
    gather_rows,
    gaussian_columns,
    scatter_rows,
    sparse_columns,
)

if TYPE_CHECKING:
    from dcf.types import Float64, Index, Panels, Real


class Role(enum.IntEnum):
    """What a stream of random numbers is for; streams of different roles are independent."""

    compress = 1
    probe = 2
    rows = 3
    restart = 4
    range = 5
    corange = 6
    slices = 7


@dataclass(frozen=True)
class _Sparse(ABC):
    """A projection with `nnz` entries a column, at distinct uniform rows."""

    signed: ClassVar[bool]

    seed: int
    """of the run"""
    sketch_size: int
    """d, rows of P"""
    nnz: int = 5
    """p, nonzeros of a column"""
    role: Role = Role.compress
    """which stream"""

    def __post_init__(self) -> None:
        if not 1 <= self.nnz <= self.sketch_size:
            raise ValueError(f"{self.nnz} nonzeros do not fit a column of {self.sketch_size} rows")

    @property
    @abstractmethod
    def scale(self) -> float:
        """The absolute value of a nonzero entry."""

    def columns(self, start: int, stop: int) -> tuple[Index, Float64]:
        """Return columns start … stop in index form: rows and entries, both (stop − start, p)."""
        index = np.empty((stop - start, self.nnz), np.int64)
        value = np.empty((stop - start, self.nnz))
        sparse_columns(self.seed, int(self.role), start, self.sketch_size, self.signed, index, value)
        if self.scale != 1.0:
            value *= self.scale
        return index, value

    def accumulate(self, tile: Real, start: int, out: Real) -> None:
        """Add P[:, start:start+b] · tile to `out` (d, m), for a tile (b, m), in the precision of `out`."""
        index, value, out = self.scattered(start, start + tile.shape[0], out)
        scatter_rows(tile, 0, index, value, out)

    def scattered(self, start: int, stop: int, out: Real) -> tuple[Index, Real, Real]:
        """Return columns start … stop in index form, and `out` (d, m), to which their product with M goes."""
        index, value = self.columns(start, stop)
        return index, cast("Real", value.astype(out.dtype, copy=False)), out

    def transpose(self, v: Float64, start: int, stop: int) -> Float64:
        """Return P[:, start:stop]ᵀ · v, (stop − start, k), for v (d, k)."""
        out = np.empty((stop - start, v.shape[1]))
        gather_rows(*self.columns(start, stop), v, out)
        return out

    def dense(self, start: int, stop: int) -> Float64:
        """Return the panel P[:, start:stop] as a dense array (d, stop − start)."""
        index, value = self.columns(start, stop)
        panel = np.zeros((self.sketch_size, stop - start))
        panel[index, np.arange(stop - start)[:, None]] = value
        return panel


@dataclass(frozen=True)
class SparseBinary(_Sparse):
    """0/1 entries, p ones a column: the projection of Sharan et al. 2019 (their §3)."""

    signed = False

    @property
    def scale(self) -> float:
        """1: buckets are plain sums."""
        return 1.0


@dataclass(frozen=True)
class SparseSign(_Sparse):
    """Entries ±1/√p, p a column (OSNAP of Nelson & Nguyên 2013): E‖Px‖² = ‖x‖²."""

    signed = True

    @property
    def scale(self) -> float:
        """1/√p."""
        return float(1.0 / np.sqrt(self.nnz))


@dataclass(frozen=True)
class CountSketch(_Sparse):
    """One ±1 a column (Charikar, Chen, Farach-Colton 2002); the probe is one of these."""

    nnz: int = 1
    signed = True

    @property
    def scale(self) -> float:
        """1."""
        return 1.0

    def __post_init__(self) -> None:
        if self.nnz != 1:
            raise ValueError(f"a count sketch has one nonzero a column, not {self.nnz}")


LEAST_FOLD = 125
_VECTOR = 16  # sums of a fold and its empty ones fill whole vectors


@dataclass(frozen=True)
class Folded:
    """Ωᵀ (q, m), whose product with a row of M takes few operations an entry however large q is.

    Random signs fold the m columns twice, to j mod a and to j mod (a + 2), a odd, so that no two of
    a (a + 2) columns meet twice; a Gaussian matrix mixes these 2a + 2 sums (Clarkson & Woodruff, *Low rank
    approximation and regression in input sparsity time*, 2013). Up to m = a its entries are independent
    N(0, 1/q).
    """

    seed: int
    """of the run"""
    sketch_size: int
    """q, columns of Ω"""
    ones: bool = False
    """whether the first column of Ω is constant: M Ω then knows the sums of the rows of M"""
    role: Role = Role.range
    """which stream"""

    @property
    def fold(self) -> int:
        """The size a of the first fold: enough to keep a few q directions apart, a + 3 a whole of vectors."""
        return -(-(max(LEAST_FOLD, 3 * self.sketch_size) + 3) // _VECTOR) * _VECTOR - 3

    def _mixed(self) -> Float64:
        """Return the Gaussian matrix (2a + 2, q) that mixes the sums."""
        mixed = np.empty((2 * self.fold + 2, self.sketch_size))
        gaussian_columns(self.seed, int(self.role), 0, mixed)
        mixed /= np.sqrt(2.0 * self.sketch_size)
        return mixed

    def _signs(self, width: int) -> Float64:
        """Return the two signs of every column, (2, m)."""
        index, sign = np.empty((width, 2), np.int64), np.empty((width, 2))
        sparse_columns(self.seed, int(self.role), 0, 2, True, index, sign)
        return np.ascontiguousarray(sign.T)

    def dense(self, width: int) -> Float64:
        """Return Ω (m, q) as a dense array."""
        j, mixed, sign = np.arange(width), self._mixed(), self._signs(width)
        omega: Float64 = sign[0][:, None] * mixed[j % self.fold]
        omega += sign[1][:, None] * mixed[self.fold + j % (self.fold + 2)]
        if self.ones:
            omega[:, 0] = 1.0 / np.sqrt(self.sketch_size)
        return omega

    def product(self, width: int, dtype: str) -> Product:
        """Return how to multiply tiles (b, m) of that dtype by Ω; narrow ones are multiplied as they are."""
        capacity = self.fold + 3
        if width <= 2 * self.fold + 2:
            no_sign = cast("Real", np.empty((2, 0, capacity), dtype))
            return Product(self.fold, no_sign, cast("Real", self.dense(width).astype(dtype)), 0.0)
        mixed, signs = self._mixed(), self._signs(width)
        sign = np.zeros((2, -(-width // self.fold), capacity), dtype)
        padded = np.zeros((2, capacity, self.sketch_size), dtype)
        for k, length in enumerate((self.fold, self.fold + 2)):
            pieces = -(-width // length)
            of_pieces = np.pad(signs[k], (0, pieces * length - width)).reshape(pieces, length)
            sign[k, :pieces, :length] = of_pieces
            padded[k, :length] = mixed[k * self.fold : k * self.fold + length]
        constant = 1.0 / np.sqrt(self.sketch_size) if self.ones else 0.0
        return Product(
            self.fold, cast("Real", sign), cast("Real", padded.reshape(2 * capacity, -1)), constant
        )


@dataclass(frozen=True)
class Product:
    """Multiplies rows of M, given as panels of columns, by Ω."""

    size: int
    """a, of the first fold"""
    sign: Real
    """(2, pieces, c), the signs of both folds for `fold_columns`; no piece where nothing is folded"""
    matrix: Real
    """what mixes the sums (2 c, q), or Ω itself (m, q) where nothing is folded"""
    constant: float
    """the entry of the first column, where that is constant and folding would blur it; else 0"""

    @classmethod
    def none(cls, width: int, dtype: str) -> Product:
        """Return the product with an Ω of no column."""
        sign, matrix = np.empty((2, 0, 0), dtype), np.empty((width, 0), dtype)
        return cls(1, cast("Real", sign), cast("Real", matrix), 0.0)

    def sums(self, rows: int) -> Real:
        """Return zeros (rows, 2 c), to which the panels are folded."""
        width = 2 * self.sign.shape[2] if self.sign.size else 0
        return cast("Real", np.zeros((rows, width), self.sign.dtype))

    def mix(self, panels: Panels, folded: Real, out: Real) -> None:
        """Write M Ω (b, q) of these rows, of which `folded` holds the sums."""
        if self.sign.size:
            np.matmul(folded, self.matrix, out=out)
        else:
            for first, panel in panels:
                part = self.matrix[first : first + panel.shape[1]]
                if first:
                    out += panel @ part
                else:
                    np.matmul(panel, part, out=out)
        if self.constant:
            out[:, 0] = self.constant * row_sums(panels)


def row_sums(panels: Panels) -> Float64:
    """Return the float64 sum of every row (b,)."""
    return cast("Float64", sum(panel.sum(axis=1, dtype=np.float64) for _, panel in panels))


def sample_of(seed: int, mode: int, size: int, count: int) -> Index:
    """Return `count` of the entries 0 … size − 1 of a mode, in order: those of the smallest draws."""
    if count == size:
        return np.arange(size)
    raw = np.random.Philox(key=[seed, (int(Role.slices) << 32) + mode]).random_raw(size)
    return np.sort(np.argsort(raw, kind="stable")[:count])
