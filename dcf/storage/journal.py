"""The journal of a pass: which blocks are finished, and what is kept of each."""

from __future__ import annotations

import hashlib
import logging
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from dcf.storage.arrays import open_member
from dcf.urls import conceal

if TYPE_CHECKING:
    from collections.abc import Iterable

    import zarr
    from numpy.typing import NDArray

    from dcf.types import Arrays, Block, RowStore

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BlockJournal:
    """Finished blocks of one pass, one chunk a block in each of a few arrays.

    A block is finished when its mark is there: a checksum of all that was saved of it, and of which
    run, pass and block it is. All else counts for nothing, whether torn by a crash or left by another
    run, and the block is done again.
    """

    group: zarr.Group
    """stages/<pass> of the run group"""
    run: str
    """the identity of the run, never the same twice"""
    rows: RowStore | None = None
    """(n, k), where the blocks' rows of an n-sized result go"""
    rows_at_once: int = 0
    """rows of a chunk of `rows`, which is written and read so many at a time"""
    behind: bool = False
    """whether a block may be saved while the next is made"""
    padded: tuple[str, ...] = ()
    """arrays that end in zeros, of which chunks of zeros are not written; only the journal reads them"""

    def count(self) -> int:
        """Return how many blocks are marked, from the names of the chunks alone."""
        return int(open_member(self.group, "done").nchunks_initialized)

    def save(self, block: Block, arrays: Arrays, rows: NDArray[Any] | None = None) -> None:
        """Store a finished block, and its rows where the pass keeps them; the last write marks it."""
        if self.rows is not None and rows is not None:
            for part in self._parts(block):
                self.rows[part] = rows[part.start - block.start : part.stop - block.start]
        for name, values in arrays.items():
            if values.size:
                member = open_member(self.group, name)
                if name in self.padded:  # the mark tells whether a chunk was lost
                    member = member.with_config({"write_empty_chunks": False})
                member[block.index] = values
        parts = [] if self.rows is None or rows is None else [rows]
        open_member(self.group, "done")[block.index] = self._mark(block, arrays, parts)

    def load(self, block: Block) -> dict[str, NDArray[Any]] | None:
        """Return what `save` stored, or None where the block is to be done."""
        mark = open_member(self.group, "done")
        try:
            if not (said := int(cast("Any", mark[block.index]))):
                return None
            arrays = {
                name: np.asarray(open_member(self.group, name)[block.index])
                for name in self.group.array_keys()
                if name != "done"
            }
            parts = (
                (np.asarray(self.rows[part]) for part in self._parts(block)) if self.rows is not None else ()
            )
            if self._mark(block, arrays, parts) == said:
                return arrays
            _log.warning(
                "Block %d of %s is not what was saved; it is done again.", block.index, self.group.path
            )
        except MemoryError:
            raise
        except Exception as error:
            _log.warning(
                "Block %d of %s cannot be read (%s); it is done again.",
                block.index,
                self.group.path,
                conceal(str(error)),
            )
        return None

    def _parts(self, block: Block) -> list[slice]:
        step = self.rows_at_once or block.stop - block.start
        return [slice(i, min(i + step, block.stop)) for i in range(block.start, block.stop, step)]

    def _mark(self, block: Block, arrays: Arrays, rows: Iterable[NDArray[Any]]) -> int:
        """Return 64 bits, not all zero, that follow from the run, the pass, the block and its content."""
        content = hashlib.blake2b(f"{self.run} {self.group.path} {block}".encode(), digest_size=8)
        for name in sorted(arrays):
            values = arrays[name]
            if values.size:
                check = zlib.crc32(np.ascontiguousarray(values).data)
                content.update(f"{name} {values.dtype} {values.shape} {check}".encode())
        check = 0
        for part in rows:
            check = zlib.crc32(np.ascontiguousarray(part).data, check)
        content.update(str(check).encode())
        return int.from_bytes(content.digest(), "little") or 1
