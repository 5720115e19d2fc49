"""Planted problems, generated chunk by chunk into Zarr."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dcf.solvers.polyadic import khatri_rao
from dcf.storage.arrays import allocate_plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from dcf.types import Float64


@dataclass(frozen=True)
class Planted:
    """A planted matrix on disk and the truth behind it."""

    path: Path
    """the Zarr array (n, m)"""
    components: Float64
    """H (r, m)"""
    noise_floor: float
    """‖M − WH‖_F / ‖M‖_F of the planted pair"""


def planted_weights(seed: int, start: int, stop: int, rank: int, density: float) -> Float64:
    """Return rows start … stop of the planted W (n, r), `density` of it nonzero."""
    generator = np.random.Generator(np.random.Philox(key=[seed, 1], counter=[0, 0, start, 0]))
    shape = (stop - start, rank)
    return generator.exponential(size=shape) * (generator.random(shape) < density)


def planted_nmf(
    path: str | Path,
    shape: tuple[int, int],
    rank: int,
    *,
    density: float = 0.2,
    noise: float = 0.01,
    seed: int = 0,
    chunks: tuple[int, int] = (4096, 1024),
    threads: int = 2,
    progress: Callable[[int], None] = lambda _: None,
) -> Planted:
    """Write M = (W H) ∘ (1 + noise · N(0, 1)), float32, to a new Zarr array at `path`.

    `progress` is told the bytes written so far. The factors can be made again from the seed:
    the truth takes no space.
    """
    n, m = shape
    array = allocate_plain(path, shape, (min(chunks[0], n), min(chunks[1], m)), "float32")
    h = np.random.Generator(np.random.Philox(key=[seed, 2])).random((rank, m))
    h32 = h.astype(np.float32)
    step = min(chunks[0], n)

    def fill(start: int) -> tuple[float, float]:
        stop = min(start + step, n)
        w = planted_weights(seed, start, stop, rank, density).astype(np.float32)
        exact = w @ h32
        generator = np.random.Generator(np.random.SFC64([seed, 3, start]))
        error = generator.standard_normal(exact.shape, dtype=np.float32)
        error *= noise
        error *= exact
        exact += error
        array[start:stop] = exact
        return float(np.vdot(error, error)), float(np.vdot(exact, exact))

    squared_error, squared_norm, written = 0.0, 0.0, 0
    with ThreadPoolExecutor(threads) as pool:
        for error, norm in pool.map(fill, range(0, n, step)):
            squared_error, squared_norm = squared_error + error, squared_norm + norm
            written += step * m * 4
            progress(min(written, n * m * 4))
    return Planted(Path(path), h, float(np.sqrt(squared_error / squared_norm)))


@dataclass(frozen=True)
class PlantedTensor:
    """A planted tensor on disk and the truth behind it."""

    path: Path
    """the Zarr array"""
    factors: tuple[Float64, ...]
    """a factor (n_k, r) for each mode"""
    noise_floor: float
    """‖T − Σ a ∘ b ∘ …‖_F / ‖T‖_F of the planted factors"""


def planted_cp(
    path: str | Path,
    shape: tuple[int, ...],
    rank: int,
    *,
    density: float = 0.5,
    noise: float = 0.05,
    seed: int = 0,
    chunk_rows: int = 4096,
) -> PlantedTensor:
    """Write T = (Σ_k a_k ∘ b_k ∘ …) · (1 + noise · N(0, 1)), entrywise, float32, to a new array at `path`.

    Factors are nonnegative, `density` of the entries of each nonzero.
    """
    draw = np.random.Generator(np.random.Philox(key=[seed, 4]))
    factors = tuple(draw.exponential(size=(n, rank)) * (draw.random((n, rank)) < density) for n in shape)
    h = khatri_rao(factors[1:]).astype(np.float32)
    array = allocate_plain(path, shape, (min(chunk_rows, shape[0]), *shape[1:]), "float32")
    squared_error = squared_norm = 0.0
    for start in range(0, shape[0], chunk_rows):
        exact = factors[0][start : start + chunk_rows].astype(np.float32) @ h
        generator = np.random.Generator(np.random.SFC64([seed, 5, start]))
        error = np.float32(noise) * exact * generator.standard_normal(exact.shape, dtype=np.float32)
        array[start : start + chunk_rows] = (exact + error).reshape(-1, *shape[1:])
        squared_error += float(np.vdot(error, error))
        squared_norm += float(np.square(exact + error, dtype=np.float64).sum())
    return PlantedTensor(Path(path), factors, float(np.sqrt(squared_error / squared_norm)))
