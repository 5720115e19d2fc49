"""Laws of the projections: the seed contract, adjointness, linearity."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcf.sketch.kernels import fold_columns, philox, sampling_keys
from dcf.sketch.projections import CountSketch, Folded, Role, SparseBinary, SparseSign

FAMILY = [
    SparseBinary(7, 40, 5),
    SparseSign(7, 40, 6),
    CountSketch(7, 16, role=Role.probe),
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


@pytest.mark.parametrize("p", FAMILY, ids=lambda p: type(p).__name__)
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


@pytest.mark.parametrize("p", [SparseSign(3, 64, 6), CountSketch(3, 64)], ids=str)
def test_norms_are_kept_on_average(p):
    m = np.random.default_rng(2).standard_normal((500, 40))
    out = np.zeros((64, 40))
    p.accumulate(m, 0, out)
    assert np.linalg.norm(out) / np.linalg.norm(m) == pytest.approx(1, abs=0.1)


def test_streams_differ_by_seed_and_role():
    a = SparseBinary(0, 1000, 5).columns(0, 100)[0]
    assert (a != SparseBinary(1, 1000, 5).columns(0, 100)[0]).mean() > 0.9
    assert (a != SparseBinary(0, 1000, 5, Role.probe).columns(0, 100)[0]).mean() > 0.9
    keys = np.empty(50_000)
    sampling_keys(0, int(Role.rows), 0, np.full(50_000, 2.0), keys)
    u = np.exp(-2.0 * keys)
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


@pytest.mark.parametrize("ones", [False, True])
@pytest.mark.parametrize("width", [40, 252, 253, 1000])
@pytest.mark.parametrize("cuts", [(), (1,), (7, 8, 39)])
def test_folding_is_the_product_with_the_dense_matrix(width, cuts, ones):
    omega, m = Folded(7, 12, ones), np.random.default_rng(0).random((30, width))
    product, rule = np.empty((30, 12)), omega.product(width, "float64")
    folded = rule.sums(30)
    panels = [(a, np.ascontiguousarray(m[:, a:b])) for a, b in itertools.pairwise([0, *cuts, width])]
    for first, panel in panels:
        fold_columns(panel, first, rule.sign, rule.size, folded)
    rule.mix(panels, folded, product)
    np.testing.assert_allclose(product, m @ omega.dense(width), rtol=1e-11, atol=1e-12)
    if ones:
        np.testing.assert_allclose(product[:, 0] * np.sqrt(12), m.sum(axis=1), rtol=1e-13)


def test_a_folded_column_depends_on_its_place_alone():
    np.testing.assert_array_equal(Folded(7, 12).dense(1000)[:300], Folded(7, 12).dense(300))


@pytest.mark.parametrize("apart", [1, 125, 127, 250])
def test_no_two_columns_are_folded_into_one(apart):
    """Even where all the rest is zero: single columns are as independent as they would be unfolded."""
    omega = Folded(3, 20).dense(5000)
    pairs = [np.linalg.svd(omega[[j, j + apart]], compute_uv=False) for j in range(0, 4000, 97)]
    assert min(values[1] / values[0] for values in pairs) > 0.2


def test_folding_keeps_norms_on_average():
    m = np.random.default_rng(2).standard_normal((40, 5000))
    assert np.linalg.norm(m @ Folded(3, 64).dense(5000)) / np.linalg.norm(m) == pytest.approx(1, abs=0.1)
