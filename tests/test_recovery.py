"""Laws of the recovery of a column."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from dcf.recovery.base import ColumnRecovery, rows_to_carry
from dcf.recovery.basis_pursuit import BasisPursuit
from dcf.recovery.checked import CheckedRecovery, bucket
from dcf.recovery.columns import recover_column
from dcf.recovery.lasso import Lasso
from dcf.recovery.nnls import NonnegativeRecovery, descend
from dcf.recovery.reweighted import ReweightedRecovery
from dcf.sketch.projections import SparseBinary
from dcf.types import Status


@dataclass(frozen=True)
class Row:
    """A solver and what it solves."""

    solver: ColumnRecovery
    signed: bool = False
    """columns of either sign, not w ≥ 0"""
    equations: bool = False
    """P w = w̃ exactly, or infeasible"""


TABLE = {
    "nnls": Row(NonnegativeRecovery()),
    "reweighted": Row(ReweightedRecovery(noise=0.0)),
    "checked": Row(CheckedRecovery(noise=0.0)),
    "lasso": Row(Lasso(penalty=1e-9, tol=1e-11), signed=True),
    "signed-reweighted": Row(ReweightedRecovery(noise=0.0, signed=True), signed=True),
    "nonnegative-lp": Row(BasisPursuit(nonnegative=True), equations=True),
    "signed-lp": Row(BasisPursuit(nonnegative=False), equations=True, signed=True),
}


def of(rows):
    """Run a test for each of the rows."""
    return pytest.mark.parametrize("row", rows.values(), ids=rows.keys())


every_solver = of(TABLE)
nonnegative_solvers = of({name: row for name, row in TABLE.items() if not row.signed})
signed_solvers = of({name: row for name, row in TABLE.items() if row.signed})
linear_programs = of({name: row for name, row in TABLE.items() if row.equations})


def planted_column(n, k, seed):
    generator = np.random.default_rng(seed)
    w = np.zeros(n)
    w[generator.choice(n, k, replace=False)] = 0.2 + generator.exponential(size=k)
    return w


def _compress(p, w):
    out = np.zeros((p.sketch_size, 1))
    p.accumulate(w[:, None], 0, out)
    return out[:, 0]


def noisy(n, d, k, noise, seed):
    """P, a planted column and its sketch with noise."""
    p, w = SparseBinary(seed, d, 5), planted_column(n, k, seed)
    return p, w, _compress(p, w) + noise * np.random.default_rng(seed).standard_normal(d)


def sparse(seed):
    """P, a column far below every solver's threshold and its exact sketch."""
    return noisy(1500, 300, 15, 0.0, seed)


def assert_same(values, expected, tol=1e-6):
    assert np.linalg.norm(values - expected) <= tol * np.linalg.norm(expected)


@every_solver
@pytest.mark.parametrize("seed", range(3))
def test_an_exact_sketch_gives_back_the_column(seed, row):
    p, w, target = sparse(seed)
    solution = recover_column(row.solver, p, len(w), target)
    assert solution.status is Status.converged
    assert_same(solution.values, w)
    assert row.signed or (solution.values >= 0).all()
    assert solution.residual_norm <= 1e-6
    assert solution.kkt <= 1e-8


@signed_solvers
@pytest.mark.parametrize("seed", range(3))
def test_an_exact_sketch_gives_back_a_column_of_either_sign(seed, row):
    p, w, _ = sparse(seed)
    w *= np.random.default_rng(seed).choice([-1.0, 1.0], len(w))
    assert_same(recover_column(row.solver, p, len(w), _compress(p, w)).values, w)


@pytest.mark.parametrize("solver", [NonnegativeRecovery(), ReweightedRecovery(1e-9), ReweightedRecovery(0.0)])
@pytest.mark.parametrize("seed", range(3))
def test_descent_gives_back_a_long_column_to_1e_8(seed, solver):
    p, w, target = noisy(20_000, 1000, 50, 0.0, seed)
    solution = recover_column(solver, p, len(w), target)
    assert solution.status is Status.converged
    assert_same(solution.values, w, 1e-8)
    assert (solution.values >= 0).all()


@every_solver
def test_nothing_comes_from_nothing(row):
    solution = recover_column(row.solver, SparseBinary(0, 50, 5), 200, np.zeros(50))
    assert solution.status is Status.converged
    assert (solution.values == 0).all()


@nonnegative_solvers
def test_a_negative_sketch_has_no_nonnegative_column(row):
    solution = recover_column(row.solver, SparseBinary(0, 50, 5), 200, -np.ones(50))
    assert solution.status is (Status.infeasible if row.equations else Status.converged)
    assert (solution.values == 0).all()


@every_solver
def test_a_single_entry_comes_back(row):
    w = np.zeros(1500)
    w[77] = 3.0
    p = SparseBinary(0, 300, 5)
    solution = recover_column(row.solver, p, len(w), _compress(p, w))
    assert_same(solution.values, w)
    np.testing.assert_array_equal(np.flatnonzero(solution.values), [77])


@every_solver
def test_the_order_of_items_and_buckets_does_not_matter(row):
    p, w, target = sparse(0)
    index, value = p.columns(0, len(w))
    generator = np.random.default_rng(0)
    items, buckets = generator.permutation(len(w)), generator.permutation(len(target))
    one = row.solver.recover(index, value, target).values
    shuffled = np.empty_like(target)
    shuffled[buckets] = target
    other = row.solver.recover(buckets[index[items]], value[items], shuffled).values
    assert_same(other, one[items])


@every_solver
@pytest.mark.parametrize("factor", [1e-12, 1e-6, 3.0, 1e6, 1e12])
def test_the_column_follows_the_units_of_the_sketch(factor, row):
    p, w, target = sparse(1)
    one = recover_column(row.solver, p, len(w), target).values
    other = recover_column(row.solver, p, len(w), factor * target)
    assert other.status is Status.converged
    assert_same(other.values, factor * one)


@linear_programs
@pytest.mark.parametrize("k", [20, 60, 150])
def test_every_column_of_least_l1_norm_is_nonnegative_where_one_is(k, row):
    # 1ᵀP = p 1ᵀ fixes the sum of a column, and its ℓ1 norm is no less: at any k, far above the threshold too.
    p, w, target = noisy(1000, 200, k, 0.0, 0)
    solution = recover_column(row.solver, p, len(w), target)
    assert solution.status is Status.converged
    assert max(solution.kkt, solution.residual_norm) <= 1e-8
    assert solution.values.min() >= -1e-8
    np.testing.assert_allclose(solution.values.sum(), w.sum(), rtol=1e-8)


@linear_programs
def test_noise_that_no_column_explains_is_infeasible(row):
    p, w, target = noisy(100, 200, 10, 0.01, 0)
    solution = recover_column(row.solver, p, len(w), target)
    assert solution.status is Status.infeasible
    assert (solution.values == 0).all()
    assert solution.kkt == np.inf


@pytest.mark.parametrize(
    "solver",
    [
        NonnegativeRecovery(max_iter=3),
        ReweightedRecovery(1e-9, max_iter=3),
        BasisPursuit(nonnegative=False, time_limit=0.001),
    ],
)
def test_a_solve_that_is_cut_short_says_so(solver):
    p, w, target = noisy(5000, 100, 400, 0.0, 0)
    solution = recover_column(solver, p, len(w), target)
    assert solution.status is Status.max_iter_reached
    assert solution.kkt > 1e-8


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


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.floats(0, 1), st.booleans())
def test_kkt_conditions_of_weighted_l1(seed, strength, warm):
    generator = np.random.default_rng(seed)
    n, d = 200, 80
    p = SparseBinary(seed, d, 5)
    target = _compress(p, planted_column(n, 15, seed)) + 0.1 * generator.standard_normal(d)
    penalty = strength * generator.random(n)
    w = generator.random(n) if warm else np.zeros(n)
    _, violation, residual = descend(*p.columns(0, n), target, penalty, w, 1e-7, 100_000)
    dense = p.dense(0, n)
    np.testing.assert_allclose(residual, target - dense @ w, atol=1e-12)
    gradient = dense.T @ residual - penalty
    assert violation <= 1e-7
    assert np.abs(gradient[w > 0]).max(initial=0.0) <= 1.01e-7
    assert gradient.max() <= 1.01e-7
    assert (w >= 0).all()


def test_what_remains_is_least_squares_on_the_support():
    p, _, target = noisy(2000, 400, 60, 0.05, 3)
    values = recover_column(ReweightedRecovery(0.05), p, 2000, target).values
    support = np.flatnonzero(values)
    np.testing.assert_allclose(values[support], nnls(p.dense(0, 2000)[:, support], target)[0], atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("n", "d", "k", "noise"), [(2000, 400, 40, 0.03), (50_000, 2000, 100, 0.02)])
def test_under_noise_it_is_as_good_as_knowing_the_support(n, d, k, noise, seed):
    p, w, target = noisy(n, d, k, noise, seed)
    solution = recover_column(ReweightedRecovery(noise), p, n, target)
    index, value = p.columns(0, n)
    columns = np.zeros((d, k))
    for j, item in enumerate(np.flatnonzero(w)):
        columns[index[item], j] = value[item]
    best = np.linalg.norm(np.linalg.lstsq(columns, target)[0] - w[w > 0])
    assert solution.status is Status.converged
    assert np.linalg.norm(solution.values - w) <= 1.2 * best
    plain = recover_column(NonnegativeRecovery(), p, n, target).values
    assert np.count_nonzero(solution.values) <= 1.05 * k < np.count_nonzero(plain)


def test_the_sparsest_of_equals_where_plain_least_squares_is_not_unique():
    solvers = (ReweightedRecovery(noise=1e-9), NonnegativeRecovery(max_iter=2000))
    found = np.zeros(2)
    for seed in range(10):
        p, w, target = noisy(2000, 400, 140, 0.0, seed)
        for j, solver in enumerate(solvers):
            values = recover_column(solver, p, 2000, target).values
            found[j] += np.linalg.norm(values - w) <= 1e-6 * np.linalg.norm(w)
    assert found[0] >= 7
    assert found[1] <= 3


@pytest.mark.parametrize("seed", range(3))
def test_small_entries_come_back_at_the_lower_levels(seed):
    generator = np.random.default_rng(seed)
    p, w = SparseBinary(seed, 1000, 5), np.zeros(20_000)
    w[generator.choice(20_000, 150, replace=False)] = generator.exponential(size=150)
    solution = recover_column(ReweightedRecovery(1e-9), p, 20_000, _compress(p, w))
    assert solution.status is Status.converged
    assert np.linalg.norm(solution.values - w) <= 1e-7 * np.linalg.norm(w)


def test_under_noise_it_follows_the_units_of_the_sketch():
    p, _, target = noisy(2000, 400, 60, 0.05, 0)
    one = recover_column(ReweightedRecovery(0.05), p, 2000, target).values
    other = recover_column(ReweightedRecovery(8 * 0.05), p, 2000, 8 * target).values
    np.testing.assert_array_equal(other, 8 * one)


def test_under_noise_the_order_of_the_items_does_not_matter():
    p, _, target = noisy(2000, 400, 60, 0.05, 0)
    index, value = p.columns(0, 2000)
    order = np.random.default_rng(0).permutation(2000)
    one = ReweightedRecovery(0.05).recover(index, value, target).values
    other = ReweightedRecovery(0.05).recover(index[order], value[order], target).values
    np.testing.assert_allclose(other, one[order], atol=1e-6)


@pytest.mark.parametrize("signed", [False, True])
def test_a_column_that_is_not_sparse_is_never_further_off_than_its_mean(signed):
    generator = np.random.default_rng(0)
    n, d = 3000, 200
    projection = SparseBinary(0, d, 5)
    index, value = projection.columns(0, n)
    w = generator.standard_normal(n) if signed else generator.exponential(size=n)
    solution = CheckedRecovery(0.0, signed=signed).recover(index, value, bucket(index, value, w, d))
    assert np.linalg.norm(solution.values - w) < np.linalg.norm(w - w.mean())
    assert solution.sparsest == n
    assert signed or (solution.values >= 0).all()


@pytest.mark.parametrize("signed", [False, True])
def test_a_sparse_column_is_what_reweighting_finds(signed):
    generator = np.random.default_rng(0)
    index, value = SparseBinary(0, 400, 5).columns(0, 2000)
    w = np.zeros(2000)
    w[generator.choice(2000, 60, replace=False)] = 0.2 + generator.exponential(size=60)
    target = bucket(index, value, w, 400)
    checked = CheckedRecovery(1e-3, signed=signed).recover(index, value, target)
    assert checked.sparsest is None
    np.testing.assert_array_equal(
        checked.values, ReweightedRecovery(1e-3, signed=signed).recover(index, value, target).values
    )


def test_no_column_needs_more_rows_than_a_dense_one():
    sizes = [rows_to_carry(k, 1000) for k in range(1, 1001)]
    assert (np.diff(sizes) >= 0).all()
    assert sizes[-1] < 1000


def test_no_estimate_of_a_nonnegative_column_is_negative():
    generator = np.random.default_rng(0)
    index, value = SparseBinary(0, 60, 5).columns(0, 300)
    for _ in range(100):
        target = generator.standard_normal(60) - 0.3
        assert (CheckedRecovery(1.0).recover(index, value, target).values >= 0).all()
