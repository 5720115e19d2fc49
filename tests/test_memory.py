"""The memory promise: what the tasks of a run take is at most what the plan said."""

import json
import tracemalloc

import dask
import numpy as np
import pytest
import zarr
from commandline import dcf as command
from conftest import store
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dcf
import dcf.plan
from dcf.cluster.resident import uncounted_code
from dcf.cluster.workers import ThisProcess
from dcf.errors import BudgetError
from dcf.plan import DRIVER_BASE, WORKER_BASE, make_plan
from dcf.settings import IN_MEMORY, METHODS_OF, Settings
from dcf.storage.source import layout_of
from dcf.types import Layout

MIB = 2**20
# Of Python's own: modules, records, threads and tasks, which the base of a process has room for.
PYTHON = 2 * MIB


@st.composite
def problems(draw):
    """An array in some layout, and a decomposition of it: (shape, chunks, shards, dtype, settings)."""
    tensor = draw(st.booleans())
    if tensor:
        shape = (draw(st.integers(400, 6000)), *draw(st.tuples(st.integers(3, 20), st.integers(3, 12))))
    else:
        shape = (draw(st.integers(400, 30_000)), draw(st.integers(8, 160)))
    order = draw(st.permutations(range(len(shape))))
    chunks = [draw(st.integers(max(1, n // 8), n + n // 4)) for n in shape]
    chunks[0] = draw(st.sampled_from([64, 500, 2000]))
    shards = [c * draw(st.integers(1, 3)) for c in chunks] if draw(st.booleans()) else None
    kind = draw(st.sampled_from(["cp"] if tensor else ["nmf", "svd", "spca", "semi-nmf"]))
    refine = draw(st.integers(0, 2))
    method = draw(st.sampled_from([m for m in METHODS_OF[kind] if m not in IN_MEMORY]))
    if method == "rows":
        refine = max(refine, 1)
    wanted = Settings.of(
        decomposition=kind,
        rank=draw(st.integers(1, 5)),
        method=method,
        refine=refine,
        axis=str(order.index(0)),
        max_iter=20,
    )
    turned = [tuple(part[i] for i in order) if part else None for part in (shape, chunks, shards)]
    dtype = draw(st.sampled_from(["float32", "float64", "uint8", "float16"]))
    compressed = draw(st.booleans())
    return *turned, dtype, compressed, wanted


@pytest.fixture
def small_plans(monkeypatch):
    """Blocks and stripes so small that a few megabytes have many."""
    monkeypatch.setattr(dcf.plan, "BLOCK_BYTES", 256 * 1024)
    monkeypatch.setattr(dcf.plan, "STRIPE_BYTES", 128 * 1024)
    monkeypatch.setattr(dcf.plan, "TILE_BYTES", 32 * 1024)
    monkeypatch.setattr(dcf.plan, "READ_PER_JOURNAL_BYTE", 1)


def traced(act):
    """Return the peak of what `act` allocates, and, of that, what its tasks and what the driver does."""
    compute, peaks = ThisProcess.compute, {"tasks": 0, "driver": 0}

    def measure(who, before):
        peaks[who] = max(peaks[who], tracemalloc.get_traced_memory()[1] - before)
        tracemalloc.reset_peak()
        return tracemalloc.get_traced_memory()[0]

    def watched(self, graph):
        before = measure("driver", start)
        try:
            return compute(self, graph)
        finally:
            measure("tasks", before)

    tracemalloc.start()
    ThisProcess.compute = watched
    try:
        start = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        act()
        measure("driver", start)
    finally:
        ThisProcess.compute = compute
        tracemalloc.stop()
    return peaks


@pytest.mark.slow
@given(problem=problems(), seed=st.integers(0, 9))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_tasks_take_no_more_than_planned(tmp_path_factory, small_plans, problem, seed):
    shape, chunks, shards, dtype, compressed, wanted = problem
    folder = tmp_path_factory.mktemp("memory")
    values = np.random.default_rng(seed).random(shape) * 100
    compressors = "auto" if compressed else None
    store(folder / "s.zarr", values.astype(dtype), chunks, shards=shards, compressors=compressors)
    array = zarr.open_array(folder / "s.zarr", mode="r")
    del values
    with dask.config.set(scheduler="synchronous"):
        plan = make_plan(layout_of(array), wanted, 2**40, 1)

        def run(name):
            with np.errstate(all="ignore"):
                dcf.api.run_source(array, folder / name, wanted, workers=1)

        run("first.zarr")  # compiles, and fills the caches of modules
        peaks = traced(lambda: run("second.zarr"))
    allowed = {"tasks": plan.worker_bytes - WORKER_BASE, "driver": plan.driver_bytes - DRIVER_BASE}
    for who, peak in peaks.items():
        assert peak <= allowed[who] + PYTHON, (who, peak / MIB, allowed[who] / MIB, plan)


@pytest.mark.parametrize("options", [[], ["--axis", "1"]])
def test_absurd_chunks_are_refused_before_anything_is_allocated(tmp_path, options):
    """A chunk is decoded whole, however small the array: a few bytes of metadata could ask for terabytes."""
    path = tmp_path / "s.zarr"
    zarr.create_array(str(path), shape=(2000, 60), chunks=(200, 60), dtype="f4")
    metadata = json.loads((path / "zarr.json").read_text())
    metadata["chunk_grid"]["configuration"]["chunk_shape"] = [600_000, 200_000]
    (path / "zarr.json").write_text(json.dumps(metadata))

    def refused():
        _, error = command("nmf", path, tmp_path / "o.zarr", "--rank", 3, *options, expect=4)
        assert "store the data in smaller chunks (now 600000 x 200000" in error

    assert traced(refused)["driver"] < 8 * MIB


def test_a_chunk_counts_in_full_beyond_the_edge_of_the_array():
    def need(chunks, shards=None):
        layout = Layout((2000, 500), chunks, shards, "float32")
        return make_plan(layout, Settings.of(rank=3), 2**50, 1).worker_bytes

    assert need((2000, 4000)) - need((2000, 500)) >= 2 * 4 * 2000 * 3500
    assert need((500, 500), (2000, 500)) > need((500, 500))


def test_each_pass_has_a_tree_of_its_own(monkeypatch):
    """Many blocks of an exact pass, few of the first one: accumulators of the pass that has many."""
    monkeypatch.setattr(dcf.plan, "MOST_BLOCKS", 4096)
    layout = Layout((10**8, 1000), (1000, 1000), None, "float32")
    plan = make_plan(layout, Settings.of(rank=40, sketch_size=50), 2**40, 1)
    sums = 8 * 40 * 1040
    depth = (len(plan.refine_blocks) - 1).bit_length()
    assert plan.worker_bytes >= WORKER_BASE + (depth + 6) * sums


def test_the_driver_does_not_grow_with_the_rows():
    def driver(rows, **options):
        layout = Layout((rows, 2000), (4096, 1000), None, "float32")
        return make_plan(layout, Settings.of(rank=10, **options), 2**40, 2).driver_bytes

    for options in ({}, {"refine": 0}, {"method": "range"}):
        assert driver(10**9, **options) == driver(10**6, **options)


@pytest.mark.parametrize("in_driver", [False, True])
@pytest.mark.parametrize("method", ["auto", "factorize-recover"])
def test_a_refused_sketch_says_which_size_fits(method, in_driver):
    layout = Layout((10**6, 1000), (1000, 1000), None, "float32")

    def plan(size):
        wanted = Settings.of(rank=10, method=method, sketch_size=size)
        return make_plan(layout, wanted, 768 * MIB, 1, in_driver=in_driver)

    with pytest.raises(BudgetError, match=r"lower --sketch-size \(now 50000; \d+ fit\)\.") as refusal:
        plan(50_000)
    fit = int(str(refusal.value).split("50000; ")[1].split(" fit")[0])
    assert plan(fit).memory == 768 * MIB
    with pytest.raises(BudgetError):
        plan(fit + 1)


def test_resident_code_is_measured_once_and_counted():
    layout = layout_of(zarr.create_array({}, shape=(2000, 60), chunks=(200, 60), dtype="f4"))
    made = [make_plan(layout, Settings.of(rank=3), 2**40, 1, mapped=size) for size in (0, 50 * MIB)]
    assert made[1].worker_bytes - made[0].worker_bytes == 50 * MIB
    assert made[1].driver_bytes - made[0].driver_bytes == 50 * MIB
    assert uncounted_code() == uncounted_code()
