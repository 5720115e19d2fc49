"""Laws of the planner: integers alone, no data."""

import contextlib
import dataclasses
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcf.errors import BudgetError, UsageError
from dcf.plan import make_plan
from dcf.refinement.alternating import refine
from dcf.settings import Settings
from dcf.sketch.compress import SketchRecipe, compress
from dcf.sketch.projections import CountSketch
from dcf.types import Layout

MIB = 2**20
RESOURCES = {"memory", "workers", "chunks_in_flight", "worker_bytes", "driver_bytes", "tasks"}


@st.composite
def layouts(draw):
    shape = draw(st.tuples(st.integers(1, 10**7), st.integers(1, 10**4)))
    chunks = tuple(draw(st.integers(1, max(1, min(size, 3000)))) for size in shape)
    shards = None
    if draw(st.booleans()):
        shards = tuple(c * draw(st.integers(1, 4)) for c in chunks)
    dtype = draw(st.sampled_from(["float32", "float64", "uint8", "int16", "bool", "float16"]))
    return Layout(shape, chunks, shards, dtype)


@given(
    layout=layouts(),
    rank=st.integers(1, 30),
    method=st.sampled_from(["auto", "rows", "range", "factorize-recover"]),
    axis=st.sampled_from(["longest", "0", "1"]),
    workers=st.integers(1, 64),
)
@settings(max_examples=300, deadline=None)
def test_laws(layout, rank, method, axis, workers):
    wanted = Settings.of(rank=min(rank, *layout.shape), method=method, axis=axis)
    plan = make_plan(layout, wanted, 2**60, workers)
    stored = (layout.shards or layout.chunks)[plan.axis]
    for blocks, rows in (
        (plan.sketch_blocks, plan.sketch_block_rows),
        (plan.refine_blocks, plan.refine_block_rows),
    ):
        # Every row once, in order; no stored chunk in two blocks.
        assert blocks[0].start == 0
        assert blocks[-1].stop == plan.rows
        assert all(a.stop == b.start for a, b in itertools.pairwise(blocks))
        assert rows % stored == 0 or len(blocks) == 1
        assert len(blocks) <= 8192
    chunk = layout.chunks[plan.axis]
    assert plan.stripe_rows % chunk == 0 or plan.stripe_rows >= plan.rows
    assert all(
        count <= 20 * workers * max(1, wanted.refine) for k, count in plan.tasks.items() if k != "recover"
    )
    row_bytes = plan.width * layout.itemsize
    assert plan.bytes_to_read == plan.passes * plan.rows * row_bytes
    journal = plan.width * (8 * (plan.probe_size + plan.sketch_size) + 4 * plan.corange_size)
    if len(plan.sketch_blocks) > 1:
        assert plan.sketch_block_rows * row_bytes >= 20 * journal
    # Memory and workers never change what is computed.
    other = make_plan(layout, wanted, 2**50, workers + 7)
    for field in dataclasses.fields(plan):
        if field.name not in RESOURCES:
            assert getattr(plan, field.name) == getattr(other, field.name), field.name
    # The budget is kept, or the plan is refused with both numbers.
    need = max(plan.worker_bytes, plan.driver_bytes)
    with contextlib.suppress(BudgetError):  # with fewer chunks in flight it may still fit
        fitted = make_plan(layout, wanted, need - 1, workers)
        assert max(fitted.worker_bytes, fitted.driver_bytes) < need
    with pytest.raises(BudgetError, match="--memory allows 1MiB: raise --memory to"):
        make_plan(layout, wanted, MIB, workers)


def plan(shape, *, chunks=(4096, 1024), memory="", rank=10, **options):
    layout = Layout(shape, chunks, None, options.pop("dtype", "float32"))
    return make_plan(layout, Settings.of(rank=rank, **options), memory or 2048 * MIB, 2)


def test_the_longest_axis_is_compressed_unless_told():
    assert plan((10, 200), rank=2).axis == 1
    assert plan((200, 10), rank=2).axis == 0
    assert plan((200, 200), rank=2).axis == 0
    assert plan((200, 10), rank=2, axis="1").axis == 1


def test_full_does_not_refine_unless_told():
    assert plan((2000, 100), method="full").passes == 1
    assert plan((2000, 100), method="full", refine=2).passes == 3


def test_the_sketches_follow_from_the_method():
    def taken(**options):
        made = plan((200_000, 1000), **options)
        sizes = (made.sample_size, made.held_out, made.range_size, made.corange_size, made.sketch_size)
        return [size > 0 for size in sizes]

    assert taken() == [True, True, True, True, False]
    assert taken(refine=0) == [True, True, True, True, True]
    assert taken(method="rows") == [True, True, False, False, False]
    assert taken(method="range") == [True, True, True, True, False]
    assert taken(method="factorize-recover") == [False, False, False, False, True]
    assert taken(method="full") == [False] * 5


def test_a_range_sketch_is_a_small_part_of_the_data():
    made = plan((50_000, 400), rank=6)
    assert made.range_bytes + 4 * made.corange_size * made.width <= 0.05 * made.bytes_to_read / made.passes
    assert plan((200_000, 2000)).range_size == 41


def test_where_every_row_is_sampled_nothing_else_is_needed():
    made = plan((400, 100))
    assert (made.sample_size, made.held_out, made.range_size) == (400, 0, 0)


@pytest.mark.parametrize("size", [10**12, 10**13, 10**14])
@pytest.mark.parametrize("workers", [1, 7, 1000])
def test_large_data_take_few_tasks_and_a_small_journal(size, workers):
    layout = Layout((size // 40_000, 10_000), (400, 10_000), None, "float32")
    made = make_plan(layout, Settings.of(rank=10), 4096 * MIB, workers)
    assert max(made.tasks["sketch"], made.tasks["refine"]) <= 20 * workers
    blocks = (made.sketch_blocks, made.refine_blocks)
    assert made.tasks["sketch"] == leaves(compress(None, RECIPE, None, blocks[0], made.workers))
    arguments = (None, None, None, None, "float32", None, blocks[1], made.workers)
    assert made.tasks["refine"] == leaves(refine(*arguments))
    assert made.out_bytes <= 0.05 * size


RECIPE = SketchRecipe(0, CountSketch(0, 16), 5, None, None, None, "float32", False)


def leaves(graph):
    return sum("subtree" in str(key) for key in dict(graph.__dask_graph__()))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rank": 0}, "--rank is 0; it must be a whole number from 1 on"),
        ({"rank": 101}, "--rank is 101, larger than min"),
        ({"refine": -1}, "--refine is -1"),
        ({"method": "rows", "refine": 0}, "--method rows finds W in a refine pass"),
        ({"sketch_size": 5}, "--sketch-size is 5, below the rank 10"),
        (
            {"method": "factorize-recover", "sketch_size": 30, "nnz_per_column": 31},
            "above the sketch size 30",
        ),
        ({"tol": 1.5}, "--tol is 1.5"),
        ({"seed": -3}, "--seed is -3"),
        ({"seed": 2**64}, "it must lie below"),
        ({"axis": "2"}, "--axis is '2'"),
        ({"method": "svd"}, "--method is 'svd'"),
    ],
)
def test_senseless_requests(options, sentence):
    with pytest.raises(UsageError, match=sentence):
        plan((2000, 100), **options)


@pytest.mark.parametrize(
    ("shape", "chunks", "options", "advice"),
    [
        ((10**6, 20_000), (20_000, 500), {}, "smaller chunks"),
        ((10**6, 20_000), (64, 500), {"sketch_size": 50_000}, r"raise --memory to \d+MiB\.$"),  # none fits
        ((10**6, 2000), (64, 500), {"sketch_size": 50_000}, r"lower --sketch-size \(now 50000; \d+ fit\)"),
        ((10**6, 20_000), (64, 500), {"method": "full"}, "use --method auto"),
        ((10**8, 20), (10**6, 20), {"method": "factorize-recover"}, "use --method range"),
    ],
)
def test_what_does_not_fit_is_refused_with_both_numbers(shape, chunks, options, advice):
    with pytest.raises(BudgetError, match=advice) as refusal:
        plan(shape, chunks=chunks, memory=700 * MIB, **options)
    assert "700MiB" in str(refusal.value)


def test_a_store_that_is_waited_for_is_asked_for_more_at_once():
    layout = Layout((100_000, 1000), (64, 1000), None, "float32")
    here, there = (
        make_plan(dataclasses.replace(layout, remote=remote), Settings.of(rank=5), 2**32, 2)
        for remote in (False, True)
    )
    assert (here.chunks_in_flight, there.chunks_in_flight) == (4, 16)
    assert there.worker_bytes == here.worker_bytes + 12 * 2 * 64 * 4000
    assert there.sketch_blocks == here.sketch_blocks
