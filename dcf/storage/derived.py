"""What is made of the tiles of a source: kept, centred, scaled; and M held whole in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from dcf.types import BlockSource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dcf.types import Real


@dataclass(frozen=True)
class Derived(BlockSource):
    """What is the same for a source and what is made of its tiles."""

    source: BlockSource
    """M (n, m)"""

    @property
    def width(self) -> int:
        """m, the entries of the other axes together."""
        return self.source.width

    def decoded_bytes(self, start: int, stop: int) -> int:
        """Return the bytes that these rows decode to, in the source's own dtype."""
        return self.source.decoded_bytes(start, stop)

    def position(self, row: int, column: int) -> str:
        """Name an entry of M by its coordinates in the source's own orientation."""
        return self.source.position(row, column)


@dataclass(frozen=True)
class Keeping(Derived):
    """A source of which every entry is kept as it is read."""

    entries: Real
    """(n, m), written by `tiles`"""

    def tiles(self, start: int, stop: int, absent: set[str]) -> Iterator[tuple[int, Real]]:
        """Yield the tiles of the source, keeping their entries."""
        for first, tile in self.source.tiles(start, stop, absent):
            self.entries[first : first + len(tile)] = tile
            yield first, tile


@dataclass(frozen=True)
class LessMeans(Derived):
    """A source less the means of its columns."""

    mean: Real
    """μ (m,), in the dtype of the tiles"""

    def tiles(self, start: int, stop: int, absent: set[str]) -> Iterator[tuple[int, Real]]:
        """Yield the tiles of the source, less the means."""
        for first, tile in self.source.tiles(start, stop, absent):
            yield first, tile - self.mean


@dataclass(frozen=True)
class Scaled(Derived):
    """A source divided by 2ᵉ, which rounds nothing but what becomes too small to count."""

    exponent: int
    """e"""

    def tiles(self, start: int, stop: int, absent: set[str]) -> Iterator[tuple[int, Real]]:
        """Yield the tiles of the source, divided."""
        for first, tile in self.source.tiles(start, stop, absent):
            yield first, cast("Real", np.ldexp(tile, -self.exponent))


@dataclass(frozen=True)
class InMemory(BlockSource):
    """M held whole in memory."""

    entries: Real
    """(n, m)"""
    tile_rows: int
    """rows of a tile"""

    @property
    def width(self) -> int:
        """m, the entries of a row."""
        return int(self.entries.shape[1])

    def tiles(self, start: int, stop: int, absent: set[str]) -> Iterator[tuple[int, Real]]:
        """Yield (first row, tile) in order."""
        for first in range(start, stop, self.tile_rows):
            yield first, self.entries[first : min(first + self.tile_rows, stop)]

    def decoded_bytes(self, start: int, stop: int) -> int:
        """Return 0: nothing is decoded."""
        return 0

    def position(self, row: int, column: int) -> str:
        """Name an entry of M."""
        return f"[{row}, {column}]"
