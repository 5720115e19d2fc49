"""Laws of the row sample."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcf.candidates import error_on
from dcf.sketch.rows import RowSampler, spared
from dcf.solvers.models import Nonnegative


def sample(m, capacity, start=0, seed=0, bound=np.inf):
    sampler = RowSampler(seed, capacity, m.shape[1], m.dtype, bound)
    for i in range(0, len(m), 7):
        tile = m[i : i + 7]
        sampler.offer(((0, tile),), np.square(tile.astype("f8")).sum(1), start + i)
    return sampler.sample()


@given(cuts=st.lists(st.integers(1, 199), max_size=5), swap=st.booleans(), capacity=st.integers(1, 250))
@settings(max_examples=40, deadline=None)
def test_merging_is_free_of_order_and_blocks(cuts, swap, capacity):
    m = np.random.default_rng(0).random((200, 3)).astype("f4")
    m[5] = 0
    whole = sample(m, capacity)
    edges = [0, *sorted(set(cuts)), 200]
    parts = [sample(m[a:b], capacity, a) for a, b in itertools.pairwise(edges)]
    merged = parts[0]
    for part in parts[1:]:
        merged = part.merge(merged, capacity) if swap else merged.merge(part, capacity)
    np.testing.assert_array_equal(merged.index, whole.index)
    np.testing.assert_array_equal(merged.rows, whole.rows)
    assert 5 not in whole.index
    np.testing.assert_array_equal(whole.rows, m[whole.index])


@given(cut=st.integers(1, 199), capacity=st.integers(1, 150))
@settings(max_examples=40, deadline=None)
def test_rows_beyond_what_another_block_knows_are_not_missed(cut, capacity):
    m = np.random.default_rng(0).random((200, 3)).astype("f4")
    first = sample(m[:cut], capacity)
    bound = first.keys[-1] if len(first.keys) == capacity else np.inf
    second = sample(m[cut:], capacity, cut, bound=bound)
    merged, whole = first.merge(second, capacity), sample(m, capacity)
    assert (second.keys < bound).all()
    np.testing.assert_array_equal(merged.index, whole.index)
    np.testing.assert_array_equal(merged.rows, whole.rows)


def test_the_weighted_gram_is_unbiased():
    generator = np.random.default_rng(0)
    m = generator.random((400, 4)) * generator.exponential(size=(400, 1)) ** 2
    grams = [(s := sample(m, 61, seed=seed).weighted(61)).T @ s for seed in range(400)]
    spread = np.std(grams, axis=0) / np.sqrt(len(grams))
    assert (np.abs(np.mean(grams, axis=0) - m.T @ m) < 5 * spread).all()


def test_rare_strong_rows_are_found():
    m = np.full((5000, 2), 1e-3)
    m[[17, 4321]] = 10
    for seed in range(20):
        assert {17, 4321} <= set(sample(m, 20, seed=seed).index)


def test_everything_is_kept_where_there_is_room():
    m = np.random.default_rng(0).random((10, 2))
    np.testing.assert_array_equal(np.sort(sample(m, 11).weighted(11), axis=0), np.sort(m, axis=0))


@pytest.mark.parametrize("zeros", [True, False])
def test_all_zero_rows_leave_nothing(zeros):
    m = np.zeros((10, 2)) if zeros else np.eye(10, 2)
    assert len(sample(m, 5).index) == (0 if zeros else 2)


@given(size=st.integers(1, 400), count=st.integers(0, 200), spread=st.floats(0, 3), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_rows_kept_out_of_the_fit_are_spared_ones(size, count, spread, seed):
    generator = np.random.default_rng(seed)
    rows = generator.random((size, 4)) * generator.lognormal(0, spread, (size, 1))
    common, apart = spared(rows, count)
    norms = (rows**2).sum(axis=1)
    assert apart.sum() == min(count, common.sum() // 2)
    assert common[apart].all()
    assert norms[apart].max(initial=0) <= 2 * norms.min()


def test_what_rows_kept_out_say_is_the_error_over_all_rows():
    """In the mean over seeds, though a few rows carry half of the norm."""
    generator = np.random.default_rng(0)
    m = generator.random((4000, 30)) * generator.lognormal(0, 1.5, (4000, 1))
    h = generator.random((3, 30))
    true = error_on(Nonnegative(), m, np.ones(len(m)), h)
    said = []
    for seed in range(30):
        sampler = RowSampler(seed, 401, 30, np.dtype("f8"))
        sampler.offer(((0, m),), (m**2).sum(axis=1), 0)
        sample = sampler.sample().weighted(401)
        common, apart = spared(sample, 100)
        shares = np.where(common, 0.0, 1.0)
        shares[apart] = common.sum() / apart.sum()
        said.append(error_on(Nonnegative(), sample, shares, h))
    assert np.mean(said) == pytest.approx(true, rel=0.01)
