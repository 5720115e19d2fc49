"""Laws of the range sketch and of the factorization of its surrogate."""

import itertools

import numpy as np
import pytest
from conftest import plant
from hypothesis import given, settings
from hypothesis import strategies as st

from dcf.factorization.nmf import HalsNMF
from dcf.factorization.range import factorize_surrogate
from dcf.refinement.alternating import Unjournalled, refine_subtree
from dcf.sketch.projections import CountSketch, Folded, Role, SparseSign
from dcf.sketch.range import Surrogate, SurrogateRows, meet, triangle
from dcf.solvers.gram_nnls import nonnegative_solve
from dcf.solvers.models import Nonnegative
from dcf.types import Block


def sketched(m, q, size, seed=0, precision=1e-13):
    omega = Folded(seed, q).dense(m.shape[1])
    z, x = m @ omega, np.zeros((size, m.shape[1]))
    SparseSign(seed, size, role=Role.corange).accumulate(m, 0, x)
    return z, Surrogate.of(x, triangle(z), omega, precision), omega


def dense(z, surrogate):
    return z @ surrogate.coordinates @ surrogate.directions


@given(cuts=st.lists(st.integers(1, 99), max_size=5), rank=st.integers(1, 8))
@settings(max_examples=25, deadline=None)
def test_triangles_of_parts_meet_in_that_of_the_whole(cuts, rank):
    generator = np.random.default_rng(rank)
    z = generator.random((100, rank)) @ generator.random((rank, 8))  # deficient: Cholesky would fail
    edges = [0, *sorted(set(cuts)), 100]
    met = np.zeros((8, 8))
    for start, stop in itertools.pairwise(edges):
        met = meet(met, triangle(z[start:stop]))
    np.testing.assert_allclose(met.T @ met, z.T @ z, atol=1e-11)


@pytest.mark.parametrize("rank", [1, 4, 9])
def test_a_matrix_of_low_rank_is_known_exactly(rank):
    generator = np.random.default_rng(rank)
    m = generator.random((500, rank)) @ generator.random((rank, 60))
    z, surrogate, _ = sketched(m, 9, 40)
    assert len(surrogate.directions) == rank
    np.testing.assert_allclose(dense(z, surrogate), m, rtol=1e-9)
    np.testing.assert_allclose(surrogate.directions @ surrogate.directions.T, np.eye(rank), atol=1e-12)


@pytest.mark.parametrize("noise", [0.01, 0.3])
def test_the_error_is_that_of_the_theory(noise):
    """Tropp et al. 2017, Theorem 4.3: E‖M − M̂‖² ≤ (1 + q/(l − q − 1)) (1 + ρ/(q − ρ − 1)) tail²."""
    m = plant(2000, 100, rank=5, noise=noise, dtype="f8")[0]
    tail = np.linalg.norm(np.linalg.svd(m, compute_uv=False)[5:])
    errors = []
    for seed in range(5):
        z, surrogate, _ = sketched(m, 20, 160, seed)
        errors.append(np.linalg.norm(m - dense(z, surrogate)) ** 2)
    assert np.mean(errors) <= (1 + 20 / 139) * (1 + 5 / 14) * tail**2


def test_a_probe_sees_what_the_surrogate_misses():
    m = plant(1000, 50, noise=0.2, dtype="f8")[0]
    z, surrogate, omega = sketched(m, 13, 60)
    probe, sketch, missed = CountSketch(0, 64, role=Role.probe), np.zeros((64, 50)), np.zeros((64, 50))
    probe.accumulate(m, 0, sketch)
    probe.accumulate(m - dense(z, surrogate), 0, missed)
    np.testing.assert_allclose(surrogate.unseen(sketch, omega), missed, atol=1e-9)


def sweep(z, surrogate, tile="f8"):
    rows, block = SurrogateRows(z, surrogate.coordinates, surrogate.mean), Block(0, 0, len(z))

    def sums(h):
        g = surrogate.project(h)
        total = refine_subtree(rows, Nonnegative(), g, h @ h.T, tile, Unjournalled(), None, [block])
        return total.linear(g) @ surrogate.directions, total.gram

    return sums


def test_sums_over_the_surrogate_are_those_over_its_dense_form():
    m = plant(800, 50, noise=0.2, dtype="f8")[0]
    z, surrogate, _ = sketched(m, 13, 60)
    h = np.random.default_rng(1).random((4, 50))
    linear, gram = sweep(z, surrogate)(h)
    stand_in = dense(z, surrogate)
    w = nonnegative_solve(stand_in @ h.T, h @ h.T)
    np.testing.assert_allclose(linear, w.T @ stand_in, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(gram, w.T @ w, rtol=1e-7)


def test_sweeps_never_raise_the_objective_and_end_where_nmf_does():
    m = plant(800, 50, rank=4, noise=0.2, dtype="f8")[0]
    z, surrogate, _ = sketched(m, 17, 136)
    stand_in = dense(z, surrogate)

    def objective(h):
        w = nonnegative_solve(stand_in @ h.T, h @ h.T)
        return np.linalg.norm(stand_in - w @ h)

    start = np.random.default_rng(1).random((4, 50))
    path = [
        factorize_surrogate(Nonnegative(), sweep(z, surrogate), start, 0.0, sweeps)[0]
        for sweeps in range(1, 12)
    ]
    values = [objective(start), *map(objective, path)]
    assert all(b <= a * (1 + 1e-10) for a, b in itertools.pairwise(values))
    h, status, _, ratio = factorize_surrogate(Nonnegative(), sweep(z, surrogate), start, 1e-4, 200)
    assert status.value == "converged"
    assert ratio <= 1e-4

    def error(h):
        return np.linalg.norm(m - nonnegative_solve(m @ h.T, h @ h.T) @ h)

    assert error(h) <= 1.03 * error(HalsNMF(4).factorize(m).factors.components)
