"""Anything that Zarr can open → lazily read tiles, compressed axis first."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import zarr
from zarr.buffer import cpu
from zarr.errors import BaseZarrError
from zarr.storage import WrapperStore

from dcf.errors import SourceError, UsageError
from dcf.solvers.shared import SharedSetting
from dcf.types import BlockSource, Layout, Real

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray


def _set_chunks_in_flight(count: int) -> Callable[[], None]:
    before = zarr.config.get("async.concurrency")
    zarr.config.set({"async.concurrency": count})
    return lambda: zarr.config.set({"async.concurrency": before}) and None


_CHUNKS_IN_FLIGHT = SharedSetting(_set_chunks_in_flight)
_DIGEST = "dcf-entries-sha256"
_METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")


def open_source(source: str | Path | zarr.Array[Any], *, tensor: bool = False) -> zarr.Array[Any]:
    """Open a Zarr v2 or v3 matrix, or a tensor of three axes or more, checked from its metadata alone.

    Raises `UsageError` where there is none, `SourceError` where it holds no real numbers or has an
    empty axis. Reads no chunk.
    """
    if isinstance(source, zarr.Array):
        return _checked(source, str(source.store_path), tensor)
    url = str(source)
    if "://" not in url and not Path(url).exists():
        raise UsageError(f"SOURCE {url} does not exist; give the path or URL of a Zarr array.")
    try:
        node = zarr.open(store=url, mode="r")
    except (FileNotFoundError, BaseZarrError) as error:
        raise UsageError(f"SOURCE {url} is not a Zarr array (no zarr.json or .zarray that opens).") from error
    except ImportError as error:
        raise UsageError(f"SOURCE {url} needs the extra: pip install 'dcf[cloud]' ({error}).") from error
    except Exception as error:
        raise UsageError(f"SOURCE {url} cannot be opened: {type(error).__name__}: {error}.") from error
    if not isinstance(node, zarr.Array):
        names = sorted(itertools.islice(node.array_keys(), 5))
        inside = f"; name one of its arrays, such as {url.rstrip('/')}/{names[0]}" if names else ""
        raise UsageError(f"SOURCE {url} is a Zarr group, not an array{inside}.")
    return _checked(node, url, tensor)


def _checked(array: zarr.Array[Any], url: str, tensor: bool) -> zarr.Array[Any]:
    if tensor and array.ndim < 3:
        raise UsageError(
            f"SOURCE {url} has shape {array.shape}; CP needs a tensor, three axes or more"
            " (for a matrix: dcf nmf, semi-nmf, spca or svd)."
        )
    if not tensor and array.ndim != 2:
        instead = "; for a tensor: dcf cp, or --as cp" if array.ndim > 2 else ""
        raise UsageError(f"SOURCE {url} has shape {array.shape}; this needs a matrix, two axes{instead}.")
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise SourceError(f"SOURCE {url} holds {array.dtype}; dcf needs real numbers (float, int or bool).")
    if 0 in array.shape:
        raise SourceError(f"SOURCE {url} has shape {array.shape}: an axis is empty.")
    return array


def store_array(path: Path, values: NDArray[Any]) -> zarr.Array[Any]:
    """Store an array of the caller's memory where tasks can read it.

    Its attributes tell its entries apart from others of the same shape: a run resumes with them alone.
    """
    digest = hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()
    return zarr.create_array(str(path), data=values, compressors=None, attributes={_DIGEST: digest})


def layout_of(array: zarr.Array[Any]) -> Layout:
    """Return the layout of an array, from its metadata."""
    return Layout(array.shape, array.chunks, array.shards, array.dtype.newbyteorder("=").name)


def describe(array: zarr.Array[Any], url: str) -> dict[str, Any]:
    """Return the record of a source: url, shape, chunks, dtype and a fingerprint of its metadata."""
    metadata = array.metadata.to_dict()
    metadata.pop("attributes", None)
    if _DIGEST in array.attrs:
        metadata[_DIGEST] = array.attrs[_DIGEST]
    metadata = json.loads(json.dumps(metadata, default=str))
    canonical = json.dumps(metadata, sort_keys=True)
    return {
        "url": url,
        "shape": list(array.shape),
        "chunks": list(array.chunks),
        "shards": list(array.shards) if array.shards else None,
        "dtype": str(array.dtype),
        "metadata": metadata,
        "fingerprint": hashlib.sha256(canonical.encode()).hexdigest(),
    }


class _Watched(WrapperStore[Any]):
    """A store that notes which keys were asked for and are not there.

    Zarr reads an absent chunk as the fill value without a word; noticing it on the way costs no
    request of its own.
    """

    def __init__(self, store: Any, absent: set[str]) -> None:
        super().__init__(store)
        self._absent = absent

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        """Return the stored bytes, or None; note the key in that case."""
        value = await super().get(key, prototype, byte_range)
        if value is None and not key.endswith(_METADATA):
            self._absent.add(key)
        return value


@dataclass(frozen=True)
class ArraySource:
    """A Zarr array as M (n, m), unfolded along the compressed axis, read stripe by stripe.

    The columns of M run over the other axes in their order, the last one fastest (a matrix is the
    case of one). A stripe is one or more layers of chunks along the compressed axis, over the full
    width; tiles are views of it (or converted copies small enough for the cache). Their bounds are
    the plan's, so every sum over tiles has one order.
    """

    array: zarr.Array[Any]
    """the source"""
    axis: int
    """which of its axes is compressed"""
    stripe_rows: int
    """rows read at once, a multiple of the chunk's"""
    tile_rows: int
    """rows of a tile"""
    chunks_in_flight: int
    """chunks being decoded at once"""
    dtype: str
    """of the tiles"""

    @property
    def width(self) -> int:
        """m, the entries of the other axes together."""
        return math.prod(self._others)

    @property
    def _others(self) -> tuple[int, ...]:
        shape = self.array.shape
        return shape[: self.axis] + shape[self.axis + 1 :]

    def tiles(self, start: int, stop: int, absent: set[str]) -> Iterator[tuple[int, Real]]:
        """Yield (first row, C-ordered tile (b, m)) in order, decoding every chunk once.

        Chunks that are not in the store, and so read as the fill value, add their keys to
        `absent`. A tile is valid until the next is asked for. Raises `SourceError` for a chunk
        that cannot be decoded.
        """
        watched = zarr.open_array(
            _Watched(self.array.store, absent),
            path=self.array.path,
            mode="r" if self.array.read_only else "r+",
        )
        shape = list(self.array.shape)
        shape[self.axis] = min(self.stripe_rows, stop - start)
        buffer = np.empty(shape, self.array.dtype)
        for first in range(start, stop, self.stripe_rows):
            last = min(first + self.stripe_rows, stop)
            stripe = self._read(watched, first, last, buffer)
            for row in range(0, last - first, self.tile_rows):
                tile = stripe[row : row + self.tile_rows]
                whole = np.ascontiguousarray(tile, self.dtype)
                yield first + row, cast("Real", whole.reshape(len(whole), -1))

    def _read(self, array: zarr.Array[Any], start: int, stop: int, buffer: NDArray[Any]) -> NDArray[Any]:
        """Return entries start … stop of the compressed axis, put first, through `buffer`."""
        part = buffer[self._window(slice(0, stop - start))]
        if not part.flags.c_contiguous:
            part = np.empty(part.shape, part.dtype)
        selection = self._window(slice(start, stop))
        try:
            with _CHUNKS_IN_FLIGHT.held(self.chunks_in_flight):
                array.get_basic_selection(selection, out=cpu.NDBuffer.from_numpy_array(part))
        except Exception as error:
            self._blame(start, stop, error)
        return np.moveaxis(part, self.axis, 0)

    def _window(self, rows: slice) -> tuple[slice, ...]:
        """Return the selection of these rows along the compressed axis, of all along the others."""
        return (slice(None),) * self.axis + (rows,) + (slice(None),) * (self.array.ndim - self.axis - 1)

    def _blame(self, start: int, stop: int, error: Exception) -> None:
        """Read a failed stripe chunk by chunk and name the one that cannot be decoded."""
        for key, window in self._stored(start, stop):
            try:
                self.array[window]
            except Exception as cause:
                corner = tuple(int(w.start) for w in window)
                raise SourceError(
                    f"The chunk {key} of SOURCE, from entry {corner} on, cannot be decoded"
                    f" ({type(cause).__name__}: {cause}); restore it from a copy, then run again to resume."
                ) from cause
        raise SourceError(
            f"Rows {start}…{stop} of SOURCE could not be read ({type(error).__name__}: {error}),"
            " though each chunk could on a second try; run again to resume."
        ) from error

    def _stored(self, start: int, stop: int) -> Iterator[tuple[str, tuple[slice, ...]]]:
        """Yield the store key and the window of every stored chunk (or shard) of these rows."""
        stored = self.array.shards or self.array.chunks
        sides = [range(-(-size // step)) for size, step in zip(self.array.shape, stored, strict=True)]
        step = stored[self.axis]
        sides[self.axis] = range(start // step, -(-stop // step))
        for place in itertools.product(*sides):
            window = tuple(
                slice(i * step, min((i + 1) * step, size))
                for i, step, size in zip(place, stored, self.array.shape, strict=True)
            )
            yield self.array.metadata.encode_chunk_key(place), window

    def decoded_bytes(self, start: int, stop: int) -> int:
        """Return the bytes that these rows decode to, in the source's own dtype."""
        return (stop - start) * self.width * self.array.dtype.itemsize

    def position(self, row: int, column: int) -> str:
        """Name an entry of M by its coordinates in the source's own orientation."""
        place = [int(i) for i in np.unravel_index(column, self._others)]
        place.insert(self.axis, row)
        return str(place)


@dataclass(frozen=True)
class Derived:
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
class InMemory:
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
