"""The fixed binary tree in which partial sums meet, whoever computes them.

Floating-point sums depend on their order. Blocks are therefore merged along one binary tree
that the plan fixes; a task may own a whole subtree, and how large a subtree changes who
merges, never what is merged with what: the bits stay.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def subtree_size(blocks: int, most_tasks: int) -> int:
    """Return the blocks of a task's subtree: the least power of two with at most `most_tasks` tasks."""
    size = 1
    while -(-blocks // size) > most_tasks:
        size *= 2
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
