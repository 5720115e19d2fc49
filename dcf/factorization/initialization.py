"""Starts: NNDSVD and random mixtures of rows for H, random factors of a tensor, random rotations."""

from collections.abc import Sequence

import numpy as np
from scipy.linalg import eigh

from dcf.types import Float64, Real

# Streams of raw draws, one a restart: far from the roles of the projections, which are small numbers.
_STARTS, _FACTORS = 4 << 32, 5 << 32


def nndsvd(m: Real, rank: int) -> Float64:
    """Return H (r, m) from the positive parts of the leading singular vectors.

    Boutsidis & Gallopoulos, *SVD based initialization: a head start for nonnegative matrix
    factorization*, Pattern Recognition 2008. Only H is made; W follows by least squares.
    """
    if not m.any():
        return np.ones((rank, m.shape[1]))
    u, vt = leading_singular_vectors(m.astype(np.float64, copy=False), min(rank, *m.shape))
    h = np.zeros((rank, m.shape[1]))
    for k in range(len(vt)):
        positive = np.maximum(u[:, k], 0), np.maximum(vt[k], 0)
        negative = np.maximum(-u[:, k], 0), np.maximum(-vt[k], 0)
        strengths = [np.linalg.norm(a) * np.linalg.norm(b) for a, b in (positive, negative)]
        h[k] = (positive, negative)[int(strengths[1] > strengths[0])][1]
    return h


def leading_singular_vectors(m: Float64, count: int) -> tuple[Float64, Float64]:
    """Return the leading left (n, count) and right (count, m) singular vectors.

    From the smaller Gram matrix, densely: ARPACK restarts at random on rank-deficient data, which
    would cost the run its bits.
    """
    wide = m.shape[0] <= m.shape[1]
    gram = m @ m.T if wide else m.T @ m
    last = len(gram) - 1
    vectors = eigh(gram, subset_by_index=(last + 1 - count, last), overwrite_a=True)[1][:, ::-1]
    others = m.T @ vectors if wide else m @ vectors
    norms = np.linalg.norm(others, axis=0)
    others = np.divide(others, norms, out=np.zeros_like(others), where=norms > 0)
    return (vectors, others.T) if wide else (others, vectors.T)


def random_rows(m: Real, rank: int, seed: int, restart: int) -> Float64:
    """Return H (r, m), each row the mean of a few rows of the data at random.

    Raw Philox draws keyed by (seed, restart), so that a start does not depend on NumPy's
    streams.
    """
    mixed = 3
    raw = np.random.Philox(key=[seed, _STARTS + restart]).random_raw(rank * mixed)
    chosen = (raw % np.uint64(len(m))).astype(np.int64).reshape(rank, mixed)
    rows = m[chosen.ravel()].astype(np.float64).reshape(rank, mixed, -1)
    means: Float64 = rows.mean(axis=1)
    return np.maximum(means, 0.0)


def random_factors(shape: Sequence[int], rank: int, seed: int, restart: int) -> list[Float64]:
    """Return a factor (n_j, r) for each mode, entries uniform in [−1, 1), from raw Philox draws."""
    raw = np.random.Philox(key=[seed, _FACTORS + restart]).random_raw(rank * sum(shape))
    entries = (raw >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0
    return np.split(entries.reshape(-1, rank), np.cumsum(shape)[:-1])


def random_rotation(rank: int, seed: int, restart: int) -> Float64:
    """Return an orthogonal matrix (r, r): the Q of Gaussian numbers from the raw draws of `random_rows`."""
    raw = np.random.Philox(key=[seed, _STARTS + restart]).random_raw(2 * rank * rank)
    radius, angle = (raw >> np.uint64(11)).reshape(2, rank, rank) * 2.0**-53
    return np.linalg.qr(np.sqrt(-2.0 * np.log1p(-radius)) * np.cos(2.0 * np.pi * angle))[0]
