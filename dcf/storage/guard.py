"""What stands between Zarr and the store of a source: nothing that is lost or cut reads as data.

Zarr takes a missing, an empty and often a cut object for the fill value, and so a store that failed
for the time being for zeros.
"""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING, Any

from zarr.abc.store import RangeByteRequest, Store, SuffixByteRequest
from zarr.storage import LocalStore, WrapperStore

from dcf.errors import DcfError, RunError, SourceError
from dcf.storage.remote import OversizedError, RemoteStore, cause_of, is_lasting, tried

if TYPE_CHECKING:
    from collections.abc import Sequence

METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
_MOST_METADATA = 64 << 20


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
        inside the store, or that cannot be read in six tries, `RunError` for one that may not be read.
        """
        try:
            value = await tried(f"{key} of SOURCE", lambda: self._read(key, prototype, byte_range))
        except (DcfError, MemoryError):
            raise
        except OversizedError as error:
            raise self._too_large(key, error.args[0]) from error
        except Exception as error:
            what = f"could not be read {cause_of(error)}"
            if is_lasting(error):
                raise RunError(
                    f"{self._place(key)} {what}: give access to it (a store that may not be listed says so of"
                    " absent chunks, too), then the same command resumes."
                ) from error
            raise self._refusal(key, f"{what}; run again to resume") from error
        if key.endswith(METADATA):
            return value
        if value is None:
            self._absent.add(key)
            return None
        got = len(value)
        if got == 0:
            raise self._refusal(key, "is empty (0 bytes); restore it from a copy, then run again to resume")
        if got > self._most:
            raise self._too_large(key, got)
        if got != _asked(byte_range, got):
            raise self._part(key, byte_range, got)
        return value

    async def _read(self, key: str, prototype: Any, byte_range: Any) -> Any:
        """Read once; what is remote would else be tried six times six."""
        self._look(key, byte_range)
        if isinstance(self._store, RemoteStore):
            most = _MOST_METADATA if key.endswith(METADATA) else self._most
            return await self._store.get_once(key, prototype, byte_range, most)
        return await super().get(key, prototype, byte_range)

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
            raise self._too_large(key, size)
        if isinstance(byte_range, RangeByteRequest) and byte_range.end > max(size, 1):
            raise self._part(key, byte_range, max(size - byte_range.start, 0))

    def _part(self, key: str, byte_range: Any, got: int) -> SourceError:
        what = (
            f"gives {got} bytes where {_asked(byte_range, got)} were asked for (it is cut off, or its server"
            " knows no byte ranges); restore it from a copy, then run again to resume"
        )
        return self._refusal(key, what)

    def _too_large(self, key: str, size: int) -> SourceError:
        what = f"takes {size} bytes, {self._most} at most make sense; restore it from a copy"
        return self._refusal(key, what)

    def _refusal(self, key: str, what: str) -> SourceError:
        return SourceError(f"{self._place(key)} {what}.")

    def _place(self, key: str) -> str:
        """Say where a chunk lies; the last numbers of its key are its place."""
        place = [int(digits) for digits in re.findall(r"\d+", key)[-len(self._step) :]]
        corner = tuple(i * step for i, step in zip(place, self._step, strict=False))
        return f"The chunk {key} of SOURCE, from entry {corner} on,"


def _asked(byte_range: Any, got: int) -> int:
    """Return how many bytes a request asked for; `got` where it set no number."""
    if isinstance(byte_range, RangeByteRequest):
        return byte_range.end - byte_range.start
    return byte_range.suffix if isinstance(byte_range, SuffixByteRequest) else got
