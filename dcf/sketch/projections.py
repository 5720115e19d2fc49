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
    fold_columns,
    gather_rows,
    gaussian_columns,
    scatter_rows,
    sparse_columns,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from dcf.types import Float64, Index, Real


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
        index, value = self.columns(start, start + tile.shape[0])
        scatter_rows(tile, index, cast("Real", value.astype(out.dtype)), out)

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


LEAST_FOLD = 127


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
        """The size a of the first fold: enough to keep a few q directions apart."""
        return max(LEAST_FOLD, 3 * self.sketch_size) | 1

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

    def product(self, width: int, dtype: str) -> Callable[[Real, Real], None]:
        """Return what writes tile · Ω (b, q) into an array, for tiles (b, m) of that dtype.

        Narrow tiles are multiplied as they are.
        """
        if width <= 2 * self.fold + 2:
            omega = np.ascontiguousarray(self.dense(width), dtype)

            def multiply_whole(tile: Real, out: Real) -> None:
                np.matmul(tile, omega, out=out)

            return multiply_whole
        mixed, sign = self._mixed().astype(dtype), self._signs(width).astype(dtype)

        def multiply(tile: Real, out: Real) -> None:
            folded = cast("Real", np.empty((len(tile), len(mixed)), dtype))
            fold_columns(tile, cast("Real", sign), self.fold, folded)
            np.matmul(folded, mixed, out=out)
            if self.ones:
                out[:, 0] = tile.sum(axis=1, dtype=np.float64) / np.sqrt(self.sketch_size)

        return multiply


def sample_of(seed: int, mode: int, size: int, count: int) -> Index:
    """Return `count` of the entries 0 … size − 1 of a mode, in order: those of the smallest draws."""
    if count == size:
        return np.arange(size)
    raw = np.random.Philox(key=[seed, (int(Role.slices) << 32) + mode]).random_raw(size)
    return np.sort(np.argsort(raw, kind="stable")[:count])
