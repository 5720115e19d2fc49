"""Every dtype, every scale, every degenerate shape: an answer that makes sense, or a clear refusal."""

import time

import numpy as np
import pytest
from conftest import plant, plant_tensor, store

import dcf
import dcf.plan
from dcf.storage.source import ArraySource

VERBS = {"nmf": dcf.nmf, "spca": dcf.spca, "semi-nmf": dcf.semi_nmf, "svd": dcf.svd}


def factors_of(result):
    if hasattr(result, "weights"):
        return [np.asarray(f) for f in (result.weights, *result.factors)]
    return [np.asarray(f[:]) for f in (result.W, result.H)]


WAYS = {"auto": {}, "full": {"method": "full"}, "range": {"method": "range", "refine": 0}}
FAR = [[("f8", 960), ("f4", -100)], [("f8", -990), ("f4", 100)]]


def in_turn(others, turns):
    """Pair every verb with all others, the dtypes by turns: verbs and others meet each of them."""
    return [
        pytest.param(verb, other, *turn, marks=[pytest.mark.slow] * (turn[0] == "f8"))
        for i, verb in enumerate(VERBS)
        for j, other in enumerate(others)
        for turn in turns[(i + j) % len(turns)]
    ]


@pytest.mark.parametrize(("verb", "way", "dtype", "exponent"), in_turn(WAYS, FAR))
def test_any_scale_gives_the_same_factors(tmp_path, conforms, verb, way, dtype, exponent):
    m = plant(400, 30, dtype="f8")[0].astype(dtype)
    store(tmp_path / "one.zarr", m, chunks=(100, 30))
    store(tmp_path / "far.zarr", np.ldexp(m, exponent), chunks=(100, 30))
    one, far = (
        VERBS[verb](tmp_path / f"{name}.zarr", rank=3, out=tmp_path / f"{name}.out", **WAYS[way])
        for name in ("one", "far")
    )
    conforms(tmp_path / "far.out")
    (w, h), (far_w, far_h) = factors_of(one), factors_of(far)
    scaled = np.ldexp(far_h.astype("f8"), -exponent)
    np.testing.assert_allclose(far_w @ scaled, w @ h, atol=0.02 * np.abs(w @ h).max())
    assert far.relative_error.value == pytest.approx(one.relative_error.value, rel=1e-3)
    assert far.attributes["trust"]["verdict"] == one.attributes["trust"]["verdict"]
    # What is too small is known after a pass, what is too large at once.
    again = exponent < 0 and "exponent" in far.attributes
    assert far.attributes["passes"] == one.attributes["passes"] + again


def test_a_tensor_of_any_scale(tmp_path, conforms):
    t = plant_tensor((300, 12, 9), dtype="f8")[0]
    for exponent in (800, -800):
        store(tmp_path / "t.zarr", np.ldexp(t, exponent), chunks=(100, 12, 9), overwrite=True)
        result = dcf.cp(tmp_path / "t.zarr", rank=3, out=tmp_path / "o.zarr", overwrite=True)
        conforms(tmp_path / "o.zarr")
        assert result.relative_error.value < 0.03
        weights = np.ldexp(result.weights[:], -exponent)
        assert np.linalg.norm(weights) == pytest.approx(np.linalg.norm(t), rel=0.5)


def test_means_of_any_scale(tmp_path):
    m = plant(400, 30, dtype="f8")[0]
    for center, axis in (("columns", 0), ("rows", 1)):
        store(tmp_path / "s.zarr", np.ldexp(m, 700), chunks=(100, 30), overwrite=True)
        result = dcf.svd(tmp_path / "s.zarr", rank=3, center=center, out=tmp_path / center)
        np.testing.assert_allclose(np.ldexp(result.mean[:], -700), m.mean(axis=axis), rtol=1e-9)


@pytest.mark.parametrize(("dtype", "exponent"), [("f4", 118), ("f8", 1015)])
def test_what_the_factors_could_not_hold_is_refused(tmp_path, dtype, exponent):
    m = np.ldexp(plant(4000, 60, dtype=dtype)[0], exponent)
    assert np.isfinite(m).all()
    store(tmp_path / "s.zarr", m)
    with pytest.raises(dcf.SourceError, match=r"divide the data by their largest entry"):
        dcf.nmf(tmp_path / "s.zarr", rank=3)


def test_one_huge_entry_among_ordinary_ones(tmp_path, conforms):
    m = plant(400, 30, dtype="f8")[0]
    m[300, 7] = 1e200
    store(tmp_path / "s.zarr", m, chunks=(100, 30))
    result = dcf.nmf(tmp_path / "s.zarr", rank=3, out=tmp_path / "o.zarr")
    conforms(tmp_path / "o.zarr")
    assert result.relative_error.value < 1e-6  # all of the norm is in one entry
    assert np.asarray(result.W[:])[300, 0] == pytest.approx(1)


def test_a_slow_task_does_not_write_into_the_pass_that_follows(tmp_path, conforms, monkeypatch):
    """The first pass is given up for its scale while another task of it still waits for its chunk."""
    monkeypatch.setattr(dcf.plan, "BLOCK_BYTES", 1)
    monkeypatch.setattr(dcf.plan, "READ_PER_JOURNAL_BYTE", 0)
    m = plant(400, 30)[0]
    m[150, 7] = 3e25
    store(tmp_path / "s.zarr", m, chunks=(100, 30))
    options = {"rank": 3, "method": "range", "refine": 0}
    expected = dcf.nmf(tmp_path / "s.zarr", workers=1, **options)
    tiles, waited = ArraySource.tiles, []

    def slow(self, start, stop, absent):
        if start == 0 and not waited:
            waited.append(start)
            time.sleep(0.5)
        yield from tiles(self, start, stop, absent)

    monkeypatch.setattr(ArraySource, "tiles", slow)
    result = dcf.nmf(tmp_path / "s.zarr", out=tmp_path / "o.zarr", workers=2, **options)
    assert waited
    assert result.relative_error == expected.relative_error
    conforms(tmp_path / "o.zarr")


def test_new_rows_of_any_scale():
    m = plant(400, 30, dtype="f8")[0]
    plain = dcf.CompressedNMF(3, random_state=0).fit(m)
    for exponent in (900, -900):
        model = dcf.CompressedNMF(3, random_state=0).fit(np.ldexp(m, exponent))
        np.testing.assert_allclose(
            model.transform(np.ldexp(m[:50], exponent)), plain.transform(m[:50]), rtol=1e-3, atol=1e-5
        )
        assert model.reconstruction_err_ == pytest.approx(
            np.ldexp(plain.reconstruction_err_, exponent), rel=1e-3
        )


DTYPES = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_to_the_end(tmp_path, conforms, dtype):
    m = plant(300, 24, rank=3)[0]
    m = np.minimum(m, 5)  # 20 times it fits a byte
    m = (m > 0.5) if dtype == "?" else (m * (20 if dtype[0] in "iu" else 1)).astype(dtype)
    store(tmp_path / "s.zarr", m, chunks=(100, 24))
    result = dcf.nmf(tmp_path / "s.zarr", rank=3, out=tmp_path / "o.zarr")
    conforms(tmp_path / "o.zarr", tmp_path / "s.zarr")
    assert result.relative_error.value < 0.6 if dtype == "?" else result.relative_error.value < 0.1


@pytest.mark.parametrize("dtype", ["i8", "u8"])
def test_the_largest_integers(tmp_path, conforms, dtype):
    most = np.iinfo(dtype).max
    m = np.full((300, 20), most, dtype)
    m[:100] //= 2
    store(tmp_path / "s.zarr", m, chunks=(100, 20))
    result = dcf.nmf(tmp_path / "s.zarr", rank=1, out=tmp_path / "o.zarr")
    conforms(tmp_path / "o.zarr", tmp_path / "s.zarr")
    assert result.relative_error.value < 1e-5


def degenerate(how):
    m, rank = plant(300, 20)[0].astype("f8"), 3
    if how == "zeros":
        m[:] = 0
    elif how == "one entry":
        m[:] = 0
        m[17, 3] = 2.5
    elif how == "constant":
        m[:] = 5
    elif how == "zero rows":
        m[::2] = 0
    elif how == "zero columns":
        m[:, ::3] = 0
    elif how == "zero block":
        m[100:200] = 0
    elif how == "rank one":
        m = np.outer(np.arange(300.0), np.arange(20.0))
    elif how == "duplicated columns":
        m[:, 10:] = m[:, :10]
    elif how == "duplicated rows":
        m[150:] = m[:150]
    elif how == "r=1":
        rank = 1
    elif how == "m=1":
        m, rank = m[:, :1], 1
    elif how == "n=1":
        m, rank = m[m.sum(1).argmax()][None], 1
    elif how == "full rank":
        rank = 20
    elif how == "smaller than its sketch":
        m, rank = m[:7], 2
    elif how == "tiny":
        m, rank = m[:2, :2], 2
    return np.ascontiguousarray(m), rank


KNOWN = {"zeros", "one entry", "constant", "rank one", "m=1", "n=1"}  # of rank one: nothing is left
HOWS = (
    "zeros, one entry, constant, zero rows, zero columns, zero block, rank one, duplicated columns,"
    " duplicated rows, r=1, m=1, n=1, full rank, smaller than its sketch, tiny"
)


@pytest.mark.parametrize(("verb", "how", "dtype"), in_turn(HOWS.split(", "), [[("f4",)], [("f8",)]]))
def test_degenerate_data(tmp_path, conforms, verb, how, dtype):
    m, rank = degenerate(how)
    m = m.astype(dtype)
    source = tmp_path / "s.zarr"
    store(source, m, chunks=tuple(min(100, n) for n in m.shape))
    best = np.linalg.svd(m.astype("f8"), compute_uv=False)
    floor = np.sqrt((best[rank:] ** 2).sum() / ((best**2).sum() or 1))
    ways = [{}, {"method": "full"}, {"refine": 0}]
    if verb in ("nmf", "spca"):
        ways.append({"method": "factorize-recover", "refine": 0})
    if dtype == "f8":
        ways.append({"refine": 2})
    for number, options in enumerate(ways):
        result = VERBS[verb](source, rank=rank, out=tmp_path / f"o{number}", **options)
        conforms(tmp_path / f"o{number}", source)
        error = result.relative_error.value
        if "refine" not in options or options["refine"]:
            least = 1e-3 if verb == "nmf" and how in KNOWN else 0.03
            assert floor - 1e-6 <= error <= max(1.5 * floor, least), options
