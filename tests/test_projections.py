"""Laws of the projections: the seed contract, adjointness, linearity."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcf.sketch.kernels import philox
from dcf.sketch.projections import CountSketch, Gaussian, Role, SparseBinary, SparseSign, uniform

FAMILY = [
    SparseBinary(7, 40, 5),
    SparseSign(7, 40, 6),
    CountSketch(7, 16, role=Role.probe),
    Gaussian(7, 12),
]
each = pytest.mark.parametrize("p", FAMILY, ids=lambda p: type(p).__name__)


def test_philox_is_that_of_numpy():
    words = np.empty(4, np.uint64)
    for seed, role, column, block in [(0, 1, 1, 0), (7, 3, 123456789, 5), (2**63 - 1, 4, 2**40, 2**32 + 1)]:
        philox(np.uint64(seed), np.uint64(role), np.uint64(column), np.uint64(block), words)
        # NumPy counts up before it draws.
        numpy = np.random.Philox(counter=[column - 1, block, 0, 0], key=[seed, role]).random_raw(4)
        np.testing.assert_array_equal(words, numpy)


@each
def test_adjoint(p):
    generator = np.random.default_rng(0)
    u, v = generator.standard_normal((90, 3)), generator.standard_normal((p.sketch_size, 3))
    pu = np.zeros((p.sketch_size, 3))
    p.accumulate(u, 0, pu)
    np.testing.assert_allclose((pu * v).sum(), (u * p.transpose(v, 0, 90)).sum(), rtol=1e-12)


@each
@given(cuts=st.lists(st.integers(1, 99), max_size=6))
@settings(max_examples=25, deadline=None)
def test_panels_concatenate_whatever_the_cuts(p, cuts):
    edges = [0, *sorted(set(cuts)), 100]
    panels = [p.dense(a, b) for a, b in itertools.pairwise(edges)]
    np.testing.assert_array_equal(np.hstack(panels), p.dense(0, 100))


@each
def test_accumulate_is_the_dense_product(p):
    m = np.random.default_rng(1).random((70, 9))
    out = np.zeros((p.sketch_size, 9))
    p.accumulate(m[:30], 0, out)
    p.accumulate(m[30:], 30, out)
    np.testing.assert_allclose(out, p.dense(0, 70) @ m, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("p", FAMILY[:3], ids=lambda p: type(p).__name__)
def test_columns_have_distinct_uniform_rows(p):
    index, value = p.columns(0, 20_000)
    assert (np.diff(np.sort(index, axis=1), axis=1) > 0).all()
    counts = np.bincount(index.ravel(), minlength=p.sketch_size)
    expected = index.size / p.sketch_size
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < p.sketch_size + 6 * np.sqrt(2 * p.sketch_size)
    if type(p) is SparseBinary:
        assert (value == 1).all()
    else:
        assert set(np.unique(value)) == {-p.scale, p.scale}
        assert abs(np.sign(value).mean()) < 6 / np.sqrt(value.size)


@pytest.mark.parametrize("p", [SparseSign(3, 64, 6), CountSketch(3, 64), Gaussian(3, 64)], ids=str)
def test_norms_are_kept_on_average(p):
    m = np.random.default_rng(2).standard_normal((500, 40))
    out = np.zeros((64, 40))
    p.accumulate(m, 0, out)
    assert np.linalg.norm(out) / np.linalg.norm(m) == pytest.approx(1, abs=0.1)


def test_streams_differ_by_seed_and_role():
    a = SparseBinary(0, 1000, 5).columns(0, 100)[0]
    assert (a != SparseBinary(1, 1000, 5).columns(0, 100)[0]).mean() > 0.9
    assert (a != SparseBinary(0, 1000, 5, Role.probe).columns(0, 100)[0]).mean() > 0.9
    u = uniform(0, Role.rows, 0, 50_000)
    assert u.min() > 0
    assert u.max() <= 1
    assert u.mean() == pytest.approx(0.5, abs=0.01)


def test_all_rows_are_taken_when_a_column_is_full():
    index, _ = SparseBinary(0, 5, 5).columns(0, 50)
    np.testing.assert_array_equal(np.sort(index, axis=1), np.tile(np.arange(5), (50, 1)))


def test_they_pickle_to_bytes():
    import pickle

    for p in FAMILY:
        assert len(pickle.dumps(p)) < 500


def test_impossible_columns_are_refused():
    with pytest.raises(ValueError, match="6 nonzeros do not fit a column of 5 rows"):
        SparseBinary(0, 5, 6)
