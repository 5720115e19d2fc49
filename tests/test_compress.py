"""Laws of the sketch pass."""

import itertools

import numpy as np
import pytest
import zarr
from conftest import plant
from hypothesis import given, settings
from hypothesis import strategies as st

from dcf.errors import SourceError
from dcf.sketch.compress import Sketch, SketchRecipe, compress_block
from dcf.sketch.projections import CountSketch, Folded, Role, SparseBinary, SparseSign
from dcf.storage.source import ArraySource
from dcf.types import Block


def recipe(dtype="float32", negatives=False):
    probe, span = CountSketch(0, 16, role=Role.probe), Folded(0, 7)
    corange = SparseSign(0, 20, role=Role.corange)
    return SketchRecipe(0, probe, 21, SparseBinary(0, 30, 5), span, corange, dtype, negatives)


def source(matrix, chunks=(64, 16), axis=0, stripe=64, tile=10):
    array = zarr.create_array(zarr.storage.MemoryStore(), data=matrix, chunks=chunks)
    dtype = "float64" if matrix.dtype == np.float64 else "float32"
    return ArraySource(array, axis, stripe, tile, 2, dtype)


def sketch_in_blocks(data, edges, the=None):
    the = the or recipe()
    parts = [
        compress_block(data, the, Block(i, a, b))[0] for i, (a, b) in enumerate(itertools.pairwise(edges))
    ]
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.merge(part, the.sample_capacity)
    return whole


def assert_same(a: Sketch, b: Sketch, **tolerance):
    np.testing.assert_allclose(a.compressed, b.compressed, **tolerance)
    np.testing.assert_allclose(a.probe, b.probe, **tolerance)
    np.testing.assert_allclose(a.corange, b.corange, rtol=1e-5, atol=1e-5)  # float32, as Z is
    grams = [sketch.triangle.T @ sketch.triangle for sketch in (a, b)]
    np.testing.assert_allclose(*grams, rtol=1e-5)  # Z is a float32 product, of tiles of any height
    np.testing.assert_array_equal(a.sample.index, b.sample.index)
    np.testing.assert_array_equal(a.sample.rows, b.sample.rows)
    assert a.statistics.zeros == b.statistics.zeros
    assert a.statistics.minimum == b.statistics.minimum
    assert a.statistics.squared_norm == pytest.approx(b.statistics.squared_norm, rel=1e-12)


@given(
    chunks=st.tuples(st.integers(16, 320), st.integers(5, 50)),
    cuts=st.lists(st.integers(1, 299), max_size=4),
    axis=st.integers(0, 1),
    tile=st.integers(1, 70),
)
@settings(max_examples=30, deadline=None)
def test_chunking_blocks_and_orientation_change_nothing(chunks, cuts, axis, tile):
    m = plant(300, 40)[0]
    reference = compress_block(source(m), recipe(), Block(0, 0, 300))[0]
    if axis:
        data = source(np.ascontiguousarray(m.T), chunks[::-1], 1, chunks[0], tile)
    else:
        data = source(m, chunks, 0, chunks[0], tile)
    edges = [0, *sorted(set(cuts)), 300]
    assert_same(sketch_in_blocks(data, edges), reference, rtol=1e-11, atol=1e-11)


def test_it_is_the_product_with_the_dense_projection():
    m = plant(300, 40, dtype="f8")[0]
    sketch, z = compress_block(source(m), recipe("float64"), Block(0, 0, 300))
    the = recipe()
    np.testing.assert_allclose(sketch.compressed, the.projection.dense(0, 300) @ m, rtol=1e-12)
    np.testing.assert_allclose(sketch.probe, the.probe.dense(0, 300) @ m, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(sketch.corange, the.corange.dense(0, 300) @ m, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(z, m @ the.span.dense(40), rtol=1e-12)
    np.testing.assert_allclose(sketch.triangle.T @ sketch.triangle, z.T @ z, rtol=1e-10)
    assert sketch.statistics.squared_norm == pytest.approx((m**2).sum(), rel=1e-13)
    assert sketch.statistics.minimum == m.min()
    assert sketch.statistics.zeros == (m == 0).sum()
    assert sketch.statistics.bytes_read == m.nbytes


def test_it_is_linear():
    generator = np.random.default_rng(0)
    a, b = generator.random((200, 16)), generator.random((200, 16))
    block, the = Block(0, 0, 200), recipe("float64")
    left = compress_block(source(2 * a + 3 * b), the, block)[0]
    parts = [compress_block(source(x), the, block)[0] for x in (a, b)]
    np.testing.assert_allclose(left.compressed, 2 * parts[0].compressed + 3 * parts[1].compressed, rtol=1e-11)
    np.testing.assert_allclose(left.probe, 2 * parts[0].probe + 3 * parts[1].probe, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(
    ("value", "negatives", "says"),
    [(np.nan, False, "is nan"), (np.inf, True, "is inf"), (-np.inf, True, "is -inf"), (-1.5, False, "-1.5")],
)
def test_the_first_offender_is_named(axis, value, negatives, says):
    m = plant(300, 40)[0]
    m[[123, 250], [17, 3]] = value
    data = source(m if axis == 0 else np.ascontiguousarray(m.T), axis=axis)
    where = r"\[123, 17\]" if axis == 0 else r"\[17, 123\]"
    with pytest.raises(SourceError, match=f"{where}.*{says}"):
        compress_block(data, recipe(negatives=negatives), Block(0, 0, 300))


def test_negatives_are_data_when_allowed():
    m = plant(300, 40)[0]
    m[123, 17] = -1.5
    sketch = compress_block(source(m), recipe(negatives=True), Block(0, 0, 300))[0]
    assert sketch.statistics.minimum == -1.5


def test_a_sketch_survives_its_journal():
    m = plant(12, 40)[0]  # fewer rows than the sample would hold
    sketch = compress_block(source(m), recipe(), Block(0, 0, 12))[0]
    again = Sketch.from_arrays(sketch.to_arrays(21))
    assert_same(again, sketch, rtol=0)
    assert again.statistics == sketch.statistics
