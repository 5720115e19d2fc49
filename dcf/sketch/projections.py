"""Random projections P (d, n) whose column i depends on (seed, role, i) alone.

Nothing of P is stored: a task makes the columns of the rows it reads. All of them pickle to a
few integers.
"""

import enum
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dcf.sketch.kernels import (
    gather_rows,
    gaussian_columns,
    scatter_rows,
    sparse_columns,
    uniform_columns,
)
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

    def accumulate(self, tile: Real, start: int, out: Float64) -> None:
        """Add P[:, start:start+b] · tile to `out` (d, m), for a tile (b, m)."""
        scatter_rows(tile, *self.columns(start, start + tile.shape[0]), out)

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


@dataclass(frozen=True)
class Gaussian:
    """Entries N(0, 1/d), so that E‖Px‖² = ‖x‖²; dense, for short n only."""

    seed: int
    """of the run"""
    sketch_size: int
    """d, rows of P"""
    role: Role = Role.compress
    """which stream"""

    def _rows(self, start: int, stop: int) -> Float64:
        out = np.empty((stop - start, self.sketch_size))
        gaussian_columns(self.seed, int(self.role), start, out)
        out /= np.sqrt(self.sketch_size)
        return out

    def accumulate(self, tile: Real, start: int, out: Float64) -> None:
        """Add P[:, start:start+b] · tile to `out` (d, m), for a tile (b, m)."""
        out += self._rows(start, start + tile.shape[0]).T @ tile

    def transpose(self, v: Float64, start: int, stop: int) -> Float64:
        """Return P[:, start:stop]ᵀ · v, (stop − start, k), for v (d, k)."""
        return self._rows(start, stop) @ v

    def dense(self, start: int, stop: int) -> Float64:
        """Return the panel P[:, start:stop] as a dense array (d, stop − start)."""
        return np.ascontiguousarray(self._rows(start, stop).T)


@dataclass(frozen=True)
class GaussianWithOnes(Gaussian):
    """A Gaussian projection whose first row is constant: M Ω then knows the sums of the rows of M."""

    def _rows(self, start: int, stop: int) -> Float64:
        out = super()._rows(start, stop)
        out[:, 0] = 1.0 / np.sqrt(self.sketch_size)
        return out


def uniform(seed: int, role: Role, start: int, stop: int) -> Float64:
    """Return one uniform draw in (0, 1] for each of the columns start … stop, (stop − start,)."""
    out = np.empty(stop - start)
    uniform_columns(seed, int(role), start, out)
    return out


def sample_of(seed: int, mode: int, size: int, count: int) -> Index:
    """Return `count` of the entries 0 … size − 1 of a mode, in order: those of the smallest draws."""
    if count == size:
        return np.arange(size)
    raw = np.random.Philox(key=[seed, (int(Role.slices) << 32) + mode]).random_raw(size)
    return np.sort(np.argsort(raw, kind="stable")[:count])
