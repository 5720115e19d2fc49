"""Anything that Zarr can open → lazily read tiles, compressed axis first."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import zarr
from zarr.abc.buffer import NDBuffer
from zarr.buffer import cpu
from zarr.errors import BaseZarrError
from zarr.storage import FsspecStore, StorePath

from dcf.errors import DcfError, RunError, SourceError, UsageError
from dcf.sizes import panel_rows
from dcf.solvers.shared import SharedSetting
from dcf.storage.codecs import bounded
from dcf.storage.guard import METADATA, Guard, check_metadata
from dcf.storage.remote import RemoteStore
from dcf.types import BlockSource, Layout, Panels, Real
from dcf.urls import conceal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray


def _set_chunks_in_flight(count: int) -> Callable[[], None]:
    before = zarr.config.get("async.concurrency")
    zarr.config.set({"async.concurrency": count})
    return lambda: zarr.config.set({"async.concurrency": before}) and None


_CHUNKS_IN_FLIGHT = SharedSetting(_set_chunks_in_flight)
_DIGEST = "dcf-entries-sha256"
_MOST_BYTES = 1 << 60  # more than any store holds: the sums over them stay in 64 bits
_MOST_CHUNK_BYTES = 1 << 40
_MIB = 1 << 20


def open_source(source: str | Path | zarr.Array[Any], *, tensor: bool = False) -> zarr.Array[Any]:
    """Open a Zarr v2 or v3 matrix, or a tensor of three axes or more, checked from its metadata alone.

    Raises `UsageError` where there is none, `SourceError` where it holds no real numbers, has an
    empty axis, claims an absurd size, or names a codec that is not known to be harmless. Reads no chunk.
    """
    if isinstance(source, zarr.Array):
        return _checked(source, str(source.store_path), tensor)
    url = str(source).removeprefix("file://")
    if "://" not in url and not os.path.isdir(url):
        what = "is no folder" if os.path.exists(url) else "does not exist"
        raise UsageError(f"SOURCE {url} {what}; give the path or URL of a Zarr array.")
    names: list[str] = []
    try:
        if "://" not in url:
            check_metadata(url)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Zarr thinks of metadata is not the user's concern
            node = _opened(url)
            if not isinstance(node, zarr.Array):
                names = sorted(itertools.islice(node.array_keys(), 5))
    except DcfError:
        raise
    except Exception as error:
        cause = f"{type(error).__name__}: {error!s:.200}".rstrip(".")
        if "://" not in url and any(Path(url, name).exists() for name in METADATA):
            what = f"cannot be opened: its metadata do not make sense ({cause}); restore or rewrite them"
        elif isinstance(error, FileNotFoundError | BaseZarrError):
            what = "is not a Zarr array: no zarr.json or .zarray is there"
        else:
            what = f"cannot be opened: {cause}"
        raise UsageError(f"SOURCE {url} {what}.") from error
    if not isinstance(node, zarr.Array):
        inside = f"; name one of its arrays, such as {url.rstrip('/')}/{names[0]}" if names else ""
        raise UsageError(f"SOURCE {url} is a Zarr group, not an array{inside}.")
    return _checked(node, url, tensor)


def _opened(url: str) -> zarr.Array[Any] | zarr.Group:
    if "://" not in url:
        return zarr.open(store=url, mode="r")
    store = RemoteStore(url, "SOURCE", read_only=True)
    try:  # asked for both at once, a store that may not be listed refuses what is not there
        return zarr.open(store=store, mode="r", zarr_format=3)
    except (FileNotFoundError, BaseZarrError):
        return zarr.open(store=store, mode="r", zarr_format=2)


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
    _refuse_nonsense(array, url)
    bounded(array, url)
    return array


def _refuse_nonsense(array: zarr.Array[Any], url: str) -> None:
    """Raise `SourceError` for a grid of chunks, or sizes, that no array has."""
    try:
        grids = [array.shape, array.chunks, array.shards or array.chunks]
    except NotImplementedError as error:
        raise SourceError(f"SOURCE {url} has chunks of several shapes; rewrite it with one.") from error
    if any(side < 1 for grid in grids for side in grid) or len(set(map(len, grids))) > 1:
        raise SourceError(f"SOURCE {url} has shape {grids[0]} and chunks {grids[1]}, which no array has.")
    whole, chunk, shard = (math.prod(grid) * array.dtype.itemsize for grid in grids)
    if whole > _MOST_BYTES:
        raise SourceError(f"SOURCE {url} claims {whole} bytes (shape {array.shape}); restore its metadata.")
    if max(chunk, shard) > _MOST_CHUNK_BYTES:
        raise SourceError(
            f"SOURCE {url} claims chunks of {max(chunk, shard)} bytes; rewrite it with smaller ones."
        )
    if getattr(array.metadata, "storage_transformers", ()):
        raise SourceError(
            f"SOURCE {url} has storage transformers, which Zarr does not read; rewrite it without."
        )


def store_array(path: Path, values: NDArray[Any]) -> zarr.Array[Any]:
    """Store an array of the caller's memory where tasks can read it.

    Its attributes tell its entries apart from others of the same shape: a run resumes with them alone.
    """
    digest = hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()
    return zarr.create_array(str(path), data=values, compressors=None, attributes={_DIGEST: digest})


def layout_of(array: zarr.Array[Any]) -> Layout:
    """Return the layout of an array, from its metadata."""
    dtype = array.dtype.newbyteorder("=").name
    return Layout(array.shape, array.chunks, array.shards, dtype, isinstance(array.store, FsspecStore))


def describe(array: zarr.Array[Any], url: str) -> dict[str, Any]:
    """Return the record of a source: url, shape, chunks, dtype and a fingerprint of its metadata."""
    metadata = array.metadata.to_dict()
    attributes = metadata.pop("attributes", None)
    if isinstance(attributes, dict) and _DIGEST in attributes:
        metadata[_DIGEST] = attributes[_DIGEST]
    metadata = json.loads(json.dumps(metadata, default=str))
    canonical = json.dumps(metadata, sort_keys=True)
    return {
        "url": conceal(url),
        "shape": list(array.shape),
        "chunks": list(array.chunks),
        "shards": list(array.shards) if array.shards else None,
        "dtype": str(array.dtype),
        "metadata": metadata,
        "fingerprint": hashlib.sha256(canonical.encode()).hexdigest(),
    }


class _Stripe(cpu.NDBuffer):
    """What Zarr reads a stripe into: the decoded chunks are kept as they come, and copied tile by tile.

    Put together to a stripe first, every entry would go through memory once more.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        super().__init__(cast("Any", np.broadcast_to(np.empty((), dtype), shape)))
        self._parts: list[tuple[tuple[slice, ...], Any]] = []

    def __setitem__(self, key: Any, value: Any) -> None:
        """Keep a decoded chunk, or the fill value for an absent one."""
        self._parts.append((key, value.as_numpy_array() if isinstance(value, NDBuffer) else value))

    def tile(self, start: int, stop: int, axis: int, buffer: Real) -> NDArray[Any]:
        """Return entries start … stop of `axis`, put first, in the dtype of `buffer`, C-ordered.

        They are a view of a chunk where one is as wide as the stripe, else in `buffer`.
        """
        tile = buffer[: stop - start]
        for window, values in self._parts:
            low, high = max(start, window[axis].start), min(stop, window[axis].stop)
            if low >= high:
                continue
            part = values
            if np.ndim(values):
                inside = slice(low - window[axis].start, high - window[axis].start)
                part = np.moveaxis(values, axis, 0)[inside]
                # The kernels are compiled for arrays that can be written.
                if part.shape == tile.shape and part.dtype == tile.dtype and part.flags.carray:
                    return cast("NDArray[Any]", part)
            tile[(slice(low - start, high - start), *window[:axis], *window[axis + 1 :])] = part
        return tile

    def layers(self, axis: int) -> list[tuple[int, int]]:
        """Return from where to where along `axis` each layer of chunks goes, in order."""
        return sorted({(window[axis].start, window[axis].stop) for window, _ in self._parts})

    def panels(self, start: int, stop: int, axis: int, dtype: str) -> list[tuple[int, Real]]:
        """Return entries start … stop of `axis`, put first, within one layer: a matrix, chunk by chunk.

        They are views of the chunks where these are so ordered and of that dtype.
        """
        found: list[tuple[int, Real]] = []
        for window, values in self._parts:
            rows, columns = window[axis], window[1 - axis]
            if not rows.start <= start < rows.stop:
                continue
            if np.ndim(values):
                part = np.moveaxis(values, axis, 0)[start - rows.start : stop - rows.start]
            else:
                part = np.full((stop - start, columns.stop - columns.start), values)
            found.append((columns.start, cast("Real", np.require(part, dtype, ["C", "W", "A"]))))
        return sorted(found, key=lambda panel: panel[0])


@dataclass(frozen=True)
class ArraySource(BlockSource):
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
        that is damaged or cannot be read, `RunError` where the whole array is gone.
        """
        shape = (self.tile_rows, *self._others)
        buffer = cast("Real", np.empty(shape, self.dtype))
        for first, stripe, rows in self._stripes(start, stop, absent):
            for row in range(0, rows, self.tile_rows):
                tile = stripe.tile(row, min(row + self.tile_rows, rows), self.axis, buffer)
                yield first + row, cast("Real", tile.reshape(len(tile), self.width))
            del stripe, tile  # before the next is read

    def panels(self, start: int, stop: int, absent: set[str]) -> Iterator[tuple[int, Panels]]:
        """Yield (first row, panels of columns) in order, decoding every chunk once.

        A matrix is left in its chunks, unless they are lower than a tile; a tensor is put together. They are
        valid until the next are asked for; all else is as with tiles.
        """
        if self.array.ndim > 2 or (self.array.shards or self.array.chunks)[self.axis] < self.tile_rows:
            yield from BlockSource.panels(self, start, stop, absent)
            return
        step = panel_rows(self.tile_rows, self.width * np.dtype(self.dtype).itemsize)
        for first, stripe, _ in self._stripes(start, stop, absent):
            for top, bottom in stripe.layers(self.axis):
                for row in range(top, bottom, step):
                    panels = stripe.panels(row, min(row + step, bottom), self.axis, self.dtype)
                    yield first + row, panels
                    panels.clear()  # or they would keep their chunks while the next are read
            del stripe

    def _stripes(self, start: int, stop: int, absent: set[str]) -> Iterator[tuple[int, _Stripe, int]]:
        """Yield (first row, stripe, its rows) in order."""
        guarded, known = self._guarded(absent), len(absent)
        for first in range(start, stop, self.stripe_rows):
            last = min(first + self.stripe_rows, stop)
            stripe = self._read(guarded, first, last)
            if len(absent) > known:
                self._refuse_lost_store(guarded)
                known = len(absent)
            yield first, stripe, last - first
            del stripe

    def _guarded(self, absent: set[str]) -> zarr.Array[Any]:
        """Return the array read through a `Guard`, by its metadata as they were checked."""
        array = self.array
        step = array.shards or array.chunks
        # A filter may store eight bytes for one; a shard has an index of its chunks beside them.
        index = 16 * math.prod(step) // math.prod(array.chunks)
        most = 8 * math.prod(step) * array.dtype.itemsize + index + _MIB
        place = StorePath(Guard(array.store, step, most, absent), array.path)
        return zarr.Array(zarr.AsyncArray(bounded(array, str(array.store_path)), place))

    def _refuse_lost_store(self, guarded: zarr.Array[Any]) -> None:
        """Raise `RunError` where chunks are absent because the array is: an empty mount has no metadata."""
        try:
            zarr.open_array(
                guarded.store,
                path=guarded.path,
                mode="r" if guarded.read_only else "r+",
                zarr_format=guarded.metadata.zarr_format,
            )
        except DcfError:
            raise
        except Exception as error:
            raise RunError(
                f"SOURCE {self.array.store_path} has vanished (its metadata is gone): mount or restore it;"
                " the same command resumes."
            ) from error

    def _read(self, array: zarr.Array[Any], start: int, stop: int) -> _Stripe:
        """Return the decoded chunks of entries start … stop of the compressed axis."""
        selection = self._window(slice(start, stop))
        shape = (*self._others[: self.axis], stop - start, *self._others[self.axis :])
        stripe = _Stripe(shape, array.dtype)
        try:
            with _CHUNKS_IN_FLIGHT.held(self.chunks_in_flight):
                array.get_basic_selection(selection, out=stripe)
        except (DcfError, MemoryError):
            raise
        except Exception as error:
            self._blame(array, start, stop, error)
        return stripe

    def _window(self, rows: slice) -> tuple[slice, ...]:
        """Return the selection of these rows along the compressed axis, of all along the others."""
        return (slice(None),) * self.axis + (rows,) + (slice(None),) * (self.array.ndim - self.axis - 1)

    def _blame(self, array: zarr.Array[Any], start: int, stop: int, error: Exception) -> None:
        """Read a failed stripe chunk by chunk and name the one that cannot be decoded."""
        for key, window in self._stored(start, stop):
            try:
                array[window]
            except (DcfError, MemoryError):
                raise
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
