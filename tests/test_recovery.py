"""Laws of the recovery of a column."""

import numpy as np
import pytest
from scipy.optimize import nnls

from dcf.recovery.columns import recover_column
from dcf.recovery.nnls import NonnegativeRecovery
from dcf.sketch.projections import SparseBinary
from dcf.types import Status


def planted_column(n, k, seed):
    generator = np.random.default_rng(seed)
    w = np.zeros(n)
    w[generator.choice(n, k, replace=False)] = 0.2 + generator.exponential(size=k)
    return w


@pytest.mark.parametrize("seed", range(5))
def test_an_exact_sketch_gives_back_the_column(seed):
    n, d, k = 20_000, 1000, 50
    p, w = SparseBinary(seed, d, 5), planted_column(n, k, seed)
    solution = recover_column(NonnegativeRecovery(), p, n, _compress(p, w))
    assert solution.status is Status.converged
    assert np.linalg.norm(solution.values - w) <= 1e-8 * np.linalg.norm(w)
    assert (solution.values >= 0).all()


def _compress(p, w):
    out = np.zeros((p.sketch_size, 1))
    p.accumulate(w[:, None], 0, out)
    return out[:, 0]


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.5])
def test_kkt_conditions_and_lawson_hanson(noise):
    n, d = 300, 120
    p, w = SparseBinary(1, d, 5), planted_column(n, 25, 1)
    target = _compress(p, w)
    target += noise * np.random.default_rng(2).standard_normal(d)
    solver = NonnegativeRecovery()
    solution = recover_column(solver, p, n, target)
    dense = p.dense(0, n)
    gradient = dense.T @ (target - dense @ solution.values)
    scale = np.abs(dense.T @ target).max()
    assert np.abs(gradient[solution.values > 0]).max() <= 1e-8 * scale
    assert gradient.max() <= 1e-8 * scale
    best = nnls(dense, target)[1]
    assert np.linalg.norm(target - dense @ solution.values) <= best + 1e-6 * np.linalg.norm(target)


def test_a_zero_bucket_forces_zeros_without_noise():
    p, w = SparseBinary(0, 400, 5), planted_column(5000, 20, 0)
    target = _compress(p, w)
    values = recover_column(NonnegativeRecovery(), p, 5000, target).values
    index, _ = p.columns(0, 5000)
    assert (values[(target[index] == 0).any(axis=1)] == 0).all()


def test_nothing_comes_from_nothing():
    solution = recover_column(NonnegativeRecovery(), SparseBinary(0, 50, 5), 200, np.zeros(50))
    assert solution.status is Status.converged
    assert (solution.values == 0).all()
    negative = recover_column(NonnegativeRecovery(), SparseBinary(0, 50, 5), 200, -np.ones(50))
    assert negative.status is Status.converged
    assert (negative.values == 0).all()


def test_too_few_sweeps_are_told():
    p, w = SparseBinary(0, 100, 5), planted_column(5000, 400, 0)
    solution = recover_column(NonnegativeRecovery(max_iter=3), p, 5000, _compress(p, w))
    assert solution.status is Status.max_iter_reached
    assert solution.kkt > 1e-8
