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
    group = zarr.open_group(out, mode="r")
    record = dict(group.attrs)["dcf"]
    for key, kind in KEYS.items():
        assert isinstance(record[key], kind), key
    w, h = group["W"][:].astype("f8"), group["H"][:].astype("f8")
    rank = record["settings"]["rank"]
    assert w.shape[1] == h.shape[0] == rank == len(record["components"])
    assert np.isfinite(w).all()
    assert np.isfinite(h).all()
    assert (w >= 0).all()
    assert (h >= 0).all()
    expected = "float64" if record["source"]["dtype"] == "float64" else "float32"
    assert group["W"].dtype == group["H"].dtype == expected
    compressed, other = np.linalg.norm(w, axis=0), np.linalg.norm(h, axis=1)
    if record["plan"]["axis"] == 1:
        compressed, other = other, compressed
    np.testing.assert_allclose(compressed[compressed > 0], 1, atol=1e-4)
    assert (np.diff(other) <= 1e-5 * other.max(initial=0)).all()
    np.testing.assert_allclose([c["norm"] for c in record["components"]], other, rtol=1e-3, atol=1e-30)
    for component in record["components"]:
        assert set(component) == {"norm", "status", "iterations", "residual", "support", "stability"}
    error = record["relative_error"]
    assert (error["interval"] is None) == (error["kind"] == "exact")
    assert record["trust"]["verdict"] in ("trusted", "doubtful")
    assert record["trust"]["why"].endswith(".")
    for name in ("W", "H"):
        codecs = str(group[name].metadata.to_dict()["codecs"])
        assert "crc32c" in codecs
    if source is not None:
        m = zarr.open_array(source, mode="r")[:].astype("f8")
        true = np.linalg.norm(m - w @ h) / (np.linalg.norm(m) or 1.0)
        if error["kind"] == "exact":
            assert abs(error["value"] - true) <= max(1e-3 * true, 2e-7)
        else:
            low, high = error["interval"]
            assert 0.9 * low <= true <= 1.1 * high
