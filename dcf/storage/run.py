"""The run group: a Zarr v3 group that holds a run while it grows and when it is done.

``attrs["dcf"]`` is the record; ``W`` and ``H`` are the result; ``stages/`` holds what lies
between (sketch, factors of the sketch, recovered columns, the journal of each pass). Every
array is protected by crc32c.
"""

from __future__ import annotations

import hashlib
import logging
import os
import uuid
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.errors import BaseZarrError

from dcf.errors import DcfError, RunError, UsageError
from dcf.storage.durable import is_local, refuse_links, store_of
from dcf.storage.guard import size_of
from dcf.storage.record import Record, refuse_damage, refuse_other_identity
from dcf.urls import conceal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from dcf.types import Arrays, Block, RowStore

_log = logging.getLogger(__name__)


# A setting of the open array, not of the stored one: each opening has to make it anew.
_WRITE_ZEROS: Any = {"write_empty_chunks": True}


def create_array(
    group: zarr.Group, name: str, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: Any
) -> Any:
    """Create an array whose chunks are checked on every read, replacing one of that name."""
    lasting = "stages" not in f"{group.path}/{name}".split("/")
    return group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        dtype=dtype,
        compressors=[ZstdCodec(level=1), Crc32cCodec()] if lasting else [Crc32cCodec()],
        config=_WRITE_ZEROS,
        overwrite=True,
    )


def open_member(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """Open an array of a run: its chunks of zeros, too, will be written, for an absent one is a lost one."""
    return cast("zarr.Array[Any]", group[name]).with_config(_WRITE_ZEROS)


@dataclass(frozen=True)
class Kept:
    """An array of a run, of which a chunk that cannot be read is told in a sentence."""

    array: zarr.Array[Any]
    """(n, …)"""
    where: str
    """the run and its name there"""

    def __getitem__(self, selection: Any, /) -> NDArray[Any]:
        """Return a part of it. Raises `RunError` where it cannot be read."""
        try:
            return np.asarray(self.array[selection])
        except DcfError:
            raise
        except Exception as error:
            raise RunError(
                f"{self.where} is damaged ({type(error).__name__}: {error}); start the run again with"
                " --overwrite."
            ) from error

    def __setitem__(self, selection: Any, values: NDArray[Any], /) -> None:
        """Write a part of it."""
        self.array[selection] = values


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
                open_member(self.group, name)[block.index] = values
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


@dataclass(frozen=True)
class Transposed:
    """An (r, n) array used as the (n, r) factor that it holds."""

    array: Any
    """the Zarr array (r, n)"""

    def __getitem__(self, rows: slice, /) -> NDArray[Any]:
        """Return these rows of the factor."""
        return np.ascontiguousarray(self.array[:, rows].T)

    def __setitem__(self, rows: slice, values: NDArray[Any], /) -> None:
        """Write these rows of the factor."""
        self.array[:, rows] = values.T


@dataclass(frozen=True)
class OneColumn:
    """An (n,) array used as the (n, 1) factor that it is."""

    array: Any
    """the Zarr array (n,)"""

    def __getitem__(self, rows: slice, /) -> NDArray[Any]:
        """Return these rows of the factor."""
        return np.asarray(self.array[rows])[:, None]

    def __setitem__(self, rows: slice, values: NDArray[Any], /) -> None:
        """Write these rows of the factor."""
        self.array[rows] = values[:, 0]


class RunGroup:
    """One run on disk: its record, its result, its stages."""

    def __init__(self, group: zarr.Group, url: str) -> None:
        self.group = group
        self.url = url

    @classmethod
    def create(cls, out: str, record: dict[str, Any], overwrite: bool) -> RunGroup:
        """Start a run at `out`, or come back to the one that has the same identity.

        The identity is `source` without its url, `settings` and `version`. Raises `UsageError`
        where `out` holds something else, `RunError` where it cannot be written.
        """
        group = _existing(out)
        refuse_links(out)
        if group is not None:
            found = dict(group.attrs).get("dcf")
            if not isinstance(found, dict):
                raise UsageError(f"OUT {out} exists and is no run of dcf; choose another place.")
            if not overwrite:
                refuse_damage(out, found)
                found = Record(found, out)
                refuse_other_identity(out, found, record)
                return cls(group, out)
        elif is_local(out) and Path(out).exists() and (not Path(out).is_dir() or any(Path(out).iterdir())):
            raise UsageError(f"OUT {out} exists and is no run of dcf; choose another place.")
        try:
            if is_local(out):
                Path(out).mkdir(parents=True, exist_ok=True)
            # Mode "a" deletes nothing; what an older run left goes member by member.
            group = zarr.open_group(store_of(out), mode="a", zarr_format=3)
            for name in list(group):
                del group[name]
            group.attrs["dcf"] = {**record, "run": uuid.uuid4().hex}
        except OSError as error:
            raise RunError(f"OUT {out} cannot be written: {error}.") from error
        return cls(group, out)

    @classmethod
    def open(cls, out: str, mode: str = "r+") -> RunGroup:
        """Open a run that exists. Raises `UsageError` where `out` is none."""
        group = _existing(out, mode)
        if mode != "r":
            refuse_links(out)
        found = None if group is None else dict(group.attrs).get("dcf")
        if group is None or not isinstance(found, dict):
            raise UsageError(f"OUT {out} holds no run of dcf.")
        refuse_damage(out, found)
        return cls(group, out)

    @property
    def record(self) -> dict[str, Any]:
        """The run's attributes."""
        return Record(cast("dict[str, Any]", dict(self.group.attrs)["dcf"]), self.url)

    def update(self, **entries: Any) -> None:
        """Add entries to the record, in one write."""
        self.group.attrs["dcf"] = {**self.record, **entries}

    def update_peaks(self, workers: dict[str, int], driver: int) -> None:
        """Record the peak resident bytes of each worker and of the driver; peaks only rise."""
        was = self.record["peak_memory"]
        self.update(
            peak_memory={
                "worker": max([*workers.values(), was.get("worker", 0)]),
                "driver": max(driver, was.get("driver", 0)),
                "workers": workers,
            }
        )

    def get(self, name: str) -> Any:
        """Return an array of the run. Raises `RunError` where it is not there any more."""
        if name not in self.group:
            raise RunError(
                f"OUT {self.url} has lost its {name}; restore it, or start again with --overwrite."
            )
        return open_member(self.group, name)

    def complete(self, name: str) -> Any:
        """Return an array of which every chunk is there: an absent one would read as zeros.

        Raises `RunError` where one is not.
        """
        array = self.get(name)
        if array.nchunks_initialized < array.nchunks:
            raise RunError(
                f"OUT {self.url} has lost chunks of its {name}; restore them, or start again with"
                " --overwrite."
            )
        return Kept(array, f"The array {name} of OUT {self.url}")

    def has(self, name: str) -> bool:
        """Return whether the run holds this array or group."""
        return name in self.group

    def put(self, name: str, values: NDArray[Any]) -> None:
        """Store a small array in one chunk."""
        create_array(self.group, name, values.shape, tuple(max(1, n) for n in values.shape), values.dtype)[
            ...
        ] = values

    def allocate(self, name: str, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: Any) -> Any:
        """Create an array that block tasks write in whole chunks."""
        return create_array(self.group, name, shape, chunks, dtype)

    def begun(self) -> list[tuple[str, int, int]]:
        """Return the passes that are under way: their names, the blocks finished, and all of them."""
        if "stages" not in self.group:
            return []
        return [
            (name.replace("_", " "), int(group["done"].nchunks_initialized), int(group["done"].nchunks))
            for name, group in cast("Any", self.group["stages"]).groups()
            if "done" in group
        ]

    def result_bytes(self) -> int:
        """Return the bytes of the factors and whatever else the run leaves."""
        return sum(int(array.nbytes) for _, array in self.group.arrays())

    def drop(self, name: str) -> None:
        """Delete an array or group of the run, if it is there."""
        if name in self.group:
            del self.group[name]

    def journal(
        self,
        name: str,
        blocks: int,
        like: Arrays,
        chunks: dict[str, tuple[int, ...]] | None = None,
        rows: RowStore | None = None,
        rows_at_once: int = 0,
    ) -> BlockJournal:
        """Return the journal of a pass, made on first use.

        `like` holds arrays shaped and typed as those of a block; `chunks` splits the larger ones; `rows`
        is the n-sized array that the blocks write beside, `rows_at_once` a chunk of it.
        """
        record = self.record
        path, run = f"stages/{name}", f"{record['run']} {record.get('exponent', 0)}"
        if f"{path}/done" in self.group:  # made last, so the others are there
            return BlockJournal(cast("zarr.Group", self.group[path]), run, rows, rows_at_once)
        group = self.group.require_group(path)
        for key, values in like.items():
            chunk = (chunks or {}).get(key, values.shape)
            create_array(group, key, (blocks, *values.shape), (1, *(max(1, n) for n in chunk)), values.dtype)
        create_array(group, "done", (blocks,), (1,), "uint64")
        return BlockJournal(group, run, rows, rows_at_once)


def _existing(out: str, mode: str = "r+") -> zarr.Group | None:
    if is_local(out) and os.path.exists(out) and not os.path.isdir(out):
        return None
    try:
        if is_local(out):
            size_of(os.path.realpath(out), "zarr.json")  # no pipe: opening one would wait for ever
    except ValueError as error:
        raise RunError(f"OUT {out} cannot be opened: its zarr.json {error}.") from error
    except OSError as error:
        raise RunError(f"OUT {out} cannot be opened: {error}.") from error
    try:
        return zarr.open_group(store_of(out), mode=cast("Any", mode))
    except (FileNotFoundError, BaseZarrError):
        return None
    except OSError as error:
        raise RunError(f"OUT {out} cannot be opened: {error}.") from error
    except Exception as error:
        advice = "restore its zarr.json, or choose another OUT" if is_local(out) else "choose another OUT"
        cause = f"{type(error).__name__}: {error!s:.200}"
        raise RunError(f"OUT {out} cannot be opened ({cause}); {advice}.") from error


def allocate_plain(path: str | Path, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str) -> Any:
    """Create an uncompressed Zarr array with crc32c at `path`, replacing one that is there."""
    return zarr.create_array(
        str(path), shape=shape, chunks=chunks, dtype=dtype, compressors=[Crc32cCodec()], overwrite=True
    )
