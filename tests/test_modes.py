"""Laws of tensors that are compressed along more than one mode: the sketches see a part, the passes all."""

import numpy as np
import pytest
from conftest import store

import dcf
from dcf.metrics import factor_match_score
from dcf.plan import make_plan
from dcf.settings import Settings
from dcf.sketch.projections import sample_of
from dcf.types import Layout


@pytest.fixture
def tensor(tmp_path):
    """A planted 800 x 60 x 20 tensor of rank 3 with 5 % noise, and its factors."""
    generator = np.random.default_rng(0)
    factors = [generator.exponential(size=(n, 3)) for n in (800, 60, 20)]
    exact = np.einsum("ar,br,cr->abc", *factors)
    noisy = exact * (1 + 0.05 * generator.standard_normal(exact.shape))
    store(tmp_path / "s.zarr", noisy.astype("f4"), chunks=(200, 33, 20))
    return tmp_path / "s.zarr", factors


def test_a_sample_of_a_mode_is_distinct_and_of_the_seed_alone():
    kept = sample_of(3, 1, 100, 20)
    assert len(set(kept)) == 20
    assert (np.diff(kept) > 0).all()
    np.testing.assert_array_equal(kept, sample_of(3, 1, 100, 20))
    assert set(kept) != set(sample_of(4, 1, 100, 20))
    assert set(kept) != set(sample_of(3, 2, 100, 20))
    np.testing.assert_array_equal(sample_of(0, 0, 5, 5), np.arange(5))


@pytest.mark.parametrize(("axis", "slices"), [("0,1", [12, 20]), ((0, 2), [60, 12]), ("1,0", [100, 20])])
def test_what_the_sketches_do_not_see_the_passes_find(tensor, tmp_path, conforms, axis, slices):
    source, factors = tensor
    results = [
        dcf.cp(source, rank=3, axis=axis, refine=refine, out=tmp_path / f"o{refine}.zarr")
        for refine in (1, 2)
    ]
    whole = dcf.cp(source, rank=3)
    for result, refine, most in zip(results, (1, 2), (1.05, 1.001), strict=True):
        conforms(tmp_path / f"o{refine}.zarr", source)
        assert list(result.attributes["plan"]["slices"]) == slices
        assert result.attributes["passes"] == 1 + refine
        assert factor_match_score([f[:] for f in result.factors], factors) >= 0.999
        assert result.relative_error.value <= most * whole.relative_error.value
    assert "--refine 2" in results[0].attributes["advice"]
    assert results[1].attributes["advice"] == ""


def test_same_bits_whoever_computes(tensor, monkeypatch):
    monkeypatch.setattr("dcf.plan.BLOCK_BYTES", 1)
    monkeypatch.setattr("dcf.plan.READ_PER_JOURNAL_BYTE", 0)
    one, three = (dcf.cp(tensor[0], rank=3, axis="0,1", workers=workers) for workers in (1, 3))
    assert one.attributes["plan"]["refine_block_rows"] == 200
    for mine, theirs in zip(one.factors, three.factors, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"axis": "0,1", "refine": 0}, "an exact pass"),
        ({"axis": "0,1", "method": "range"}, "--method auto or rows"),
        ({"axis": "0,0"}, "name each axis once"),
        ({"axis": "0,1,2"}, "leave at least one out"),
        ({"axis": "0,3"}, "the axes 0 to 2"),
        ({"axis": "first"}, "longest, or numbers"),
    ],
)
def test_senseless_modes(tensor, options, sentence):
    with pytest.raises(dcf.UsageError, match=sentence):
        dcf.cp(tensor[0], rank=3, **options)


def test_a_very_wide_tensor_is_sampled_unasked_and_by_its_shape_alone():
    layout = Layout((20_000, 3000, 2000), (64, 300, 200), None, "float32")
    plans = [
        make_plan(layout, Settings.of(decomposition="cp", rank=5), memory, 2) for memory in (2**33, 2**35)
    ]
    assert plans[0].slices == plans[1].slices != plans[0].others
    assert plans[0].sketch_width * 500 * 4 <= 64 * 2**20 * 1.01
    narrow = Layout((20_000, 300, 200), (64, 300, 200), None, "float32")
    plan = make_plan(narrow, Settings.of(decomposition="cp", rank=5), 2**32, 2)
    assert plan.slices == plan.others


def test_what_does_not_fit_even_so_is_refused():
    layout = Layout((20_000, 3000, 2000), (64, 300, 200), None, "float32")
    with pytest.raises(dcf.BudgetError, match=r"--memory allows 1024MiB"):
        make_plan(layout, Settings.of(decomposition="cp", rank=5), 2**30, 2)


@pytest.mark.parametrize("noise", [0.0, 1e-4, 1e-2])
def test_the_error_of_the_first_pass_is_exact(tmp_path, conforms, noise):
    generator = np.random.default_rng(0)
    tensor = np.einsum("ar,br,cr->abc", *(generator.random((n, 3)) for n in (400, 60, 20)))
    tensor *= 1 + noise * generator.standard_normal(tensor.shape)
    store(tmp_path / "s.zarr", tensor.astype("f4"), chunks=(100, 60, 20))
    dcf.cp(tmp_path / "s.zarr", rank=3, axis="0,1", out=tmp_path / "o.zarr")
    conforms(tmp_path / "o.zarr", tmp_path / "s.zarr")
