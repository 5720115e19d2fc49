"""Laws of the truncated SVD and of PCA: the same as of LAPACK's, from a pass or two."""

import numpy as np
import pytest
import zarr
from conftest import store

import dcf
from dcf.canonical import singular_triplets, unit_columns

RANK = 4


def spectrum(n=900, m=70, noise=0.1, seed=0, offset="no"):
    """Singular values 100, 70, 49, … under noise, with means that a centring has to take out."""
    generator = np.random.default_rng(seed)
    u, v = (np.linalg.qr(generator.standard_normal((size, RANK)))[0] for size in (n, m))
    matrix = (u * (100.0 * 0.7 ** np.arange(RANK))) @ v.T
    matrix += noise * np.linalg.norm(matrix) / np.sqrt(n * m) * generator.standard_normal((n, m))
    if offset == "columns":
        matrix += 2 * generator.standard_normal(m)
    if offset == "rows":
        matrix += 2 * generator.standard_normal((n, 1))
    return matrix


def centred(matrix, center):
    if center == "no":
        return matrix, None
    mean = matrix.mean(axis=0 if center == "columns" else 1)
    return matrix - (mean if center == "columns" else mean[:, None]), mean


@pytest.mark.parametrize("shape", [(900, 70), (70, 900)])
@pytest.mark.parametrize("center", ["no", "columns", "rows"])
@pytest.mark.parametrize(
    ("method", "refine", "most"), [("auto", 1, 1.001), ("auto", 0, 1.4), ("full", 0, 1.0)]
)
def test_it_is_nearly_the_best_pair(tmp_path, conforms, shape, center, method, refine, most):
    matrix = spectrum(*shape, offset=center)
    store(tmp_path / "s.zarr", matrix)
    result = dcf.svd(
        tmp_path / "s.zarr", rank=RANK, out=tmp_path / "o.zarr", center=center, method=method, refine=refine
    )
    conforms(tmp_path / "o.zarr", tmp_path / "s.zarr")
    w, h = result.W[:], result.H[:]
    exact, mean = centred(matrix, center)
    values = np.linalg.svd(exact, compute_uv=False)
    error = np.linalg.norm(exact - w @ h) / np.linalg.norm(exact)
    best = np.sqrt(np.square(values[RANK:]).sum() / np.square(values).sum())
    assert error <= most * best * (1 + 1e-9)
    said = result.relative_error
    if said.kind == "exact":
        assert said.value == pytest.approx(error, rel=1e-6)
        np.testing.assert_allclose(
            np.linalg.norm(h, axis=1) * np.linalg.norm(w, axis=0), values[:RANK], rtol=1e-2
        )
    else:
        assert 0.95 * said.interval[0] <= error <= 1.05 * said.interval[1]
    long, short = (w, h) if shape[0] > shape[1] else (h.T, w.T)
    np.testing.assert_allclose(long.T @ long, np.eye(RANK), atol=1e-7)
    cross = short @ short.T
    np.testing.assert_allclose(cross, np.diag(np.diag(cross)), atol=1e-7 * cross[0, 0])
    if center != "no":
        np.testing.assert_allclose(result.mean[:], mean, atol=1e-10 * np.abs(matrix).max())


def test_more_passes_come_closer(tmp_path):
    matrix = spectrum(noise=0.6)
    values = np.linalg.svd(matrix, compute_uv=False)
    best = np.sqrt(np.square(values[RANK:]).sum() / np.square(values).sum())
    store(tmp_path / "s.zarr", matrix)
    excess = [
        dcf.svd(tmp_path / "s.zarr", rank=RANK, refine=k).relative_error.value / best - 1 for k in (1, 2, 4)
    ]
    assert excess[0] > excess[1] > excess[2] >= -1e-9


def test_unsettled_vectors_are_said_to_be_so(tmp_path):
    noise = np.random.default_rng(0).standard_normal((2000, 150))
    store(tmp_path / "s.zarr", noise)
    trust = dcf.svd(tmp_path / "s.zarr", rank=3).attributes["trust"]
    assert trust["verdict"] == "doubtful"
    assert "not settled" in trust["why"]


@pytest.mark.parametrize("matrix", [np.zeros((60, 20)), np.ones((60, 20)), np.eye(60, 20)[:, [0] * 20]])
def test_rank_deficient_data(tmp_path, conforms, matrix):
    store(tmp_path / "s.zarr", matrix)
    for center in ("no", "columns", "rows"):
        out = tmp_path / f"{center}.zarr"
        result = dcf.svd(tmp_path / "s.zarr", rank=3, out=out, center=center)
        conforms(out, tmp_path / "s.zarr")
        assert result.relative_error.value <= 1e-6


def test_triplets_of_a_pair_and_what_is_left_out():
    generator = np.random.default_rng(0)
    w, h = generator.standard_normal((50, 6)) * 10.0 ** -np.arange(6), generator.standard_normal((6, 30))
    form = singular_triplets(w.T @ w, h, 4)
    u, values, _ = np.linalg.svd(w @ h, full_matrices=False)
    np.testing.assert_allclose(form.norms, values[:4], rtol=1e-10)
    np.testing.assert_allclose(np.abs(np.sum((w @ form.transform) * u[:, :4], axis=0)), 1, rtol=1e-8)
    assert form.squared_loss == pytest.approx(np.square(values[4:]).sum(), rel=1e-6)
    left = w @ h - (w @ form.transform) @ form.components
    assert np.square(left).sum() == pytest.approx(form.squared_loss, rel=1e-6)


def test_unit_columns_leave_the_product_as_it_is():
    generator = np.random.default_rng(0)
    w, h = generator.random((50, 4)), generator.random((4, 30))
    w[:, 2] = 0
    form = unit_columns(w.T @ w, h)
    np.testing.assert_allclose((w @ form.transform) @ form.components, w @ h)
    np.testing.assert_allclose(np.linalg.norm(w @ form.transform, axis=0), [1, 1, 1, 0])
    assert (np.diff(form.norms) <= 0).all()


def test_same_bits_for_any_number_of_workers(tmp_path, monkeypatch):
    monkeypatch.setattr("dcf.plan.BLOCK_BYTES", 2**16)
    store(tmp_path / "s.zarr", spectrum(), chunks=(64, 70))
    results = [dcf.svd(tmp_path / "s.zarr", rank=RANK, center="columns", workers=k) for k in (1, 3)]
    np.testing.assert_array_equal(results[0].W, results[1].W)
    np.testing.assert_array_equal(results[0].H, results[1].H)


def test_a_tensor_is_no_matrix(tmp_path):
    zarr.create_array(str(tmp_path / "t.zarr"), data=np.ones((4, 5, 6)))
    with pytest.raises(dcf.UsageError, match="dcf cp"):
        dcf.svd(tmp_path / "t.zarr", rank=2)


@pytest.mark.parametrize(("m", "noise"), [(12, 0.1), (60, 0.0)])
def test_means_in_the_span_of_the_sketch(tmp_path, conforms, m, noise):
    store(tmp_path / "s.zarr", spectrum(900, m, noise, offset="columns"))
    result = dcf.svd(tmp_path / "s.zarr", rank=RANK, center="columns", refine=0, out=tmp_path / "o.zarr")
    conforms(tmp_path / "o.zarr", tmp_path / "s.zarr")
    assert noise or result.relative_error.value <= 1e-9


@pytest.mark.parametrize("refine", [0, 1])
def test_the_error_of_rows_far_from_zero(tmp_path, conforms, refine):
    matrix = spectrum(900, 50).astype("f4") + np.float32(1e3)
    store(tmp_path / "s.zarr", matrix)
    dcf.svd(tmp_path / "s.zarr", rank=RANK, center="rows", refine=refine, out=tmp_path / "o.zarr")
    conforms(tmp_path / "o.zarr", tmp_path / "s.zarr")
