"""What a finished run promises, checked from its files alone."""

import numpy as np
import zarr

KEYS = {
    "schema": int,
    "version": str,
    "command": (str, list),
    "source": dict,
    "settings": dict,
    "plan": dict,
    "seed": int,
    "method": str,
    "reason": str,
    "passes": int,
    "bytes_read": int,
    "missing_chunks": int,
    "seconds": dict,
    "peak_memory": dict,
    "environment": dict,
    "relative_error": dict,
    "trust": dict,
    "components": list,
}


def check(out, source=None):
    """Check a finished run; with its source, also the error that it states."""
    group = zarr.open_group(out, mode="r")
    record = dict(group.attrs)["dcf"]
    for key, kind in KEYS.items():
        assert isinstance(record[key], kind), key
    exponent = record.get("exponent", 0)
    carries_scale = _carriers(record)
    arrays = {
        name: np.ldexp(array[:].astype("f8"), -exponent * (name in carries_scale))
        for name, array in group.arrays()
    }
    settings, expected = (
        record["settings"],
        "float64" if record["source"]["dtype"] == "float64" else "float32",
    )
    for name, values in arrays.items():
        assert np.isfinite(values).all(), name
        assert group[name].dtype == expected
        assert "crc32c" in str(group[name].metadata.to_dict()["codecs"])
    components = record["components"]
    assert len(components) == settings["rank"]
    for component in components:
        assert set(component) == {"norm", "status", "iterations", "residual", "support", "stability"}
    norms = _norms_of_tensor(arrays, settings) if "weights" in arrays else _norms_of_matrix(arrays, record)
    assert (np.diff(norms) <= 1e-5 * norms.max(initial=0)).all()
    said = np.ldexp([c["norm"] for c in components], -exponent)
    np.testing.assert_allclose(said, norms, rtol=1e-3, atol=1e-30)
    error = record["relative_error"]
    assert (error["interval"] is None) == (error["kind"] == "exact")
    assert record["trust"]["verdict"] in ("trusted", "doubtful")
    assert record["trust"]["why"].endswith(".")
    if source is not None:
        m = np.ldexp(zarr.open_array(source, mode="r")[:].astype("f8"), -exponent)
        scale = np.linalg.norm(m)
        if "mean" in arrays:
            m = m - (arrays["mean"] if settings["center"] == "columns" else arrays["mean"][:, None])
        norm = np.linalg.norm(m)
        true = np.linalg.norm(m - product(arrays)) / norm if norm > 1e-6 * scale else 0.0
        if error["kind"] == "exact":
            rounding = 2e-7 * max(1.0, np.linalg.norm(norms) / norm if norm else 0.0)
            assert abs(error["value"] - true) <= max(1e-3 * true, rounding)
        else:
            low, high = error["interval"]
            assert 0.9 * low <= true <= 1.1 * high


def _carriers(record):
    """Return the names of the arrays that have the scale of the data, of those that a run may hold."""
    return {"weights", "mean", "H" if record["plan"]["axis"] == 0 else "W"}


def product(arrays):
    """Return what the factors stand for, without means."""
    if "weights" not in arrays:
        return arrays["W"] @ arrays["H"]
    factors = [arrays[f"factor_{k}"] for k in range(len(arrays) - 1)]
    letters = "abcdefgh"[: len(factors)]
    return np.einsum(
        ",".join(f"{x}z" for x in letters) + f",z->{letters}", *factors, arrays["weights"], optimize=True
    )


def _norms_of_matrix(arrays, record):
    w, h, settings = arrays["W"], arrays["H"], record["settings"]
    assert w.shape[1] == h.shape[0] == settings["rank"]
    long, short = (w, h.T) if record["plan"]["axis"] == 0 else (h.T, w)
    signed = {"nmf": (), "semi-nmf": (long,), "spca": (long, short), "svd": (long, short)}
    for factor in (long, short):
        assert (factor >= 0).all() or any(factor is free for free in signed[settings["decomposition"]])
    compressed, other = np.linalg.norm(long, axis=0), np.linalg.norm(short, axis=0)
    np.testing.assert_allclose(compressed[compressed > 0], 1, atol=1e-4)
    return other


def _norms_of_tensor(arrays, settings):
    for name, values in arrays.items():
        assert settings["signed"] or (values >= 0).all(), name
        assert values.shape[-1] == settings["rank"]
        norms = np.linalg.norm(values, axis=0)
        assert name == "weights" or np.allclose(norms[norms > 0], 1, atol=1e-4)
    assert (arrays["weights"] >= 0).all()
    return arrays["weights"]
