"""What stands between Zarr and the store of a source: nothing that is lost or cut reads as data.

Zarr takes a missing, an empty and often a cut object for the fill value, and so a store that failed
for the time being for zeros.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import stat
from typing import TYPE_CHECKING, Any

from zarr.abc.store import RangeByteRequest, Store, SuffixByteRequest
from zarr.storage import LocalStore, WrapperStore

from dcf.errors import SourceError
from dcf.urls import conceal

if TYPE_CHECKING:
    from collections.abc import Sequence

METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
_MOST_METADATA = 64 << 20
_SECONDS_BETWEEN_TRIES = (0.1, 0.2, 0.4, 0.8, 1.6)
_LOG = logging.getLogger(__name__)


def size_of(root: str, key: str) -> int | None:
    """Return the bytes of file `key` below `root`, a path without links; None where it is absent.

    Raises `ValueError` for what is no file inside, `OSError` for what cannot be looked at.
    """
    path = root
    try:
        for part in key.split("/"):
            path = f"{path}{os.sep}{part}"
            found = os.lstat(path)
            if stat.S_ISLNK(found.st_mode):
                path = os.path.realpath(path)
                if not path.startswith(root.rstrip(os.sep) + os.sep):
                    raise ValueError("is a link that leads out of the store; put the file itself there")
                if not os.path.lexists(path):
                    raise ValueError("is a link to a file that is not there; restore it")
                found = os.lstat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("is no file (a directory or a device); restore it from a copy")
    return found.st_size


def check_metadata(path: str) -> None:
    """Raise `SourceError` for metadata of a local store that are links out of it, no files, or huge."""
    root = os.path.realpath(path)
    for key in METADATA:
        try:
            size = size_of(root, key)
        except ValueError as error:
            raise SourceError(f"The metadata {key} of SOURCE {path} {error}.") from error
        if size is not None and size > _MOST_METADATA:
            raise SourceError(
                f"The metadata {key} of SOURCE {path} take {size} bytes, more than any array needs;"
                " restore them from a copy."
            )


class Guard(WrapperStore[Any]):
    """A store that notes which chunks are not there, tries again where reading fails, and refuses damage.

    store : what is guarded; step : entries of a stored chunk (or shard) along each axis;
    most : bytes that one may take; absent : gets the keys of chunks that are not there.
    Noticing them on the way costs no request of its own.
    """

    # Newer versions of Zarr would read past `get`: synchronously, and by several ranges at once.
    _supports_sync_io = False
    get_ranges: Any = getattr(Store, "get_ranges", None)

    def __init__(self, store: Any, step: Sequence[int], most: int, absent: set[str]) -> None:
        super().__init__(store)
        self._step = step
        self._most = most
        self._absent = absent
        self._root = os.path.realpath(store.root) if isinstance(store, LocalStore) else None

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        """Return the stored bytes, or None; note the key in that case.

        Raises `SourceError` for a chunk that is empty, shorter than asked for, too large, no file
        inside the store, or that cannot be read in six tries.
        """
        for wait in (*_SECONDS_BETWEEN_TRIES, None):
            try:
                self._look(key, byte_range)
                value = await super().get(key, prototype, byte_range)
                break
            except (SourceError, MemoryError):
                raise
            except Exception as error:
                cause = f"{type(error).__name__}: {error}"
                if wait is None:
                    tries = len(_SECONDS_BETWEEN_TRIES) + 1
                    what = f"could not be read after {tries} tries ({cause}); run again to resume"
                    raise self._refusal(key, what) from error
                _LOG.warning(
                    "%s of SOURCE could not be read (%s); trying again in %s s", key, conceal(cause), wait
                )
                await asyncio.sleep(wait)
        if key.endswith(METADATA):
            return value
        if value is None:
            self._absent.add(key)
            return None
        got = len(value)
        if got == 0:
            raise self._refusal(key, "is empty (0 bytes); restore it from a copy, then run again to resume")
        if got != _asked(byte_range, got):
            raise self._part(key, byte_range, got)
        return value

    def _look(self, key: str, byte_range: Any) -> None:
        """Refuse what can be seen of a chunk before it is read: there is no reading a pipe, or 1 TB."""
        if self._root is None:
            return
        try:
            size = size_of(self._root, key)
        except ValueError as error:
            raise self._refusal(key, str(error)) from error
        if size is None:
            return
        if size > self._most and not key.endswith(METADATA):
            what = f"takes {size} bytes, {self._most} at most make sense; restore it from a copy"
            raise self._refusal(key, what)
        if isinstance(byte_range, RangeByteRequest) and byte_range.end > max(size, 1):
            raise self._part(key, byte_range, max(size - byte_range.start, 0))

    def _part(self, key: str, byte_range: Any, got: int) -> SourceError:
        what = (
            f"gives {got} bytes where {_asked(byte_range, got)} were asked for (it is cut off, or its server"
            " knows no byte ranges); restore it from a copy, then run again to resume"
        )
        return self._refusal(key, what)

    def _refusal(self, key: str, what: str) -> SourceError:
        """Return an error that says where the chunk lies; the last numbers of its key are its place."""
        place = [int(digits) for digits in re.findall(r"\d+", key)[-len(self._step) :]]
        corner = tuple(i * step for i, step in zip(place, self._step, strict=False))
        return SourceError(f"The chunk {key} of SOURCE, from entry {corner} on, {what}.")


def _asked(byte_range: Any, got: int) -> int:
    """Return how many bytes a request asked for; `got` where it set no number."""
    if isinstance(byte_range, RangeByteRequest):
        return byte_range.end - byte_range.start
    return byte_range.suffix if isinstance(byte_range, SuffixByteRequest) else got
