"""Laws of the factorization of a sketch or sample."""

import numpy as np
import pytest
from conftest import plant

from dcf.factorization.base import sweep_until
from dcf.factorization.nmf import HalsNMF
from dcf.factorization.pair import Dense, Pair
from dcf.factorization.sparsest import SparsestNMF
from dcf.factorization.truncated import column_noise, zero_fraction
from dcf.metrics import column_errors
from dcf.solvers.gram_nnls import projected_gradient
from dcf.types import Status


@pytest.mark.parametrize("penalty", [0.0, 0.3])
def test_hals_never_raises_its_objective(penalty):
    m = plant(200, 30, noise=0.3, dtype="f8")[0]
    pair = Pair(Dense(m), np.random.default_rng(0).random((5, 30)))

    def objective():
        misfit = 0.5 * np.linalg.norm(m - pair.weights @ pair.components) ** 2
        return misfit + penalty * pair.weights.sum()

    values = [objective()]
    for _ in range(60):
        pair.sweep(penalty)
        values.append(objective())
    assert (np.diff(values) <= 1e-9 * values[0]).all()
    assert values[-1] < values[0]
    np.testing.assert_allclose(np.linalg.norm(pair.components, axis=1), 1)


def test_it_ends_at_a_kkt_point():
    m = plant(300, 40, noise=0.1, dtype="f8")[0]
    result = HalsNMF(4, tol=1e-6, max_iter=5000).factorize(m)
    assert result.status is Status.converged
    w, h = result.factors.weights, result.factors.components
    for x, a, g in ((w, m @ h.T, h @ h.T), (h.T, m.T @ w, w.T @ w)):
        assert np.linalg.norm(projected_gradient(a, g, x)) <= 2e-6 * np.linalg.norm(a)
    true = np.linalg.norm(m - w @ h) / np.linalg.norm(m)
    assert result.objective == pytest.approx(true, rel=1e-6)


def test_planted_components_come_back():
    m, _, h = plant(500, 60, rank=5, density=0.3, dtype="f8")
    result = HalsNMF(5, tol=1e-5).factorize(m)
    assert column_errors(result.factors.components.T, h.T).max() < 0.1
    assert result.objective < 0.0105


def test_the_same_seed_gives_the_same_bits():
    m = plant(300, 40, noise=0.2)[0]
    a, b = (HalsNMF(4, seed=3).factorize(m) for _ in range(2))
    np.testing.assert_array_equal(a.factors.weights, b.factors.weights)
    assert a.n_iter == b.n_iter


def sparse_sketch(noise=0.0, seed=0, rows=400, rank=5):
    """W (rows, rank) with zeros, H without any, and their product with noise."""
    generator = np.random.default_rng(seed)
    w = generator.exponential(size=(rows, rank)) * (generator.random((rows, rank)) < 0.3)
    h = 0.2 + generator.random((rank, 60))
    m = w @ h
    scale = np.linalg.norm(m) / np.sqrt(m.size)
    return m + noise * scale * generator.standard_normal(m.shape), w, h, noise * scale


@pytest.mark.parametrize("seed", range(3))
def test_the_sparsest_factorization_is_found_where_plain_nmf_is_not_unique(seed):
    m, w, h, _ = sparse_sketch(seed=seed)
    plain = HalsNMF(5, tol=1e-9, max_iter=2000).factorize(m)
    sparsest = SparsestNMF(5).factorize(m)
    assert sparsest.status is Status.converged
    assert column_errors(sparsest.factors.weights, w).max() < 1e-7
    assert column_errors(sparsest.factors.components.T, h.T).max() < 1e-7
    assert column_errors(plain.factors.weights, w).max() > 1e-3


@pytest.mark.parametrize("noise", [1e-6, 1e-3, 0.1])
def test_under_noise_it_is_as_good_as_knowing_h(noise):
    m, w, h, per_entry = sparse_sketch(noise, rows=1000)
    result = SparsestNMF(5).factorize(m)
    assert result.noise == pytest.approx(per_entry, rel=0.03)
    best = column_errors(m @ np.linalg.pinv(h), w)
    assert column_errors(result.factors.weights, w).max() <= 1.1 * best.max()
    sigma = column_noise(result.noise, result.factors.components)
    spread = (result.factors.weights - m @ np.linalg.pinv(result.factors.components)).std()
    assert spread <= 1e-9 * np.abs(result.factors.weights).max()
    zeros = result.factors.weights[np.abs(result.factors.weights) < 3 * sigma]
    assert (zeros < 0).mean() == pytest.approx(0.5, abs=0.1)


def test_the_factorization_follows_the_units_of_the_data():
    m = sparse_sketch(0.01)[0]
    one, other = SparsestNMF(5).factorize(m), SparsestNMF(5).factorize(1024 * m)
    np.testing.assert_allclose(other.factors.weights, 1024 * one.factors.weights, rtol=1e-6, atol=1e-6)
    assert other.noise == pytest.approx(1024 * one.noise)


def test_threads_do_not_change_the_bits():
    m = sparse_sketch(0.05)[0]
    a, b = (SparsestNMF(5, threads=threads).factorize(m) for threads in (1, 3))
    np.testing.assert_array_equal(a.factors.weights, b.factors.weights)
    np.testing.assert_array_equal(a.factors.components, b.factors.components)


@pytest.mark.parametrize("noise", [0.0, 0.005])
def test_zeros_within_the_noise_tell_sparse_from_dense(noise):
    def fraction(density):
        generator = np.random.default_rng(0)
        buckets = generator.poisson(density * 100, size=(1000, 4))  # items of a component in a bucket
        m = generator.gamma(buckets + 1e-12) @ generator.random((4, 50))
        m += noise * np.sqrt((m**2).mean()) * generator.standard_normal(m.shape)
        result = SparsestNMF(4, max_iter=500).factorize(m)
        return zero_fraction(result.factors.weights, column_noise(result.noise, result.factors.components))

    assert fraction(0.005) > 0.5
    assert fraction(0.2) < 0.15
    assert fraction(1.0) < 0.15


@pytest.mark.parametrize("solver", [HalsNMF(3, max_iter=200), SparsestNMF(3), SparsestNMF(1, tol=0)])
@pytest.mark.parametrize("how", ["zero", "one row", "rank deficient", "constant"])
def test_degenerate_samples(how, solver):
    m = np.zeros((30, 8))
    if how == "one row":
        m[3] = 1
    elif how == "rank deficient":
        m[:] = np.outer(np.arange(30), np.arange(8))
    elif how == "constant":
        m[:] = 7
    result = solver.factorize(m)
    w, h = result.factors.weights, result.factors.components
    assert np.isfinite(w).all()
    assert np.isfinite(h).all()
    assert np.linalg.norm(m - w @ h) <= 1e-3 * max(np.linalg.norm(m), 1e-12)


def test_the_loop_tells_how_it_ended():
    assert sweep_until(lambda: 0.0, 1e-3, 10)[0] is Status.converged
    assert sweep_until(lambda: 1.0, 1e-3, 10)[:2] == (Status.max_iter_reached, 10)
    assert sweep_until(lambda: 1e-8, 1e-9, 1000, floor=1e-6)[0] is Status.stagnated
    assert all(status.remedy.endswith(".") for status in Status if status is not Status.converged)
