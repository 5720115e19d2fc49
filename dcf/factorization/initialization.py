"""Starts for H: NNDSVD and random mixtures of rows."""

import numpy as np
from scipy.sparse.linalg import svds

from dcf.types import Float64, Real


def nndsvd(m: Real, rank: int) -> Float64:
    """Return H (r, m) from the positive parts of the leading singular vectors.

    Boutsidis & Gallopoulos, *SVD based initialization: a head start for nonnegative matrix
    factorization*, Pattern Recognition 2008. Only H is made; W follows by least squares.
    """
    if not m.any():
        return np.ones((rank, m.shape[1]))
    if rank < min(m.shape):
        start = np.ones(min(m.shape))
        u, s, vt = svds(m.astype(np.float64, copy=False), k=rank, v0=start, solver="arpack")
        u, s, vt = u[:, ::-1], s[::-1], vt[::-1]
    else:
        u, s, vt = np.linalg.svd(m.astype(np.float64, copy=False), full_matrices=False)
    h = np.zeros((rank, m.shape[1]))
    for k in range(min(rank, len(s))):
        positive = np.maximum(u[:, k], 0), np.maximum(vt[k], 0)
        negative = np.maximum(-u[:, k], 0), np.maximum(-vt[k], 0)
        strengths = [np.linalg.norm(a) * np.linalg.norm(b) for a, b in (positive, negative)]
        h[k] = (positive, negative)[int(strengths[1] > strengths[0])][1]
    return h


def random_rows(m: Real, rank: int, seed: int, restart: int) -> Float64:
    """Return H (r, m), each row the mean of a few rows of the data at random.

    Raw Philox draws keyed by (seed, restart), so that a start does not depend on NumPy's
    streams.
    """
    mixed = 3
    raw = np.random.Philox(key=[seed, (4 << 32) + restart]).random_raw(rank * mixed)
    chosen = (raw % np.uint64(len(m))).astype(np.int64).reshape(rank, mixed)
    rows = m[chosen.ravel()].astype(np.float64).reshape(rank, mixed, -1)
    means: Float64 = rows.mean(axis=1)
    return np.maximum(means, 0.0)
