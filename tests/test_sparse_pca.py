"""Laws of sparse PCA: the rotation, the recovery of signed columns, sparse rows of W."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Lasso as ReferenceLasso

from dcf.factorization.initialization import random_rotation
from dcf.factorization.sparse_pca import Rotation, SparsePCA
from dcf.factorization.stability import stability
from dcf.factorization.truncated import Truncated, column_noise, zero_fraction
from dcf.metrics import column_errors, match
from dcf.recovery.columns import recover_column
from dcf.recovery.lasso import Lasso
from dcf.recovery.reweighted import ReweightedRecovery
from dcf.sketch.projections import SparseBinary
from dcf.solvers.models import Unconstrained
from dcf.solvers.sparse_weights import SparseWeights
from dcf.types import Status


def planted(noise=0.0, seed=0, rows=400, rank=5, density=0.3, width=60):
    """W (rows, rank) signed and sparse, H of any sign, their product with noise, and σ."""
    generator = np.random.default_rng(seed)
    w = generator.standard_normal((rows, rank)) * (generator.random((rows, rank)) < density)
    h = generator.standard_normal((rank, width))
    m = w @ h
    sigma = noise * np.linalg.norm(m) / np.sqrt(m.size)
    return m + sigma * generator.standard_normal(m.shape), w, h, sigma


@pytest.mark.parametrize("smoothing", [1.0, 0.1, 1e-3])
def test_a_sweep_never_raises_the_objective(smoothing):
    truncated = Truncated(planted(0.1)[0], 5)
    rotation = Rotation(truncated.left, truncated.right, random_rotation(5, 0, 0))
    rotation.epsilon = smoothing * rotation.epsilon
    values = [rotation.objective()]
    for _ in range(40):
        ratio = rotation.sweep()
        values.append(rotation.objective())
    assert np.diff(values).max() <= 1e-12 * abs(values[0])
    assert values[-1] < values[0] - 0.1
    assert ratio < 0.1
    np.testing.assert_allclose(np.linalg.norm(rotation.mixing, axis=0), 1)


def test_a_stationary_point_has_no_gradient():
    truncated = Truncated(planted(0.1)[0], 5)
    rotation = Rotation(truncated.left, truncated.right, random_rotation(5, 0, 0))
    rotation.descend(0.5, 1e-9, 2000)
    mixing, value, steps = rotation.mixing.copy(), rotation.objective(), np.random.default_rng(0)
    for _ in range(20):
        slopes = []
        direction = mixing @ steps.standard_normal((5, 5))
        for sign in (1, -1):
            rotation.mixing = mixing + sign * 1e-5 * direction
            norms = np.linalg.norm(rotation.mixing, axis=0)
            rotation.mixing /= norms
            slopes.append(rotation.objective() - value)
        assert abs(slopes[0] - slopes[1]) <= 1e-2 * abs(slopes[0] + slopes[1]) + 1e-11


@pytest.mark.parametrize("seed", range(3))
def test_without_noise_the_planted_factors_come_back(seed):
    m, w, h, _ = planted(seed=seed)
    result = SparsePCA(5).factorize(m)
    assert result.status is Status.converged
    assert column_errors(result.factors.weights, w).max() < 1e-8
    assert column_errors(result.factors.components.T, h.T).max() < 1e-8
    np.testing.assert_allclose(np.linalg.norm(result.factors.components, axis=1), 1)
    assert result.objective < 1e-12
    assert result.stability.min() > 1 - 1e-8


@pytest.mark.parametrize("noise", [1e-6, 1e-3, 0.1, 0.5])
def test_under_noise_it_is_as_good_as_knowing_h(noise):
    m, w, h, per_entry = planted(noise, rows=1000)
    result = SparsePCA(5).factorize(m)
    assert result.status is Status.converged
    assert result.noise == pytest.approx(per_entry, rel=0.03)
    best = column_errors(m @ np.linalg.pinv(h), w)
    assert column_errors(result.factors.weights, w).max() <= 1.1 * best.max()
    sigma = column_noise(result.noise, result.factors.components)
    assert zero_fraction(result.factors.weights, sigma) > 0.6


def test_components_of_very_different_size_come_back():
    generator = np.random.default_rng(0)
    _, w, h, _ = planted()
    w *= np.geomspace(1, 1000, 5)
    m = w @ h + 0.05 * generator.standard_normal((400, 60))
    result = SparsePCA(5).factorize(m)
    best = column_errors(m @ np.linalg.pinv(h), w)
    assert (column_errors(result.factors.weights, w) <= 1.5 * best).all()


def test_signs_order_and_units_do_not_matter():
    m, w, _, _ = planted(0.05)
    one = SparsePCA(5).factorize(m).factors
    order = np.random.default_rng(1).permutation(400)
    for other in (-m, 1024 * m, m[order]):
        found = SparsePCA(5).factorize(other).factors
        assert column_errors(found.components.T, one.components.T).max() < 1e-3
    flipped = -w, -one.components
    assert column_errors(flipped[0], w).max() < 1e-12
    assert match(flipped[1].T, one.components.T)[1] == pytest.approx(-1.0)


def test_stability_does_not_see_signs():
    class Found:
        def __init__(self, components):
            self.components = components

        def objective(self):
            return 0.0

    h = planted()[2]
    assert stability(Found(h), [Found(-h[::-1])], np.inf) == pytest.approx(1.0)


def test_where_nothing_is_sparse_the_zeros_tell():
    generator = np.random.default_rng(0)
    m = generator.standard_normal((500, 5)) @ generator.standard_normal((5, 60))
    m += 0.01 * generator.standard_normal(m.shape)
    result = SparsePCA(5).factorize(m)
    noise = column_noise(result.noise, result.factors.components)
    assert zero_fraction(result.factors.weights, noise) < 0.1


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_more_components_than_present(noise):
    m, w, _, _ = planted(noise)
    result = SparsePCA(8).factorize(m)
    assert result.factors.components.shape == (8, 60)
    wanted = np.hstack([w, np.zeros((400, 3))])
    assert np.abs(match(result.factors.weights, wanted)[1][:5]).min() > 0.995
    assert np.isfinite(result.factors.weights).all()
    if not noise:
        assert (np.linalg.norm(result.factors.components, axis=1) > 0).sum() == 5


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("how", ["zero", "one row", "rank deficient", "constant", "few rows", "no rows"])
def test_degenerate_samples(how, rank):
    m = np.zeros((30, 8))
    if how == "one row":
        m[3] = 1
    elif how == "rank deficient":
        m[:] = np.outer(np.arange(30), np.arange(8))
    elif how == "constant":
        m[:] = 7
    elif how == "few rows":
        m = np.outer([1.0, 2.0], np.arange(8))
    elif how == "no rows":
        m = m[:0]
    solver = SparsePCA(rank)
    result = solver.factorize(m)
    for found in (result, solver.carry_on(m, result.factors.components)):
        w, h = found.factors.weights, found.factors.components
        assert h.shape == (rank, 8)
        assert np.linalg.norm(m - w @ h) <= 1e-9 * np.linalg.norm(m)


def test_it_carries_on_from_components():
    m, w, h, _ = planted(0.05)
    solver = SparsePCA(5)
    whole = solver.factorize(m)
    part = solver.carry_on(m[50:], whole.factors.components)
    assert part.status is Status.converged
    assert part.n_iter < whole.n_iter
    assert column_errors(part.factors.weights, w[50:]).max() < 0.1
    again = solver.carry_on(m, h)
    assert column_errors(again.factors.components.T, whole.factors.components.T).max() < 1e-3


def test_neither_threads_nor_a_second_call_change_the_bits():
    m = planted(0.05)[0]
    a, b, c = (SparsePCA(5, threads=threads, seed=7).factorize(m) for threads in (1, 3, 1))
    np.testing.assert_array_equal(a.factors.weights, b.factors.weights)
    np.testing.assert_array_equal(a.factors.weights, c.factors.weights)
    np.testing.assert_array_equal(a.stability, b.stability)
    assert SparsePCA(5, restarts=0).factorize(m).stability is None
    few = SparsePCA(5, max_iter=3).factorize(m)
    assert few.status is Status.max_iter_reached
    assert few.n_iter <= 4


def column(n, d, k, noise, seed):
    """P, a planted signed column and its sketch with noise."""
    generator = np.random.default_rng(seed)
    w = np.zeros(n)
    signs = generator.choice([-1, 1], k)
    w[generator.choice(n, k, replace=False)] = signs * (0.2 + generator.exponential(size=k))
    p = SparseBinary(seed, d, 5)
    target = np.zeros((d, 1))
    p.accumulate(w[:, None], 0, target)
    return p, w, target[:, 0] + noise * generator.standard_normal(d)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("n", "d", "k"), [(2000, 400, 80), (20_000, 1000, 100)])
def test_an_exact_sketch_gives_back_the_signed_column(n, d, k, seed):
    p, w, target = column(n, d, k, 0.0, seed)
    for noise in (0.0, 1e-9):
        solution = recover_column(ReweightedRecovery(noise, signed=True), p, n, target)
        assert solution.status is Status.converged
        assert np.linalg.norm(solution.values - w) <= 1e-7 * np.linalg.norm(w)
    flipped = recover_column(ReweightedRecovery(0.0, signed=True), p, n, -target)
    np.testing.assert_allclose(flipped.values, -w, atol=1e-7)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("n", "d", "k", "noise"), [(2000, 400, 40, 0.03), (50_000, 2000, 100, 0.02)])
def test_under_noise_it_is_as_good_as_knowing_the_support(n, d, k, noise, seed):
    p, w, target = column(n, d, k, noise, seed)
    solution = recover_column(ReweightedRecovery(noise, signed=True), p, n, target)
    columns, support = np.zeros((d, k)), np.flatnonzero(w)
    index, value = p.columns(0, n)
    columns[index[support], np.arange(k)[:, None]] = value[support]
    best = np.linalg.norm(np.linalg.lstsq(columns, target)[0] - w[support])
    assert solution.status is Status.converged
    assert np.linalg.norm(solution.values - w) <= 1.2 * best
    found = np.flatnonzero(solution.values)
    dense = np.zeros((d, len(found)))
    dense[index[found], np.arange(len(found))[:, None]] = value[found]
    gradient = dense.T @ (target - dense @ solution.values[found])
    assert np.abs(gradient).max() <= 1.01e-8 * np.abs(p.dense(0, n).T @ target).max()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.floats(0.01, 0.9))
def test_lasso_is_optimal_and_agrees_with_scikit_learn(seed, strength):
    n, d = 200, 80
    p, _, target = column(n, d, 15, 0.1, seed)
    dense = p.dense(0, n)
    penalty = strength * np.abs(dense.T @ target).max()
    solution = recover_column(Lasso(strength), p, n, target)
    w, residual = solution.values, target - dense @ solution.values
    assert solution.status is Status.converged
    # The residual, scaled to be dual feasible, bounds the optimum from below.
    feasible = residual * min(1.0, penalty / np.abs(dense.T @ residual).max())
    primal = 0.5 * residual @ residual + penalty * np.abs(w).sum()
    dual = 0.5 * target @ target - 0.5 * np.sum((target - feasible) ** 2)
    assert -1e-9 * primal <= primal - dual <= 1e-6 * primal
    reference = ReferenceLasso(penalty / d, fit_intercept=False, tol=1e-12, max_iter=100_000)
    other = reference.fit(dense, target).coef_
    best = 0.5 * np.sum((target - dense @ other) ** 2) + penalty * np.abs(other).sum()
    assert primal == pytest.approx(best, rel=1e-7)


def test_a_penalty_of_zero_is_least_squares():
    p, _, target = column(30, 80, 15, 0.1, 0)
    best = np.linalg.lstsq(p.dense(0, 30), target)[0]
    np.testing.assert_allclose(recover_column(Lasso(0.0), p, 30, target).values, best, atol=1e-6)


@pytest.mark.parametrize("solver", [Lasso(0.1), ReweightedRecovery(0.0, signed=True)])
def test_nothing_comes_from_nothing(solver):
    solution = recover_column(solver, SparseBinary(0, 50, 5), 200, np.zeros(50))
    assert solution.status is Status.converged
    assert (solution.values == 0).all()


@pytest.mark.parametrize("solver", [Lasso(1e-3, max_iter=3), ReweightedRecovery(1e-9, 3, signed=True)])
def test_too_few_sweeps_are_told(solver):
    p, _, target = column(5000, 100, 80, 0.0, 0)
    assert recover_column(solver, p, 5000, target).status is Status.max_iter_reached


def penalised(rows, w, h, cost):
    return 0.5 * np.square(rows - w @ h).sum(axis=1) + cost * np.count_nonzero(w, axis=1)


def brute_force(rows, h, cost):
    """The least ½ ‖m − w H‖² + cost ‖w‖₀ of every row, over all supports."""
    best = 0.5 * np.square(rows).sum(axis=1)
    for size in range(1, len(h) + 1):
        for support in combinations(range(len(h)), size):
            part = h[list(support)]
            w = np.zeros((len(rows), len(h)))
            w[:, support] = rows @ np.linalg.pinv(part)
            best = np.minimum(best, penalised(rows, w, h, cost))
    return best


@pytest.mark.parametrize("kind", ["orthogonal", "random", "correlated"])
def test_sparse_weights_reach_the_best_of_all_supports(kind):
    m, w, h, sigma = planted(0.3, rank=6)
    if kind == "orthogonal":
        h = np.linalg.qr(h.T)[0].T
    elif kind == "correlated":
        h = h + 2.0 * h[:1]
    m = w @ h + sigma * np.random.default_rng(5).standard_normal(m.shape)
    model = SparseWeights(sigma, 400)
    found = model.weights_solver(h @ h.T)(m @ h.T)
    cost = 0.5 * (model.cutoff * sigma) ** 2
    excess = penalised(m, found, h, cost) - brute_force(m, h, cost)
    assert excess.min() >= -1e-9
    least = {"orthogonal": 1.0, "random": 0.98, "correlated": 0.95}[kind]
    assert (excess <= 1e-9).mean() >= least
    for row, x in zip(m[:50], found[:50], strict=True):  # what is left is least squares
        support = np.flatnonzero(x)
        np.testing.assert_allclose(x[support], row @ np.linalg.pinv(h[support]), atol=1e-9)


@pytest.mark.parametrize("density", [0.01, 0.1, 0.3])
@pytest.mark.parametrize("noise", [0.01, 0.1])
def test_sparse_weights_are_nearly_as_good_as_knowing_the_support(noise, density):
    m, w, h, sigma = planted(noise, rows=5000, density=density)
    found = SparseWeights(sigma, 5000).weights_solver(h @ h.T)(m @ h.T)
    best = np.zeros_like(w)
    for i, row in enumerate(m):
        support = np.flatnonzero(w[i])
        best[i, support] = row @ np.linalg.pinv(h[support])
    assert np.linalg.norm(found - w) <= 1.25 * np.linalg.norm(best - w)


def test_sparse_weights_without_noise_are_least_squares():
    m, w, h, _ = planted()
    model = SparseWeights(0.0, 400)
    np.testing.assert_allclose(model.weights_solver(h @ h.T)(m @ h.T), w, atol=1e-12)
    linear, gram = w.T @ m, w.T @ w
    np.testing.assert_array_equal(
        model.components(linear, gram, h), Unconstrained().components(linear, gram, h)
    )
    assert model.violation(linear, gram, h) < 1e-12


def test_sparse_weights_of_dependent_components():
    m, w, h, _ = planted(0.01)
    doubled = np.vstack([h, h[:1], np.zeros((1, 60))])
    found = SparseWeights(0.01, 400).weights_solver(doubled @ doubled.T)(m @ doubled.T)
    assert np.linalg.norm(m - found @ doubled) <= 1.1 * np.linalg.norm(m - w @ h)
    assert np.isfinite(found).all()
    assert (found[:, -1] == 0).all()
