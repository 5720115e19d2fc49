"""scikit-learn's conventions: checks, pipelines, W for new rows."""

import subprocess
import sys

import numpy as np
import pytest
import zarr
from conftest import plant, store
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import dcf
from dcf import CompressedCP, CompressedNMF, CompressedSparsePCA
from dcf.solvers.gram_nnls import projected_gradient

ALL = [CompressedNMF(4), CompressedSparsePCA(4), CompressedCP(4)]
NAMES = [type(estimator).__name__ for estimator in ALL]
# W of fit_transform is from before the last step of H. Where an entry is near its threshold that step may
# decide whether it is kept, and the checks ask for the same entries to 0.01.
THRESHOLD = "an entry of W near its threshold is kept by fit_transform and not by transform"
NEAR_A_THRESHOLD = {
    check: THRESHOLD for check in ("check_transformer_general", "check_transformer_data_not_an_array")
}


# CP has no check of scikit-learn's that applies: they are all of matrices.
@parametrize_with_checks([CompressedNMF(2)])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([CompressedSparsePCA(2)], expected_failed_checks=lambda _: NEAR_A_THRESHOLD)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_scikit_learns_checks_of_sparse_pca(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def tensor():
    generator = np.random.default_rng(0)
    a, b, c = (generator.gamma(0.7, size=(n, 4)) for n in (90, 14, 9))
    t = np.einsum("ir,jr,kr->ijk", a, b, c)
    return t * (1 + 0.02 * generator.standard_normal(t.shape))


def data_of(estimator, tensor):
    return tensor if isinstance(estimator, CompressedCP) else plant(400, 30)[0]


@pytest.mark.parametrize("estimator", ALL, ids=NAMES)
def test_parameters(estimator, tensor):
    made = clone(estimator).set_params(random_state=3, tol=1e-5)
    assert made.get_params() == {**estimator.get_params(), "random_state": 3, "tol": 1e-5}
    with pytest.raises(NotFittedError):
        made.transform(data_of(made, tensor))
    for wrong in ({"n_components": 0}, {"n_components": 2.5}, {"random_state": -1}, {"method": "best"}):
        with pytest.raises((ValueError, TypeError), match=next(iter(wrong))):
            clone(estimator).set_params(**wrong).fit(data_of(estimator, tensor))


@pytest.mark.parametrize("estimator", ALL, ids=NAMES)
def test_a_seed_gives_the_same_bits(estimator, tensor):
    m = data_of(estimator, tensor)
    first, again = clone(estimator).fit_transform(m), clone(estimator).set_params(workers=1).fit_transform(m)
    assert first.tobytes() == again.tobytes()


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("estimator", ALL[:2], ids=NAMES[:2])
@pytest.mark.parametrize("transposed", [False, True])
def test_w_h_whichever_axis_is_compressed(estimator, transposed, axis):
    m = plant(400, 30)[0]
    m = np.ascontiguousarray(m.T) if transposed else m
    fitted = clone(estimator).set_params(axis=axis)
    w = fitted.fit_transform(m)
    h = fitted.components_
    assert w.shape == (len(m), 4)
    assert h.shape == (4, m.shape[1])
    assert (fitted.n_components_, fitted.n_features_in_) == (4, m.shape[1])
    assert fitted.n_iter_ >= 1
    lost = np.linalg.norm(m - fitted.inverse_transform(w))
    assert fitted.reconstruction_err_ == pytest.approx(lost, rel=1e-3)
    assert fitted.relative_error_.value == pytest.approx(lost / np.linalg.norm(m), rel=1e-3)
    units = np.linalg.norm(w if axis == 0 else h, axis=axis)
    np.testing.assert_allclose(units, 1, atol=1e-4)
    again = fitted.transform(m)
    if isinstance(fitted, CompressedNMF):
        assert np.linalg.norm(m - again @ h) <= lost * (1 + 1e-6)
        assert np.linalg.norm(again - w) <= 1e-2 * np.linalg.norm(w)
    elif axis == 1:
        np.testing.assert_allclose(again, np.linalg.lstsq(h.T, m.T)[0].T, rtol=1e-3, atol=1e-3)
    else:  # sparse where it was planted so, as that of the exact pass
        assert np.mean((again == 0) != (w == 0)) < 0.03
        assert transposed or np.mean(w == 0) > 0.3
        assert np.linalg.norm(m - again @ h) <= 1.02 * lost


@pytest.mark.parametrize("seed", range(3))
def test_the_error_is_near_that_of_scikit_learn(seed):
    m = plant(500, 40, noise=0.2, seed=seed)[0].clip(0)
    theirs = NMF(4, init="nndsvda", tol=1e-6, max_iter=2000).fit(m).reconstruction_err_
    assert CompressedNMF(4, random_state=seed).fit(m).reconstruction_err_ <= 1.01 * theirs


def test_new_rows_satisfy_the_kkt_conditions():
    m = plant(600, 30, noise=0.1, dtype="f8")[0].clip(0)
    nmf = CompressedNMF(4).fit(m[:500])
    w, h = nmf.transform(m[500:]), nmf.components_
    assert (w >= 0).all()
    violation = projected_gradient(m[500:] @ h.T, h @ h.T, w)
    assert np.abs(violation).max() <= 1e-10 * np.abs(m[500:] @ h.T).max()


@pytest.mark.parametrize("kind", [str, lambda path: path, zarr.open_array])
def test_stored_rows_are_as_rows_in_memory(tmp_path, kind):
    m = plant(700, 30)[0]
    store(tmp_path / "m.zarr", m, chunks=(128, 16))
    store(tmp_path / "new.zarr", m[::2].copy(), chunks=(50, 7))
    stored, held = CompressedNMF(4), CompressedNMF(4).fit(m)
    stored.fit(kind(tmp_path / "m.zarr"))
    assert stored.reconstruction_err_ == pytest.approx(held.reconstruction_err_, rel=1e-3)
    new = stored.transform(kind(tmp_path / "new.zarr"))
    assert new.dtype == np.float32
    np.testing.assert_allclose(new, stored.transform(m[::2]), rtol=1e-5, atol=1e-7)


def test_bad_rows_are_named(tmp_path):
    m = plant(300, 20)[0]
    nmf = CompressedNMF(4).fit(m)
    with pytest.raises(ValueError, match="X has 19 features, but CompressedNMF is expecting 20"):
        nmf.transform(m[:, 1:])
    array = store(tmp_path / "m.zarr", m[:, 1:].copy(), chunks=(100, 20))
    with pytest.raises(ValueError, match="X has 19 features, but CompressedNMF is expecting 20"):
        nmf.transform(array)
    for entry, word in ((-1, "below zero"), (np.nan, "finite")):
        wrong = m.copy()
        wrong[120, 3] = entry
        array = store(tmp_path / f"{word}.zarr", wrong, chunks=(100, 20))
        with pytest.raises(dcf.SourceError, match=rf"\[120, 3\].*{word}"):
            nmf.transform(array)
        with pytest.raises(ValueError, match=r"Negative|NaN"):
            nmf.transform(wrong)
    wrong = m.copy()
    wrong[120, 3] = -0.1
    assert CompressedNMF(4, negatives="allow").fit(wrong).transform(wrong).min() == 0
    with pytest.raises(ValueError, match="W has 3 columns"):
        nmf.inverse_transform(np.ones((2, 3)))
    with pytest.raises(ValueError, match="n_components=21 must be at most 20"):
        CompressedNMF(21).fit(m)


def test_rows_that_do_not_fit_are_refused(tmp_path):
    nmf = CompressedNMF(4, memory="400MiB").fit(plant(300, 20)[0])
    huge = zarr.create_array(
        str(tmp_path / "huge.zarr"), shape=(10**7, 20), chunks=(10**7, 20), dtype="f4", fill_value=0
    )
    with pytest.raises(dcf.BudgetError, match=r"transform needs .*MiB, memory allows 400MiB"):
        nmf.transform(huge)


def test_out_keeps_the_run(tmp_path, conforms):
    m, out = plant(300, 20)[0], tmp_path / "o.zarr"
    nmf = CompressedNMF(4, out=out)
    w = nmf.fit_transform(m)
    conforms(out)
    assert isinstance(w, np.ndarray)
    assert isinstance(nmf.components_, np.ndarray)
    assert isinstance(nmf.decomposition_.W, zarr.Array)


def test_other_entries_are_another_run(tmp_path):
    m = plant(300, 20)[0]
    nmf = CompressedNMF(4, out=tmp_path / "o.zarr").fit(m)
    was = nmf.reconstruction_err_
    assert nmf.fit(m.copy()).reconstruction_err_ == was
    with pytest.raises(dcf.UsageError, match="another run"):
        nmf.fit(2 * m)
    assert nmf.set_params(overwrite=True).fit(2 * m).reconstruction_err_ == pytest.approx(2 * was, rel=1e-3)


def test_a_factorization_cut_short_warns():
    with pytest.warns(ConvergenceWarning, match=r"max_iter_reached\. Raise max_iter, or loosen tol"):
        CompressedNMF(4, max_iter=1).fit(plant(300, 20)[0])


def test_pipelines():
    m = plant(400, 30)[0]
    classes = make_pipeline(CompressedNMF(4), StandardScaler(), KMeans(4, n_init=3, random_state=0))
    labels = classes.fit_predict(m)
    assert set(labels) == set(range(4))
    assert np.mean(classes.predict(m) == labels) > 0.98
    names = list(classes[:1].get_feature_names_out())
    assert names == [f"compressednmf{k}" for k in range(4)]


@pytest.mark.parametrize("signed", [False, True])
def test_cp(tensor, tmp_path, signed):
    t = tensor * np.where(np.arange(9) % 2, -1, 1) if signed else tensor
    cp = CompressedCP(4, signed=signed)
    a = cp.fit_transform(t)
    assert [factor.shape for factor in cp.factors_] == [(90, 4), (14, 4), (9, 4)]
    assert cp.weights_.shape == (4,)
    lost = np.linalg.norm(t - cp.inverse_transform(a))
    assert cp.reconstruction_err_ == pytest.approx(lost, rel=1e-3)
    assert cp.relative_error_.value < 0.03
    np.testing.assert_allclose(cp.transform(t), a, atol=1e-3)
    store(tmp_path / "t.zarr", t[:40], chunks=(16, 5, 9))
    np.testing.assert_allclose(cp.transform(tmp_path / "t.zarr"), cp.transform(t[:40]), atol=1e-9)
    with pytest.raises(ValueError, match=r"Samples of X have shape \(14, 8\), fitted: \(14, 9\)"):
        cp.transform(t[:, :, 1:])
    with pytest.raises(ValueError, match="three axes"):
        cp.fit(t[0])
    if not signed:
        with pytest.raises(ValueError, match="Negative"):
            cp.fit(-t)


def test_scikit_learn_is_imported_with_the_first_estimator():
    code = (
        "import sys, dcf, dcf.cli.main; assert 'sklearn' not in sys.modules;"
        "assert 'CompressedNMF' in dir(dcf); from dcf import CompressedNMF; assert 'sklearn' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="CompressedSVD"):
        _ = dcf.CompressedSVD
