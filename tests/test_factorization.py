"""Laws of the factorization of a sketch or sample."""

import numpy as np
import pytest
from conftest import plant

from dcf.factorization.base import sweep_until
from dcf.factorization.nmf import HalsNMF, _Pair
from dcf.metrics import column_errors
from dcf.solvers.gram_nnls import projected_gradient
from dcf.types import Status


@pytest.mark.parametrize("penalty", [0.0, 0.3])
def test_hals_never_raises_its_objective(penalty):
    m = plant(200, 30, noise=0.3, dtype="f8")[0]
    pair = _Pair(m, np.random.default_rng(0).random((5, 30)))

    def objective():
        # Rows of H are normalised after a sweep, which only lowers the penalised objective's W
        # where the norms grow; undo it for the comparison.
        return 0.5 * np.linalg.norm(m - pair.weights @ pair.components) ** 2

    values = [objective()]
    for _ in range(60):
        pair.sweep(penalty)
        values.append(objective())
    if penalty == 0.0:
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


def test_continuation_finds_the_sparsest_factorization():
    # H without zeros: plain NMF may mix the columns of W, the sparsest factorization is unique.
    generator = np.random.default_rng(0)
    w = generator.exponential(size=(400, 5)) * (generator.random((400, 5)) < 0.2)
    m = w @ (0.2 + generator.random((5, 60)))
    plain = HalsNMF(5, tol=1e-9, max_iter=2000).factorize(m)
    sparsest = HalsNMF(5, tol=1e-9, max_iter=2000, penalties=(1e-2, 1e-3, 1e-4, 1e-5)).factorize(m)
    assert column_errors(sparsest.factors.weights, w).max() < 1e-4
    assert (
        column_errors(sparsest.factors.weights, w).max() < 0.1 * column_errors(plain.factors.weights, w).max()
    )


@pytest.mark.parametrize("how", ["zero", "one row", "rank deficient", "constant"])
def test_degenerate_samples(how):
    m = np.zeros((30, 8))
    if how == "one row":
        m[3] = 1
    elif how == "rank deficient":
        m[:] = np.outer(np.arange(30), np.arange(8))
    elif how == "constant":
        m[:] = 7
    result = HalsNMF(3, max_iter=200).factorize(m)
    w, h = result.factors.weights, result.factors.components
    assert np.isfinite(w).all()
    assert np.isfinite(h).all()
    assert np.linalg.norm(m - w @ h) <= 1e-3 * max(np.linalg.norm(m), 1e-12)


def test_the_loop_tells_how_it_ended():
    assert sweep_until(lambda: 0.0, 1e-3, 10)[0] is Status.converged
    assert sweep_until(lambda: 1.0, 1e-3, 10)[:2] == (Status.max_iter_reached, 10)
    assert sweep_until(lambda: 1e-8, 1e-9, 1000, floor=1e-6)[0] is Status.stagnated
    assert all(status.remedy.endswith(".") for status in Status if status is not Status.converged)
