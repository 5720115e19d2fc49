"""Laws of the exact passes."""

import numpy as np
import pytest
import zarr
from conftest import plant
from scipy.optimize import nnls

from dcf.refinement.alternating import RefineSums, refine_block, update_components
from dcf.solvers.models import Nonnegative
from dcf.storage.source import ArraySource
from dcf.types import Block


def source(matrix):
    array = zarr.create_array(zarr.storage.MemoryStore(), data=matrix, chunks=(100, 20))
    return ArraySource(array, 0, 100, 33, 2, matrix.dtype.name)


def refine(m, h):
    blocks = [Block(0, 0, 200), Block(1, 200, len(m))]
    (a, w_a), (b, w_b) = (
        refine_block(source(m), Nonnegative(), h, None, m.dtype.name, block) for block in blocks
    )
    sums, w = a.merge(b), np.vstack([w_a, w_b])
    updated, squared_error = update_components(Nonnegative(), sums, h.astype(m.dtype).astype("f8"))
    return w.astype("f8"), updated, np.sqrt(squared_error), sums


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("noise", [0.3, 1e-2, 1e-4, 1e-6])
def test_the_error_is_exact_however_small(dtype, noise):
    m, _, h = plant(500, 60, noise=noise, dtype=dtype)
    _, h, _, _ = refine(m, np.abs(h))
    w, updated, error, _ = refine(m, h)
    true = np.linalg.norm(m.astype("f8") - w @ updated)
    floor = 3e-7 if dtype == "f4" else 1e-13
    assert error == pytest.approx(true, rel=1e-3, abs=floor * float(np.linalg.norm(m)))


def test_each_step_is_the_exact_least_squares_solution():
    m, _, h = plant(500, 60, noise=0.3, dtype="f8")
    start = np.random.default_rng(1).random(h.shape)
    w, updated, _, sums = refine(m, start)
    for i in range(0, 500, 50):
        np.testing.assert_allclose(w[i], nnls(start.T, m[i])[0], atol=1e-8)
    for j in range(60):
        np.testing.assert_allclose(updated[:, j], nnls(w, m[:, j])[0], atol=1e-8)
    np.testing.assert_allclose(sums.gram, w.T @ w, rtol=1e-12)


def test_passes_never_raise_the_error():
    m = plant(500, 60, noise=0.3, dtype="f8")[0]
    h, errors = np.random.default_rng(1).random((4, 60)), []
    for _ in range(8):
        _, h, error, _ = refine(m, h)
        errors.append(error)
    assert (np.diff(errors) <= 1e-12 * errors[0]).all()


def test_dead_components_and_zero_data():
    m = plant(500, 60, dtype="f8")[0]
    h = np.random.default_rng(1).random((4, 60))
    h[2] = 0
    w, updated, error, _ = refine(m, h)
    assert np.isfinite(updated).all()
    assert (w[:, 2] == 0).all()
    assert np.isfinite(error)
    w, updated, error, _ = refine(np.zeros_like(m), h)
    assert error == 0
    assert not w.any()


def test_sums_survive_their_journal():
    sums = refine(plant(500, 60)[0], np.ones((4, 60)))[3]
    again = RefineSums.from_arrays(sums.to_arrays())
    np.testing.assert_array_equal(again.gradient, sums.gradient)
    assert again.squared_residual == sums.squared_residual
    assert again.bytes_read == 500 * 60 * 4
