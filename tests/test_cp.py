"""Laws of CP: the model that a pass takes, and the factorizers of a sample."""

import itertools
import warnings

import numpy as np
import pytest
from real_data import indian_pines, kinetic

from dcf.factorization.cp import HalsCP
from dcf.factorization.nmf import HalsNMF
from dcf.factorization.orthogonalized import OrthogonalizedALS
from dcf.factorization.pair import Dense
from dcf.factorization.unfolded import Unfolded
from dcf.metrics import factor_match_score
from dcf.solvers.polyadic import ModeProblems, Polyadic, khatri_rao, split
from dcf.types import Status

SHAPES = [(9, 7), (6, 5, 4), (8,)]
SIGNS = [True, False]
SOLVERS = {True: HalsCP, False: OrthogonalizedALS}


def plant(n=200, shape=(12, 9), rank=4, nonnegative=True, noise=0.0, seed=0, dtype="f8"):
    """The unfolded tensor (n, Π shape) and its factors."""
    generator = np.random.default_rng(seed)
    draw = generator.random if nonnegative else generator.standard_normal
    factors = [draw((size, rank)) for size in (n, *shape)]
    m = factors[0] @ khatri_rao(factors[1:])
    error = generator.standard_normal(m.shape)
    return (m + noise * np.linalg.norm(m) / np.linalg.norm(error) * error).astype(dtype), factors


def score(result, truth, shape):
    return factor_match_score([result.factors.weights, *split(result.factors.components, shape)[0]], truth)


def objective(linear, gram, h):
    return 0.5 * float((gram * (h @ h.T)).sum()) - float((linear * h).sum())


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_of_rank_one_are_split_exactly(shape):
    factors = plant(1, shape, 5, nonnegative=False)[1][1:]
    factors[0][:, 2] = 0
    h = khatri_rao(factors)
    h *= np.array([1, 1e-200, 1, 1e200, -1])[:, None]
    units, norms = split(h, shape)
    np.testing.assert_allclose(khatri_rao(units) * norms[:, None], h, rtol=1e-10, atol=0)
    for unit in units:
        np.testing.assert_allclose(np.linalg.norm(unit, axis=0), [1, 1, 0, 1, 1])
    for unit in units[1:]:
        assert (unit[np.abs(unit).argmax(axis=0), np.arange(5)] >= 0).all()
    assert khatri_rao(units).shape == (5, np.prod(shape))


def test_khatri_rao_vectorises_in_c_order():
    factors = plant(1, (3, 4, 2), 2)[1][1:]
    expected = np.einsum("ak,bk,ck->kabc", *factors).reshape(2, -1)
    np.testing.assert_allclose(khatri_rao(factors), expected)


@pytest.mark.parametrize("nonnegative", SIGNS)
@pytest.mark.parametrize("shape", SHAPES)
def test_planted_components_are_a_fixed_point(shape, nonnegative):
    m, factors = plant(50, shape, 4, nonnegative)
    a, h = factors[0], khatri_rao(factors[1:])
    model = Polyadic(shape, nonnegative)
    linear, gram = a.T @ m, a.T @ a
    assert model.violation(linear, gram, h) <= 1e-13
    np.testing.assert_allclose(model.components(linear, gram, h), h, rtol=1e-9, atol=1e-12 * np.abs(h).max())
    near = h + 0.05 * plant(4, shape, 4, nonnegative, seed=1)[0]
    found = model.components(linear, gram, near)
    assert model.violation(linear, gram, found) <= 1e-10
    np.testing.assert_allclose(found, h, atol=1e-7 * np.abs(h).max())


@pytest.mark.parametrize("nonnegative", SIGNS)
def test_a_sweep_over_the_modes_never_raises_the_objective(nonnegative):
    shape = (7, 6, 5)
    m, factors = plant(60, shape, 5, nonnegative, noise=0.5)
    a = factors[0]
    linear, gram = a.T @ m, a.T @ a
    problems = ModeProblems(linear, gram, nonnegative)
    found, norms = split(khatri_rao(plant(1, shape, 5, nonnegative, seed=3)[1][1:]), shape)
    values = []
    for _ in range(50):
        values.append(objective(linear, gram, khatri_rao(found) * (norms * problems.unit)[:, None]))
        norms, _ = problems.sweep(found, norms)
    assert (np.diff(values) <= 1e-12 * abs(values[0])).all()
    assert values[-1] < values[0]


@pytest.mark.parametrize("shape", [(2, 2), (3, 2)])
def test_components_agree_with_the_whole_least_squares_problem(shape):
    m, factors = plant(6, shape, 1, nonnegative=False, noise=0.5)
    a = factors[0]
    linear, gram = a.T @ m, a.T @ a
    found = Polyadic(shape, nonnegative=False).components(linear, gram, linear)
    # With one component the least squares H of any rank is aᵀM / aᵀa, its best rank-one part the answer.
    u, s, vt = np.linalg.svd((linear / gram).reshape(shape))
    np.testing.assert_allclose(found.reshape(shape), s[0] * np.outer(u[:, 0], vt[0]), atol=1e-9)


@pytest.mark.parametrize("nonnegative", SIGNS)
def test_no_small_step_of_a_factor_is_better(nonnegative):
    shape, rank = (3, 4), 2
    m, factors = plant(20, shape, rank, nonnegative, noise=0.4)
    a = factors[0]
    linear, gram = a.T @ m, a.T @ a
    h = Polyadic(shape, nonnegative).components(linear, gram, khatri_rao(factors[1:]))
    least = objective(linear, gram, h)
    units, norms = split(h, shape)
    for mode, k, step in itertools.product(range(2), range(rank), (1e-3, -1e-3)):
        for i in range(shape[mode]):
            moved = [unit.copy() for unit in units]
            moved[mode][i, k] += step
            if nonnegative and moved[mode][i, k] < 0:
                continue
            assert objective(linear, gram, khatri_rao(moved) * norms[:, None]) >= least - 1e-10 * abs(least)


@pytest.mark.parametrize("nonnegative", SIGNS)
def test_dead_components_stay_dead_and_scale_does_not_matter(nonnegative):
    shape = (6, 5)
    m, factors = plant(40, shape, 4, nonnegative, noise=0.1)
    a, h = factors[0].copy(), khatri_rao(factors[1:])
    a[:, 1] = 0
    h[2] = 0
    model = Polyadic(shape, nonnegative)
    plain = model.components(a.T @ m, a.T @ a, h)
    assert not plain[1].any()
    assert not plain[2].any()
    scales = np.array([1e60, 1, 1, 1e-60])
    b = a * scales
    scaled = model.components(b.T @ m, b.T @ b, h)
    np.testing.assert_allclose(scaled * scales[:, None], plain, rtol=1e-6, atol=1e-9)
    assert model.violation(b.T @ m, b.T @ b, scaled) <= 1e-10
    zero = model.components(np.zeros((4, 30)), np.zeros((4, 4)), h)
    assert not zero.any()
    assert model.violation(np.zeros((4, 30)), np.zeros((4, 4)), zero) == 0


@pytest.mark.parametrize("nonnegative", SIGNS)
def test_weights_are_least_squares_row_by_row(nonnegative):
    m, factors = plant(30, (5, 4), 3, nonnegative)
    h = khatri_rao(factors[1:])
    model = Polyadic((5, 4), nonnegative)
    np.testing.assert_allclose(model.weights_solver(h @ h.T)(m @ h.T), factors[0], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("nonnegative", SIGNS)
def test_a_sweep_never_raises_the_objective(nonnegative):
    shape = (12, 9)
    m = plant(100, shape, 5, nonnegative, noise=0.3)[0]
    start = khatri_rao(plant(1, shape, 5, nonnegative, seed=4)[1][1:])
    point = Unfolded(Dense(m), Polyadic(shape, nonnegative), start)
    values = [np.linalg.norm(m - point.weights @ point.components)]
    for _ in range(80):
        point.sweep()
        values.append(np.linalg.norm(m - point.weights @ point.components))
        assert point.objective() == pytest.approx(values[-1] / np.linalg.norm(m), rel=1e-9)
    assert (np.diff(values) <= 1e-10 * values[0]).all()
    assert values[-1] < values[0]


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("nonnegative", SIGNS)
@pytest.mark.parametrize("shape", [(12, 9), (8, 7, 6)])
def test_planted_tensors_come_back(shape, nonnegative, dtype):
    for seed in range(3):
        m, truth = plant(250, shape, 4, nonnegative, 0.01, seed, dtype)
        result = SOLVERS[nonnegative](4, shape).factorize(m)
        assert result.status is Status.converged
        assert score(result, truth, shape) >= 0.999
        assert result.stability.min() >= 0.99
        w, h = result.factors.weights, result.factors.components
        assert result.objective == pytest.approx(np.linalg.norm(m - w @ h) / np.linalg.norm(m), rel=1e-3)
        np.testing.assert_allclose(np.linalg.norm(h, axis=1), 1)
        assert not nonnegative or min(w.min(), h.min()) >= 0


@pytest.mark.parametrize("nonnegative", SIGNS)
def test_one_other_mode_is_a_matrix(nonnegative):
    m = np.random.default_rng(0).random((200, 20)) - (0.0 if nonnegative else 0.5)
    result = SOLVERS[nonnegative](3, (20,)).factorize(m)
    tail = np.linalg.svd(m, compute_uv=False)[3:]
    best = HalsNMF(3).factorize(m).objective if nonnegative else np.linalg.norm(tail) / np.linalg.norm(m)
    assert result.objective <= 1.001 * best


def test_a_tensor_without_a_best_approximation_stays_finite():
    a, b = np.random.default_rng(0).standard_normal((2, 6))
    tensor = sum(np.einsum("i,j,k->ijk", *three) for three in ((a, a, b), (a, b, a), (b, a, a)))
    result = OrthogonalizedALS(2, (6, 6), tol=0, max_iter=500).factorize(tensor.reshape(6, -1))
    assert result.status is Status.max_iter_reached
    assert np.isfinite(result.factors.weights).all()
    assert result.objective < 0.01


def test_a_sample_of_rows_at_five_per_cent_noise():
    m, truth = plant(2000, (60, 20), 8, noise=0.05, dtype="f4")
    assert score(HalsCP(8, (60, 20)).factorize(m), truth, (60, 20)) >= 0.9999


def test_both_solvers_agree_on_nonnegative_tensors():
    m, _ = plant(300, (12, 9), 4, noise=0.01)
    one, other = (solver(4, (12, 9), tol=1e-7).factorize(m) for solver in (HalsCP, OrthogonalizedALS))
    assert one.objective == pytest.approx(other.objective, rel=1e-3)
    assert score(one, [other.factors.weights, *split(other.factors.components, (12, 9))[0]], (12, 9)) > 0.9999


def test_orthogonalizing_finds_components_thirty_times_smaller():
    m, truth = plant(300, (40, 30), 20, nonnegative=False)
    truth[0] *= np.geomspace(1, 30, 20)
    m = truth[0] @ khatri_rao(truth[1:])
    assert score(OrthogonalizedALS(20, (40, 30)).factorize(m), truth, (40, 30)) > 0.999


@pytest.mark.parametrize("nonnegative", SIGNS)
def test_a_result_is_where_its_model_ends(nonnegative):
    shape = (12, 9)
    m = plant(250, shape, 4, nonnegative, noise=0.1)[0]
    result = SOLVERS[nonnegative](4, shape, tol=1e-8).factorize(m)
    assert result.status is Status.converged
    w, h = result.factors.weights, result.factors.components
    assert Polyadic(shape, nonnegative).violation(w.T @ m, w.T @ w, h) <= 1e-7
    assert SOLVERS[nonnegative](4, shape, tol=1e-6).carry_on(m, h).n_iter == 1


@pytest.mark.parametrize("nonnegative", SIGNS)
def test_the_bits_depend_on_the_seed_but_not_on_threads(nonnegative):
    shape = (12, 9)
    m = plant(250, shape, 4, nonnegative, noise=0.2, dtype="f4")[0]
    results = [SOLVERS[nonnegative](4, shape, seed=3, threads=t).factorize(m) for t in (1, 1, 3)]
    for other in results[1:]:
        np.testing.assert_array_equal(results[0].factors.weights, other.factors.weights)
        np.testing.assert_array_equal(results[0].factors.components, other.factors.components)
        np.testing.assert_array_equal(results[0].stability, other.stability)
        assert results[0].n_iter == other.n_iter


@pytest.mark.parametrize("nonnegative", SIGNS)
def test_the_limit_of_sweeps_is_kept_and_told(nonnegative):
    m = plant(250, (12, 9), 6, nonnegative, noise=0.5)[0]
    result = SOLVERS[nonnegative](6, (12, 9), tol=0, max_iter=3).factorize(m)
    assert result.status is Status.max_iter_reached
    assert result.n_iter <= 9
    assert np.isfinite(result.factors.components).all()


@pytest.mark.parametrize("solver", [HalsCP, OrthogonalizedALS])
@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("how", ["zero", "no rows", "one row", "rank one", "constant", "tiny", "huge"])
def test_degenerate_samples(how, rank, solver):
    m = np.zeros((0 if how == "no rows" else 30, 20))
    if how == "one row":
        m[3] = 1
    elif how in ("rank one", "tiny", "huge"):
        m[:] = np.outer(np.arange(30), np.ones(20)) * {"tiny": 1e-60, "huge": 1e60}.get(how, 1.0)
    elif how == "constant":
        m[:] = 7
    result = solver(rank, (5, 4), max_iter=200).factorize(m)
    w, h = result.factors.weights, result.factors.components
    assert np.isfinite(w).all()
    assert np.isfinite(h).all()
    if len(m):
        assert np.linalg.norm(m - w @ h) <= 1e-6 * np.linalg.norm(m)


def test_the_score_knows_permutation_sign_and_scale():
    factors = plant(10, (6, 5), 4, nonnegative=False)[1]
    order, signs = [2, 0, 3, 1], np.array([1.0, -2.0, 3.0, -4.0])
    others = [factors[0][:, order] * signs, factors[1][:, order] / signs, factors[2][:, order]]
    assert factor_match_score(others, factors) == pytest.approx(1)
    others[2] = np.roll(others[2], 1, axis=1)
    assert factor_match_score(others, factors) < 0.9


def best_of_tensorly(tensor, rank, starts, sweeps):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        decomposition = pytest.importorskip("tensorly.decomposition")
        errors = [
            decomposition.non_negative_parafac_hals(
                tensor,
                rank,
                n_iter_max=sweeps,
                init="random",
                random_state=seed,
                tol=1e-8,
                return_errors=True,
            )[1][-1]
            for seed in range(starts)
        ]
    return float(min(errors))


@pytest.mark.slow
def test_kinetic_is_fitted_as_well_as_by_tensorly():
    tensor = kinetic()
    result = HalsCP(3, tensor.shape[1:]).factorize(tensor.reshape(len(tensor), -1).astype(np.float32))
    assert result.objective <= 1.01 * best_of_tensorly(tensor, 3, starts=3, sweeps=500)


# The least errors of random starts of tensorly 0.10's `non_negative_parafac_hals` in float64, which take
# minutes: `best_of_tensorly(cube, 5, 2, 1000)` and `best_of_tensorly(cube, 10, 3, 400)`.
@pytest.mark.slow
@pytest.mark.parametrize(("rank", "tensorly"), [(5, 0.097997), (10, 0.081241)])
def test_indian_pines_is_fitted_as_well_as_by_tensorly(rank, tensorly):
    cube = indian_pines().reshape(145, -1)
    assert HalsCP(rank, (145, 200)).factorize(cube).objective <= 1.01 * tensorly
