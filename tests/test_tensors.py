"""Laws of CP from end to end: any axis, layout, sign, method and number of workers."""

import itertools

import dask
import numpy as np
import pytest
import zarr
from conftest import plant_tensor
from counting import open_counted, reads

import dcf
import dcf.plan
from dcf.canonical import unit_columns
from dcf.finish import as_stored, rounding_of
from dcf.metrics import factor_match_score
from dcf.types import Certificate

SHAPES = [(120, 12, 9), (60, 7, 6, 5), (40, 4, 3, 5, 4)]
CHUNKS = (31, 5, 4)
SIGNS = [False, True]


@pytest.fixture
def cp(tmp_path, conforms):
    """dcf.cp of a tensor or a Zarr array into a fresh OUT, checked against the contract."""
    count = itertools.count()

    def run(source, *, rank=3, chunks=CHUNKS, shards=None, out=None, **options):
        path = None
        if isinstance(source, np.ndarray):
            path = tmp_path / f"t{next(count)}.zarr"
            array = zarr.create_array(str(path), data=source, chunks=chunks, shards=shards)
            source = path if array.ndim else array
        out = out or tmp_path / f"o{next(count)}.zarr"
        result = dcf.cp(source, rank=rank, out=out, **options)
        conforms(out, path)
        return result

    return run


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks small enough for a tensor of a few kilobytes to have many."""
    monkeypatch.setattr(dcf.plan, "BLOCK_BYTES", 1)
    monkeypatch.setattr(dcf.plan, "READ_PER_JOURNAL_BYTE", 0)
    monkeypatch.setattr(dcf.plan, "MOST_BLOCKS", 8)


def arrays(result):
    return [np.asarray(result.weights[:]), *(np.asarray(f[:]) for f in result.factors)]


def bits(result):
    return b"".join(array.tobytes() for array in arrays(result))


def score(result, truth):
    return factor_match_score(arrays(result)[1:], truth)


@pytest.mark.parametrize(
    ("shape", "signed"), [(SHAPES[0], False), (SHAPES[0], True), (SHAPES[1], True), (SHAPES[2], False)]
)
def test_every_axis_gives_the_same_tensor(cp, shape, signed):
    tensor, truth = plant_tensor(shape, signed=signed, noise=0.05)
    chunks = tuple(n // 2 + 1 for n in shape)
    results = [
        cp(tensor, chunks=chunks, axis=axis, signed=signed, negatives="allow") for axis in range(len(shape))
    ]
    errors = [result.relative_error.value for result in results]
    np.testing.assert_allclose(errors, errors[0], rtol=1e-4)
    assert errors[0] <= 0.05
    for result in results:
        assert [f.shape for f in result.factors] == [(n, 3) for n in shape]
        assert score(result, truth) >= 0.999
        assert score(result, arrays(results[0])[1:]) >= 0.9999
    if len(shape) == 3:
        longest = cp(tensor, chunks=chunks, signed=signed, negatives="allow")
        assert longest.attributes["plan"]["axis"] == 0
        assert bits(longest) == bits(results[0])


LAYOUTS = {
    "one chunk": {"chunks": (120, 12, 9)},
    "columns": {"chunks": (120, 1, 1)},
    "narrower in every mode": {"chunks": (50, 5, 4)},
    "shards": {"chunks": (10, 6, 3), "shards": (40, 12, 6)},
}


@pytest.mark.parametrize("axis", [0, 2])
def test_the_layout_does_not_matter(cp, axis):
    tensor, truth = plant_tensor(SHAPES[0])
    results = [cp(tensor, axis=axis, **layout) for layout in LAYOUTS.values()]
    for result in results:
        assert score(result, truth) >= 0.9999
        assert result.relative_error.value == pytest.approx(results[0].relative_error.value, rel=1e-4)
        assert result.attributes["bytes_read"] == 2 * tensor.nbytes


@pytest.mark.parametrize("dtype", ["u1", "i2", "f2", "f4", "f8", ">f4"])
def test_every_dtype(cp, dtype):
    tensor, truth = plant_tensor(SHAPES[0])
    tensor = 250 * tensor / tensor.max()
    result = cp((np.rint(tensor) if dtype in ("u1", "i2") else tensor).astype(dtype), axis=1)
    assert score(result, truth) >= 0.999
    assert {a.dtype for a in arrays(result)} == {np.dtype("f8" if dtype == "f8" else "f4")}


METHODS = [
    ("auto", 1),
    ("auto", 2),
    ("auto", 0),
    ("rows", 1),
    ("rows", 2),
    ("range", 0),
    ("range", 1),
    ("factorize-recover", 0),
    ("factorize-recover", 1),
    ("full", 0),
    ("full", 1),
    ("recover-factorize", 0),
    ("recover-factorize", 1),
]


@pytest.mark.parametrize("signed", SIGNS)
@pytest.mark.parametrize(("method", "refine"), METHODS)
def test_every_method_keeps_the_contract(cp, small_blocks, method, refine, signed):
    """Two modes are sparse or dense as the method wants; every error is the true one or holds it."""
    sparse = "recover" in method
    tensor, truth = plant_tensor((400, 8, 7), signed=signed, noise=0.01 * (not sparse), nonzeros=12 * sparse)
    options = {"sketch_size": 200} if sparse else {}
    result = cp(
        tensor, chunks=(90, 5, 4), method=method, refine=refine, signed=signed, negatives="allow", **options
    )
    record = result.attributes
    assert record["passes"] == 1 + refine
    assert record["bytes_read"] == record["passes"] * tensor.nbytes
    exact = refine or method == "full"
    assert result.relative_error.kind == ("exact" if exact else "estimated")
    assert score(result, truth) >= (0.999 if exact or sparse else 0.99)
    assert record["trust"]["verdict"] == "trusted"
    if sparse and not refine:
        long = np.abs(arrays(result)[1])
        assert (np.count_nonzero(long > 1e-3, axis=0) <= 12).all()


OPTIONS = [
    {},
    {"sketch_size": 60, "method": "rows", "axis": 1},
    {"refine": 2, "signed": True, "axis": 2},
    {"refine": 0},
    {"method": "factorize-recover", "sketch_size": 60, "max_iter": 50},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_same_bits_whoever_computes(cp, small_blocks, remembered, options):
    tensor, _ = plant_tensor(SHAPES[0])
    expected = remembered(str(options), lambda: bits(cp(tensor, workers=1, **options)))
    assert bits(cp(tensor, workers=4, memory="4GiB", **options)) == expected
    with dask.config.set(scheduler="synchronous"):
        assert bits(cp(tensor, workers=3, **options)) == expected


@pytest.mark.slow
def test_the_same_bits_in_processes_and_within_the_plan(cp, small_blocks, monkeypatch):
    tensor, _ = plant_tensor((4000, 60, 20))
    expected = bits(cp(tensor, chunks=(300, 32, 20), workers=2))
    monkeypatch.setattr("dcf.api.SMALL_SOURCE_BYTES", 0)
    for workers in (1, 2):
        result = cp(tensor, chunks=(300, 32, 20), workers=workers)
        assert bits(result) == expected
        peak, plan = result.attributes["peak_memory"], result.attributes["plan"]
        assert len(peak["workers"]) == workers
        assert peak["worker"] <= plan["worker_bytes"]


@pytest.mark.parametrize(("axis", "refine"), [(0, 1), (1, 1), (2, 1), (1, 3)])
@pytest.mark.parametrize("layout", [{"chunks": CHUNKS}, {"chunks": (10, 6, 3), "shards": (40, 12, 6)}])
def test_one_pass_means_one_pass(tmp_path, cp, small_blocks, axis, refine, layout):
    tensor, _ = plant_tensor(SHAPES[0])
    zarr.create_array(str(tmp_path / "s.zarr"), data=tensor, **layout)
    result = cp(open_counted(tmp_path / "s.zarr", tmp_path / "log"), axis=axis, refine=refine, workers=2)
    seen = reads(tmp_path / "log")
    stored = layout.get("shards", layout["chunks"])
    assert len(set(seen)) == np.prod([-(-n // c) for n, c in zip(tensor.shape, stored, strict=True)])
    assert result.attributes["passes"] == 1 + refine
    assert result.attributes["bytes_read"] == (1 + refine) * tensor.nbytes
    if "shards" not in layout:
        assert all(seen.count(key) == 1 + refine for key in set(seen))


class Stop(Exception):
    """An interruption at a chosen moment."""


@pytest.mark.parametrize("after", [1, 5])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_resumed_is_uninterrupted(tmp_path, cp, small_blocks, monkeypatch, remembered, after, options):
    tensor, _ = plant_tensor(SHAPES[0])
    zarr.create_array(str(tmp_path / "s.zarr"), data=tensor, chunks=CHUNKS)
    expected = remembered(str(options), lambda: bits(cp(tensor, workers=1, **options)))
    array = open_counted(tmp_path / "s.zarr", tmp_path / "log")
    saves, save = [0], dcf.storage.journal.BlockJournal.save

    def failing(self, block, entry, rows=None):
        if saves[0] == after:
            raise Stop
        saves[0] += 1
        save(self, block, entry, rows)

    out, stopped = tmp_path / "interrupted.zarr", False
    monkeypatch.setattr(dcf.storage.journal.BlockJournal, "save", failing)
    with dask.config.set(scheduler="synchronous"):
        try:
            dcf.cp(array, rank=3, out=out, **options)
        except Stop:
            stopped = True
        monkeypatch.setattr(dcf.storage.journal.BlockJournal, "save", save)
        result = cp(array, out=out, **options)
    assert bits(result) == expected
    assert stopped
    assert result.attributes["resumed"] <= 1
    passes = result.attributes["passes"]
    layer = 36 // {0: 4, 1: 3, 2: 3}[options.get("axis", 0)]  # what a block in hand reads again
    assert len(reads(tmp_path / "log")) <= passes * 36 + layer * stopped


@pytest.mark.parametrize("signed", SIGNS)
@pytest.mark.parametrize("how", ["zeros", "constant", "a slab of zeros", "one slice", "one fibre"])
def test_degenerate_tensors(cp, how, signed):
    tensor, _ = plant_tensor((30, 6, 5), noise=0)
    rank = 3
    if how == "zeros":
        tensor[:] = 0
    elif how == "constant":
        tensor[:] = 7
    elif how == "a slab of zeros":
        tensor[10:20] = 0
        tensor[:, 2] = 0
        tensor[:, :, 4] = 0
    elif how == "one slice":
        tensor, rank = tensor[:, :1], 2
    else:
        tensor, rank = tensor[:, :1, :1], 1
    for axis, options in enumerate(({}, {"refine": 0}, {"method": "range"}, {"method": "full"})):
        axis %= 3
        result = cp(tensor, rank=rank, chunks=(10, 4, 3), axis=axis, signed=signed, restarts=2, **options)
        assert result.relative_error.value <= (0.1 if how == "one slice" else 2e-3), (axis, options)
        if how == "a slab of zeros":
            weights, a, b, c = arrays(result)
            assert max(np.abs(x).max() for x in (a[10:20], b[2], c[4])) <= 1e-5
            assert (weights[0] > 0).all()


def test_zeros_are_nothing_to_doubt_a_recovery_for(cp):
    for method in ("factorize-recover", "recover-factorize"):
        result = cp(np.zeros((60, 8, 7), "f4"), method=method, refine=0)
        assert result.attributes["trust"]["verdict"] == "trusted"
        assert "are zero" in result.attributes["trust"]["why"]


@pytest.mark.parametrize("method", ["auto", "range", "full", "factorize-recover"])
def test_the_rank_may_exceed_every_mode_but_one(cp, method):
    tensor, _ = plant_tensor((30, 4, 3), noise=0.3)
    most = cp(tensor, rank=12, chunks=(30, 4, 3), method=method, restarts=1)
    assert most.relative_error.value <= 0.01
    with pytest.raises(dcf.UsageError, match=r"--rank is 13, but 12 components.*any 30 x 4 x 3 tensor"):
        cp(tensor, rank=13, chunks=(30, 4, 3), method=method)


def test_a_tensor_of_the_memory_is_a_source_and_factors_come_back(tmp_path):
    tensor, truth = plant_tensor(SHAPES[0])
    result = dcf.cp(tensor, rank=3)
    assert all(isinstance(f, np.ndarray) for f in result.factors)
    assert score(result, truth) >= 0.9999
    whole = np.einsum("az,bz,cz,z->abc", *result.factors, result.weights)
    true = np.linalg.norm(tensor - whole) / np.linalg.norm(tensor)
    assert result.relative_error.value == pytest.approx(true, rel=1e-3)
    fortran = dcf.cp(np.asfortranarray(tensor), rank=3)
    np.testing.assert_array_equal(fortran.weights, result.weights)


def test_absent_chunks_read_as_zeros_and_are_counted(tmp_path, cp):
    tensor, _ = plant_tensor(SHAPES[0])
    path = tmp_path / "s.zarr"
    zarr.create_array(str(path), data=tensor, chunks=CHUNKS)
    (path / "c" / "1" / "2" / "0").unlink()
    result = cp(path, axis=1)
    assert result.attributes["missing_chunks"] == 1
    with pytest.raises(dcf.SourceError, match="c/1/2/0"):
        dcf.cp(path, rank=3, out=tmp_path / "o.zarr", missing_chunks="error")


def test_rounding_that_shows_is_told():
    """Components that cancel are larger than the data, and so is what rounding them to float32 does."""
    cancelling = unit_columns(np.diag([1e10, 1e10]), np.ones((2, 5)))
    rounding = rounding_of(cancelling, 1.0, "float32", 3, 0)
    assert rounding > 1e-3
    told = as_stored(Certificate(1e-4), rounding)
    assert told.kind == "estimated"
    assert told.interval[0] <= told.value <= told.interval[1]
    ordinary = unit_columns(np.diag([0.5, 0.5]), np.ones((2, 5)) / 5)
    assert as_stored(Certificate(0.1), rounding_of(ordinary, 1.0, "float32", 3, 0)) == Certificate(0.1)


def test_a_tensor_without_a_best_approximation_is_doubted(cp):
    generator = np.random.default_rng(1)
    a, b, c = (np.linalg.qr(generator.standard_normal((n, 2)))[0] for n in (200, 12, 9))
    places = ((0, 0, 1), (0, 1, 0), (1, 0, 0))
    tensor = sum(np.einsum("a,b,c->abc", a[:, i], b[:, j], c[:, k]) for i, j, k in places)
    result = cp(tensor, rank=2, signed=True)
    assert result.relative_error.kind == "exact"
    assert "Components cancel one another" in result.attributes["trust"]["why"]
