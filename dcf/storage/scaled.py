"""Data of a size whose squares leave the range of the numbers, divided by a power of two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from dcf.storage.source import Derived

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dcf.types import Real


@dataclass(frozen=True)
class Scaled(Derived):
    """A source divided by 2ᵉ, which rounds nothing but what becomes too small to count."""

    exponent: int
    """e"""

    def tiles(self, start: int, stop: int, absent: set[str]) -> Iterator[tuple[int, Real]]:
        """Yield the tiles of the source, divided."""
        for first, tile in self.source.tiles(start, stop, absent):
            yield first, cast("Real", np.ldexp(tile, -self.exponent))
