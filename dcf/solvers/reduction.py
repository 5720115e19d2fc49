"""The fixed binary tree in which partial sums meet, whoever computes them.

Floating-point sums depend on their order. Blocks are therefore merged along one binary tree
that the plan fixes; a task may own a whole subtree, and how large a subtree changes who
merges, never what is merged with what: the bits stay.
"""

import math
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


MOST_TASKS = 20  # a worker, for each one costs the scheduler a millisecond
FEW_TASKS = 4  # a worker, that still share out evenly where one is slower or comes later
UNEVEN = 1.05  # times the shortest pass that a larger subtree may take


def subtree_size(blocks: int, workers: int) -> int:
    """Return the blocks of a task's subtree, a power of two.

    A larger one samples fewer rows, and saves blocks while it makes others. It is the largest that leaves a
    few tasks a worker, and with which the last worker ends hardly later than with any smaller.
    """
    size = 1
    while -(-blocks // size) > MOST_TASKS * workers:
        size *= 2

    def of_last_worker(size: int) -> int:
        return math.ceil(math.ceil(blocks / size) / workers) * size

    best, larger = of_last_worker(size), size
    while -(-blocks // (2 * larger)) >= FEW_TASKS * workers:
        larger *= 2
        if of_last_worker(larger) <= UNEVEN * best:
            size = larger
    return size


def fold(blocks: Iterable[T], merge: Callable[[T, T], T]) -> T:
    """Merge a stream of blocks along the binary tree, holding one node a level at the most.

    The nodes held are those of a binary counter, so 2ᵏ blocks never hold more than k + 1. The
    roots of equal subtrees, folded in their turn, give the root of all: the tree is one.
    """
    stack: list[tuple[int, T]] = []
    for block in blocks:
        node, level = block, 0
        while stack and stack[-1][0] == level:
            node, level = merge(stack.pop()[1], node), level + 1
        stack.append((level, node))
    root = stack.pop()[1]
    while stack:
        root = merge(stack.pop()[1], root)
    return root
