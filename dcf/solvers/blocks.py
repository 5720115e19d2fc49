"""The blocks of one task, in order: each loaded or made, and saved."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from dcf.types import Arrays, Block, Journal

T = TypeVar("T")


def finished_blocks(
    journal: Journal,
    blocks: Sequence[Block],
    load: Callable[[dict[str, NDArray[Any]]], T],
    make: Callable[[Block], tuple[T, Arrays, NDArray[Any] | None]],
) -> Iterator[T]:
    """Yield the result of every block: what the journal holds of it, or what `make` returns.

    `make` returns a result, the arrays that the journal keeps of it, and its rows. Where the journal is
    `behind` they are saved while the next block is made, since a save mostly waits for the disk; no more than
    one is under way, and the last is awaited. Raises what `journal.save` raises, then a block late.
    """
    with ThreadPoolExecutor(1) as pool:
        saving: Future[None] | None = None
        for block in blocks:
            kept = journal.load(block)
            if kept is not None:
                yield load(kept)
                continue
            result, arrays, rows = make(block)
            if saving is not None:
                saving.result()
            saving = pool.submit(journal.save, block, arrays, rows)
            if not journal.behind:
                saving.result()
            del arrays, rows
            yield result
        if saving is not None:
            saving.result()
