"""Laws of the planner for tensors: integers alone, no data."""

import dataclasses
import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcf.errors import BudgetError, UsageError
from dcf.plan import make_plan
from dcf.settings import Settings
from dcf.types import Layout

MIB = 2**20
RESOURCES = {"memory", "workers", "chunks_in_flight", "worker_bytes", "driver_bytes", "tasks"}


@st.composite
def layouts(draw):
    others = draw(st.lists(st.integers(1, 80), min_size=2, max_size=4))
    shape = [*others, draw(st.integers(1, 10**6))]
    shape = tuple(draw(st.permutations(shape)))
    chunks = tuple(draw(st.integers(1, max(1, min(size, 3000)))) for size in shape)
    shards = tuple(c * draw(st.integers(1, 3)) for c in chunks) if draw(st.booleans()) else None
    dtype = draw(st.sampled_from(["float32", "float64", "uint8", "int16", "float16"]))
    return Layout(shape, chunks, shards, dtype)


@given(
    layout=layouts(),
    rank=st.integers(1, 30),
    method=st.sampled_from(["auto", "rows", "range", "factorize-recover", "full", "recover-factorize"]),
    axis=st.sampled_from(["longest", "first", "last"]),
    refine=st.integers(0, 2),
    signed=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_laws(layout, rank, method, axis, refine, signed):
    most = math.prod(layout.shape) // max(layout.shape)
    last = len(layout.shape) - 1
    wanted = Settings.of(
        decomposition="cp",
        rank=min(rank, most),
        method=method,
        axis={"first": "0", "last": str(last)}.get(axis, axis),
        refine=max(refine, int(method == "rows")),
        signed=signed,
    )
    plan = make_plan(layout, wanted, 2**60, 2)
    if axis == "longest":
        assert plan.rows == max(layout.shape)
    assert plan.rows * plan.width == math.prod(layout.shape)
    assert math.prod(plan.others) == plan.width
    assert sorted([plan.rows, *plan.others]) == sorted(layout.shape)
    stored = (layout.shards or layout.chunks)[plan.axis]
    for blocks, rows in (
        (plan.sketch_blocks, plan.sketch_block_rows),
        (plan.refine_blocks, plan.refine_block_rows),
    ):
        # Every slice once, in order; no stored chunk in two blocks.
        assert blocks[0].start == 0
        assert blocks[-1].stop == plan.rows
        assert all(a.stop == b.start for a, b in itertools.pairwise(blocks))
        assert rows % stored == 0 or len(blocks) == 1
        assert len(blocks) <= 8192
    assert plan.stripe_rows % layout.chunks[plan.axis] == 0 or plan.stripe_rows >= plan.rows
    assert plan.passes == 1 + wanted.refine
    assert plan.bytes_to_read == plan.passes * math.prod(layout.shape) * layout.itemsize
    # A stripe over the full width is held by a worker, and so foreseen; a foreseen need is needed.
    stripe = min(plan.stripe_rows, plan.rows) * plan.width * layout.itemsize
    assert plan.worker_bytes >= stripe
    other = make_plan(layout, wanted, 2**59, 9)
    for field in dataclasses.fields(plan):
        if field.name not in RESOURCES:
            assert getattr(plan, field.name) == getattr(other, field.name), field.name
    need = max(plan.worker_bytes, plan.driver_bytes)
    assert make_plan(layout, wanted, need, 2).rows == plan.rows
    with pytest.raises(BudgetError, match="--memory allows 1MiB: raise --memory to"):
        make_plan(layout, wanted, MIB, 2)


def plan(shape, *, chunks, memory=2048 * MIB, rank=8, **options):
    layout = Layout(shape, chunks, None, "float32")
    return make_plan(layout, Settings.of(decomposition="cp", rank=rank, **options), memory, 2)


@pytest.mark.parametrize("shape", [(30, 4, 3), (4, 30, 3), (3, 4, 5, 2), (60, 1, 1), (1, 1, 1)])
def test_no_more_components_than_give_back_any_tensor(shape):
    most = math.prod(shape) // max(shape)
    assert plan(shape, chunks=shape, rank=most).rank == most
    with pytest.raises(UsageError, match=f"--rank is {most + 1}, but {most} components"):
        plan(shape, chunks=shape, rank=most + 1)


@pytest.mark.parametrize(
    ("shape", "chunks", "options", "advice"),
    [
        ((10**6, 200, 100), (20_000, 50, 50), {}, "20000 x 50 x 50, read in rows of chunks over the full"),
        ((10**6, 200, 100), (64, 50, 50), {"method": "full"}, "use --method auto"),
        ((10**8, 5, 4), (10**6, 5, 4), {"method": "factorize-recover"}, "use --method range"),
        ((10**5, 300, 300), (16, 50, 50), {}, "--memory to"),
        ((1000, 10, 10), (100, 10, 10), {"memory": 300 * MIB}, "the driver process alone takes 320MiB"),
    ],
)
def test_what_does_not_fit_is_refused_with_both_numbers(shape, chunks, options, advice):
    options = {"memory": 500 * MIB, **options}
    with pytest.raises(BudgetError, match=advice) as refusal:
        plan(shape, chunks=chunks, **options)
    need, allowed = str(refusal.value).split("needs ")[1].split("MiB, --memory allows ")
    assert allowed.startswith(f"{options['memory'] // MIB}MiB")
    enough = {**options, "memory": int(need) * MIB}
    try:
        plan(shape, chunks=chunks, **enough)
    except BudgetError as other:  # a worker fits now, and the driver says what it needs
        assert "driver" in str(other)  # noqa: PT017 - it may fit, too
