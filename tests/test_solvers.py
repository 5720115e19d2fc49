"""Laws of the shared solvers."""

import math
import signal
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from dcf.solvers.blocks import finished_blocks
from dcf.solvers.gram_nnls import descend_rows, nonnegative_solve, projected_gradient
from dcf.solvers.reduction import fold, subtree_size
from dcf.solvers.shared import in_threads
from dcf.types import Block


@given(seed=st.integers(0, 10_000), r=st.integers(1, 12), width=st.integers(1, 20), sparse=st.booleans())
@settings(max_examples=60, deadline=None)
def test_rows_agree_with_lawson_hanson(seed, r, width, sparse):
    generator = np.random.default_rng(seed)
    h = generator.random((r, width))
    m = generator.standard_normal((8, width)) if sparse else generator.random((8, width))
    a, g = m @ h.T, h @ h.T
    x = nonnegative_solve(a, g)
    assert (x >= 0).all()
    for row, mine in zip(m, x, strict=True):
        theirs = nnls(h.T, row)[0]
        best = np.linalg.norm(row - theirs @ h)
        assert np.linalg.norm(row - mine @ h) <= best + 1e-7 * (1 + best)


def test_kkt_holds_to_rounding():
    generator = np.random.default_rng(0)
    h, m = generator.random((20, 300)), generator.random((500, 300))
    a, g = m @ h.T, h @ h.T
    x = nonnegative_solve(a, g)
    assert np.abs(projected_gradient(a, g, x)).max() <= 1e-11 * np.abs(a).max()


@pytest.mark.parametrize("how", ["duplicate", "dead", "all dead"])
def test_singular_gram(how):
    generator = np.random.default_rng(1)
    h, m = generator.random((5, 30)), generator.random((40, 30))
    if how == "duplicate":
        h[3] = h[1]
    else:
        h[(3 if how == "dead" else slice(None)),] = 0
    a, g = m @ h.T, h @ h.T
    x = nonnegative_solve(a, g)
    assert np.isfinite(x).all()
    assert (x >= 0).all()
    for row, mine in zip(m, x, strict=True):
        assert np.linalg.norm(row - mine @ h) <= np.linalg.norm(row - nnls(h.T, row)[0] @ h) + 1e-6


@given(seed=st.integers(0, 10_000), sweeps=st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_descent_never_raises_the_objective(seed, sweeps):
    generator = np.random.default_rng(seed)
    h, m, x = generator.random((4, 9)), generator.random((6, 9)), generator.random((6, 4))
    before = np.linalg.norm(m - x @ h)
    descend_rows(m @ h.T, h @ h.T, x, sweeps, 0.0)
    assert (x >= 0).all()
    assert np.linalg.norm(m - x @ h) <= before * (1 + 1e-12)


@given(blocks=st.integers(1, 2000), workers=st.integers(1, 40))
@settings(max_examples=200, deadline=None)
def test_the_tree_does_not_depend_on_who_merges(blocks, workers):
    def merge(a, b):
        return (a, b)

    size = subtree_size(blocks, workers)
    assert size & (size - 1) == 0
    assert -(-blocks // size) <= 20 * workers

    def of_last_worker(size):
        return math.ceil(math.ceil(blocks / size) / workers) * size

    finest = 1
    while -(-blocks // finest) > 20 * workers:
        finest *= 2
    assert of_last_worker(size) <= 1.05 * of_last_worker(finest)  # evenly shared
    assert -(-blocks // size) >= min(blocks, 4 * workers) or size == finest
    leaves = list(range(blocks))
    roots = [fold(leaves[i : i + size], merge) for i in range(0, blocks, size)]
    assert fold(roots, merge) == fold(leaves, merge)


def test_an_interrupt_does_not_wait_for_threads():
    main, before = threading.main_thread().ident, signal.signal(signal.SIGINT, signal.default_int_handler)
    start = time.monotonic()
    threading.Timer(0.2, lambda: signal.pthread_kill(main, signal.SIGINT)).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            in_threads(2, time.sleep, [3.0] * 4)
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - start < 2.0


def test_fold_holds_a_node_a_level():
    held = []

    def merge(a, b):
        return a | b

    def leaves():
        for i in range(256):
            held.append(i)
            yield {i}

    assert fold(leaves(), merge) == set(range(256))


class Slow:
    """A journal whose every save takes until the next block is under way."""

    behind = True

    def __init__(self):
        self.saved, self.under_way = {}, threading.Event()

    def load(self, block):
        return self.saved.get(block.index)

    def save(self, block, arrays, rows=None):
        assert self.under_way.wait(60)
        self.under_way.clear()
        self.saved[block.index] = arrays


def test_a_block_is_saved_while_the_next_is_made_and_all_are_saved_at_the_end():
    journal, blocks, made = Slow(), [Block(k, k, k + 1) for k in range(5)], []

    def make(block):
        made.append(block.index)
        journal.under_way.set()  # what the save of the block before waits for
        return block.index, {"a": block.index}, None

    results = finished_blocks(journal, blocks, lambda kept: -kept["a"], make)
    found = []
    for result in results:
        found.append(result)
        if result == 4:
            journal.under_way.set()
    assert found == made == [0, 1, 2, 3, 4]
    assert sorted(journal.saved) == made
    assert list(finished_blocks(journal, blocks, lambda kept: -kept["a"], make)) == [0, -1, -2, -3, -4]
    assert len(made) == 5


def test_what_a_save_raises_ends_the_task():
    class Full(Slow):
        def save(self, block, arrays, rows=None):
            raise OSError("full")

    blocks = [Block(k, k, k + 1) for k in range(3)]
    with pytest.raises(OSError, match="full"):
        list(finished_blocks(Full(), blocks[:1], dict, lambda block: (0, {}, None)))
