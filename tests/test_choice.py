"""How auto chooses, what is said of it, and what may be believed."""

import numpy as np
import pytest
from conftest import plant, store

import dcf
from dcf.api import plan_run, run_source
from dcf.certificate import enough_sketch, rows_to_carry
from dcf.factorization.nmf import HalsNMF
from dcf.factorization.sparsest import SparsestNMF
from dcf.metrics import column_errors, match
from dcf.settings import Settings


def sparse(n=8000, k=30, rank=4, m=80, noise=0.0, seed=0):
    generator = np.random.default_rng(seed)
    w = np.zeros((n, rank))
    for column in w.T:
        column[generator.choice(n, k, replace=False)] = 0.2 + generator.exponential(size=k)
    h = generator.random((rank, m))
    error = generator.standard_normal((n, m))
    return w @ h + noise * np.linalg.norm(w @ h) / np.linalg.norm(error) * error, w, h


def dense(kind, n=6000, rank=5, m=60, noise=0.05, seed=0):
    generator = np.random.default_rng(seed)
    w = {"exponential": generator.exponential, "uniform": lambda size: generator.uniform(0.5, 1.5, size)}
    w = w[kind](size=(n, rank))
    h = generator.random((rank, m))
    return (w @ h) * (1 + noise * generator.standard_normal((n, m))), w, h


def true_error(m, result):
    return np.linalg.norm(m - np.asarray(result.W[:], "f8") @ result.H[:]) / np.linalg.norm(m)


@pytest.mark.parametrize(
    ("kind", "refine"),
    [("dense", 0), ("dense", 1), ("sparse", 0), ("sparse, noisy", 0), ("sparse, noisy", 1)],
)
def test_auto_is_as_good_as_the_best(tmp_path, nmf, kind, refine):
    m = dense("exponential")[0] if kind == "dense" else sparse(noise=0.05 * kind.endswith("noisy"))[0]
    store(tmp_path / "s.zarr", m, chunks=(1000, 60))
    options = {"rank": 5 if kind == "dense" else 4, "refine": refine, "negatives": "allow"}
    methods = ["range", "factorize-recover", *(["rows"] if refine else [])]
    best = min(true_error(m, nmf(tmp_path / "s.zarr", method=name, **options)) for name in methods)
    result = nmf(tmp_path / "s.zarr", **options)
    assert true_error(m, result) <= 1.05 * best + 1e-6
    record = result.attributes
    assert record["settings"]["method"] == "auto"
    assert record["method"] in methods
    assert len(record["reason"]) > 40
    assert len(record["evidence"]["held_out"]) == 2
    if not refine:
        assert record["method"] == ("range" if kind == "dense" else "factorize-recover")
        low, high = record["relative_error"]["interval"]
        assert 0.95 * low <= true_error(m, result) <= 1.05 * high


@pytest.mark.parametrize("refine", [0, 1])
def test_a_dense_factor_asked_of_factorize_recover(tmp_path, nmf, refine):
    """It finishes, is doubted, and names what to use instead."""
    m, _, h = dense("exponential")
    store(tmp_path / "s.zarr", m, chunks=(1000, 60))
    result = nmf(tmp_path / "s.zarr", rank=5, method="factorize-recover", refine=refine)
    trust = result.attributes["trust"]
    assert match(np.asarray(result.H[:]).T, h.T)[1].min() < 0.99
    assert trust["verdict"] == "doubtful"
    assert "W is not sparse" in trust["why"]
    assert "--method rows" in trust["why"]
    assert result.attributes["evidence"]["zero_fraction"] < 0.1


@pytest.mark.parametrize("noise", [0.0, 0.05])
@pytest.mark.parametrize("refine", [0, 1])
def test_a_sparse_factor_asked_of_factorize_recover(tmp_path, nmf, refine, noise):
    m, w, _ = sparse(noise=noise)
    store(tmp_path / "s.zarr", m, chunks=(1000, 80))
    result = nmf(tmp_path / "s.zarr", method="factorize-recover", refine=refine, negatives="allow")
    assert column_errors(result.W[:], w).max() <= (0.02 if noise else 1e-6)
    assert result.attributes["trust"]["verdict"] == "trusted"
    assert all(c["stability"] > 0.99 for c in result.attributes["components"])


def test_components_that_the_data_do_not_determine_are_doubted(tmp_path, nmf):
    m, _, h = dense("uniform")
    store(tmp_path / "s.zarr", m, chunks=(1000, 60))
    result = nmf(tmp_path / "s.zarr", rank=5)
    assert match(np.asarray(result.H[:]).T, h.T)[1].min() < 0.98
    assert result.relative_error.kind == "exact"
    assert result.attributes["trust"]["verdict"] == "doubtful"
    assert "come out differently" in result.attributes["trust"]["why"]
    assert min(c["stability"] for c in result.attributes["components"]) < 0.98


def test_stability_needs_other_starts():
    m = plant()[0]
    assert HalsNMF(4, restarts=0).factorize(m).stability is None
    several = HalsNMF(4).factorize(m).stability
    assert several.shape == (4,)
    assert several.min() > 0.98
    assert HalsNMF(1).factorize(m).stability == pytest.approx(1.0)


@pytest.mark.parametrize("solver", [HalsNMF, SparsestNMF])
def test_stability_does_not_depend_on_threads(solver):
    m = sparse(n=600, k=60)[0]
    one, three = (solver(4, threads=threads).factorize(m) for threads in (1, 3))
    np.testing.assert_array_equal(one.stability, three.stability)
    np.testing.assert_array_equal(one.factors.components, three.factors.components)


def test_one_pass_over_a_dense_factor(tmp_path, nmf):
    """The range sketch is a twentieth of the data; a second pass leaves nothing to be wanted."""
    m = dense("exponential", n=20_000, rank=6, m=400, noise=0.1)[0].astype("f4")
    store(tmp_path / "s.zarr", m, chunks=(2000, 400))
    full = nmf(tmp_path / "s.zarr", rank=6, method="full").relative_error.value
    one, two = (nmf(tmp_path / "s.zarr", rank=6, method="range", refine=refine) for refine in (0, 1))
    plan = one.attributes["plan"]
    taken = plan["rows"] * plan["range_size"] * 4 + plan["corange_size"] * plan["width"] * 4
    assert taken <= 0.08 * m.nbytes  # the smaller the data, the larger the part
    assert true_error(m, one) <= 1.35 * full
    assert two.relative_error.value <= 1.005 * full
    assert "--refine 1" in one.attributes["advice"]
    assert two.attributes["advice"] == ""


class Sizes:
    """What `enough_sketch` reads of a plan."""

    rows, sketch_size, sample_size, held_out = 10_000, 500, 200, 100


def test_how_much_sketch_would_do():
    assert rows_to_carry(0, 1000) == 0
    assert rows_to_carry(100, 2000) == 375
    recovered = {"zero_fraction": 0.5, "recovery": {"widest_support": 50, "unconverged": 0}}
    assert enough_sketch("factorize-recover", recovered, Sizes) is None
    recovered["recovery"]["widest_support"] = 100
    assert enough_sketch("factorize-recover", recovered, Sizes) == rows_to_carry(100, 10_000) > 500
    recovered["recovery"]["widest_support"] = 3000  # dense: no sketch would do
    assert enough_sketch("factorize-recover", recovered, Sizes) is None
    sampled = {"fit": 0.10, "held_out": {"rows": 0.105}}
    assert enough_sketch("rows", sampled, Sizes) is None
    sampled["held_out"]["rows"] = 0.13
    assert 400 < enough_sketch("rows", sampled, Sizes) <= 5000


def test_a_larger_sketch_is_advised_and_taken(tmp_path, nmf):
    m, w, _ = sparse(n=20_000, k=100, m=100)
    store(tmp_path / "s.zarr", m, chunks=(2000, 100))
    options = {"method": "factorize-recover", "refine": 0, "sketch_size": 400}
    small = nmf(tmp_path / "s.zarr", **options)
    assert small.attributes["trust"]["verdict"] == "doubtful"
    more = nmf(tmp_path / "s.zarr", resketch=True, **options)
    size = more.attributes["resketched"]["sketch_size"]
    assert f"--sketch-size {size}" in small.attributes["advice"]
    assert more.attributes["plan"]["sketch_size"] == size
    assert (small.attributes["passes"], more.attributes["passes"]) == (1, 2)
    assert more.attributes["bytes_read"] == 2 * m.nbytes
    assert column_errors(more.W[:], w).max() <= 1e-6
    assert more.attributes["trust"]["verdict"] == "trusted"


def test_a_larger_sketch_that_would_not_fit_is_left_alone(tmp_path, nmf):
    m = sparse(n=20_000, k=100, m=100)[0]
    store(tmp_path / "s.zarr", m, chunks=(2000, 100))
    options = {"method": "factorize-recover", "refine": 0, "sketch_size": 400}

    def fits(memory):
        try:
            plan_run(tmp_path / "s.zarr", Settings.of(rank=4, **options), memory)
        except dcf.BudgetError:
            return False
        return True

    least = next(mebibytes * 2**20 for mebibytes in range(200, 1000) if fits(mebibytes * 2**20))
    result = nmf(tmp_path / "s.zarr", resketch=True, memory=least, **options)
    assert result.attributes["passes"] == 1
    assert "--sketch-size" in result.attributes["advice"]


def test_stages_that_never_open_the_source_cannot_take_a_larger_sketch(source, tmp_path):
    with pytest.raises(dcf.UsageError, match="use it with dcf nmf"):
        run_source(source, tmp_path / "o.zarr", Settings.of(rank=4, resketch=True), last="sketch")
    assert not (tmp_path / "o.zarr").exists()


def test_components_of_zeros_have_no_direction_to_agree_on(tmp_path, nmf):
    store(tmp_path / "zeros.zarr", np.zeros((300, 20)))
    trust = nmf(tmp_path / "zeros.zarr").attributes["trust"]
    assert trust["verdict"] == "trusted"
    assert "4 of 4 components are zero" in trust["why"]
    store(tmp_path / "negative.zarr", -np.random.default_rng(0).random((300, 20)))
    trust = nmf(tmp_path / "negative.zarr", negatives="allow").attributes["trust"]
    assert trust["verdict"] == "doubtful"
    assert "nothing that is allowed explains" in trust["why"]


def test_components_that_no_start_was_compared_with_are_said_to_be_so(source, nmf):
    result = nmf(source, restarts=0)
    assert {c["stability"] for c in result.attributes["components"]} == {None}
    assert "not found a second time" in result.attributes["trust"]["why"]
