"""Sparse PCA, semi-NMF and the baseline recover-factorize from end to end."""

import dask
import numpy as np
import pytest
from conftest import plant_tensor, store

import dcf
import dcf.plan
from dcf.metrics import column_errors, support_f1

RANK, N, M = 4, 3000, 80


def planted(kind, noise=0.05, nonzeros=60, n=N, seed=0):
    """M (n, 80) = W H + noise, W (n, 4) with few nonzeros (0: none of them zero)."""
    generator = np.random.default_rng(seed)
    signs = generator.choice([-1, 1], (n, RANK)) if kind == "spca" else 1
    w = (0.3 + generator.exponential(size=(n, RANK))) * signs
    if kind == "semi-nmf":
        w = generator.standard_normal((n, RANK))
    if nonzeros:
        keep = np.zeros((n, RANK), bool)
        for column in keep.T:
            column[generator.choice(n, nonzeros, replace=False)] = True
        w = w * keep
    h = generator.standard_normal((RANK, M)) if kind == "spca" else generator.random((RANK, M))
    if kind == "semi-nmf":
        h *= generator.random((RANK, M)) < 0.5
    matrix, error = w @ h, generator.standard_normal((n, M))
    return (matrix + noise * np.linalg.norm(matrix) / np.linalg.norm(error) * error).astype("f4"), w


@pytest.fixture
def decompose(tmp_path, conforms):
    """A decomposition of a matrix on disk, turned where its columns are to be compressed."""

    def run(kind, matrix, *, turned=False, name="o.zarr", **options):
        if not (tmp_path / "s.zarr").exists():
            data = np.ascontiguousarray(matrix.T) if turned else matrix
            step = len(matrix) // 5 + 3
            store(tmp_path / "s.zarr", data, chunks=(31, step) if turned else (step, 31))
        function = getattr(dcf, kind.replace("-", "_"))
        result = function(tmp_path / "s.zarr", rank=RANK, out=tmp_path / name, **options)
        conforms(tmp_path / name, tmp_path / "s.zarr")
        return result

    return run


def pair(result, turned=False):
    """Return the long factor (n, r) and the short one (r, m)."""
    w, h = np.asarray(result.W[:]), np.asarray(result.H[:])
    return (h.T, w.T) if turned else (w, h)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("refine", [0, 1])
def test_sparse_pca_finds_planted_supports(decompose, turned, refine):
    matrix, w = planted("spca")
    result = decompose("spca", matrix, turned=turned, refine=refine)
    long, _ = pair(result, turned)
    assert support_f1(long, w).min() >= 0.97
    assert column_errors(long, w).max() <= 0.02
    assert (long > 0).any()
    assert (long < 0).any()
    record = result.attributes
    assert record["trust"]["verdict"] == "trusted"
    assert record["plan"]["axis"] == int(turned)
    assert max(component["support"] for component in record["components"]) <= 66
    if not refine:
        assert record["method"] == "factorize-recover"


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("method", "refine"), [("auto", 1), ("auto", 0), ("range", 1), ("full", 0)])
def test_semi_nmf_lies_between_svd_and_nmf(decompose, turned, method, refine):
    """Of the factor along the compressed axis the sign is free, the other one is nonnegative."""
    matrix, _ = planted("semi-nmf", nonzeros=0, n=900)
    result = decompose("semi-nmf", matrix, turned=turned, method=method, refine=refine)
    long, short = pair(result, turned)
    assert (short >= 0).all()
    assert (long < 0).any()
    values = np.linalg.svd(matrix.astype("f8"), compute_uv=False)
    best = np.sqrt(np.square(values[RANK:]).sum() / np.square(values).sum())
    nmf = decompose("nmf", matrix, turned=turned, name="nmf.zarr", negatives="allow")
    assert best * (1 - 1e-6) <= result.relative_error.value <= nmf.relative_error.value
    assert result.relative_error.value <= (1.3 if refine == 0 and method == "auto" else 1.001) * best


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(dcf.plan, "BLOCK_BYTES", 1)
    monkeypatch.setattr(dcf.plan, "READ_PER_JOURNAL_BYTE", 0)
    monkeypatch.setattr(dcf.plan, "MOST_BLOCKS", 8)


class Stop(Exception):
    """An interruption at a chosen moment."""


CASES = [
    ("spca", {}),
    ("spca", {"refine": 0, "sketch_size": 200}),
    ("semi-nmf", {"refine": 0}),
    ("semi-nmf", {"refine": 2}),
    ("nmf", {"method": "recover-factorize", "sketch_size": 100}),
    ("spca", {"method": "recover-factorize", "sketch_size": 100, "refine": 1}),
]


@pytest.mark.parametrize(("kind", "options"), CASES, ids=str)
def test_bits_of_workers_and_of_resumed_runs(decompose, small_blocks, monkeypatch, kind, options):
    matrix, _ = planted(kind, nonzeros=20, n=800)
    options = {"negatives": "allow", **options}
    results = [decompose(kind, matrix, workers=n, name=f"{n}.zarr", **options) for n in (1, 3)]
    saves, save = [0], dcf.storage.journal.BlockJournal.save

    def failing(self, block, entry, rows=None):
        if saves[0] == 6:
            raise Stop
        saves[0] += 1
        save(self, block, entry, rows)

    with dask.config.set(scheduler="synchronous"):
        with monkeypatch.context() as patch:
            patch.setattr(dcf.storage.journal.BlockJournal, "save", failing)
            with pytest.raises(Stop):
                decompose(kind, matrix, **options)
        results.append(decompose(kind, matrix, **options))
    assert results[-1].attributes["resumed"] == 1
    for result in results[1:]:
        for ours, first in zip(pair(result), pair(results[0]), strict=True):
            np.testing.assert_array_equal(ours, first)


@pytest.mark.parametrize("kind", ["nmf", "spca"])
@pytest.mark.parametrize("turned", [False, True])
def test_recover_factorize_on_few_rows_that_are_not_zero(decompose, kind, turned):
    matrix, _ = planted(kind, noise=0, nonzeros=8)
    result = decompose(kind, matrix, turned=turned, method="recover-factorize")
    assert result.relative_error.kind == "estimated"
    assert result.relative_error.value <= 1e-2
    assert result.attributes["evidence"]["recovered_error"] <= 1e-3
    assert "not sparse enough" not in result.attributes["trust"]["why"]
    # Components of so few rows are not unique, their sum is.
    full = decompose(kind, matrix, turned=turned, method="full", name="full.zarr")
    ours, theirs = (w @ h for w, h in (pair(result, turned), pair(full, turned)))
    assert np.linalg.norm(ours - theirs) <= 2e-2 * np.linalg.norm(theirs)


@pytest.mark.parametrize("kind", ["nmf", "spca"])
@pytest.mark.parametrize("refine", [0, 1])
def test_recover_factorize_on_dense_data_is_doubted(decompose, kind, refine):
    """The pass makes the error exact, and small; the components it began with stay what they are."""
    matrix, _ = planted(kind, nonzeros=0, n=600)
    result = decompose(kind, matrix, method="recover-factorize", refine=refine, negatives="allow")
    record = result.attributes
    assert record["evidence"]["recovered_error"] > 0.5
    assert record["trust"]["verdict"] == "doubtful"
    assert "not sparse enough along axis 0. Use --method rows" in record["trust"]["why"]
    assert result.relative_error.kind == ("exact" if refine else "estimated")


@pytest.mark.parametrize("signed", [False, True])
def test_recover_factorize_on_a_dense_tensor_is_doubted(tmp_path, conforms, signed):
    tensor, _ = plant_tensor((300, 6, 5), signed=signed)
    store(tmp_path / "t.zarr", tensor, chunks=(90, 4, 3))
    for refine in (0, 1):
        out = tmp_path / f"o{refine}.zarr"
        result = dcf.cp(
            tmp_path / "t.zarr", rank=3, out=out, method="recover-factorize", refine=refine, signed=signed
        )
        conforms(out, tmp_path / "t.zarr")
        assert result.attributes["trust"]["verdict"] == "doubtful"
