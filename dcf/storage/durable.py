"""A folder as a store whose writes last: whole or not at all, on the disk before they count."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zarr.storage import LocalStore

from dcf.errors import RunError, UsageError
from dcf.storage.remote import RemoteStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PARTIAL = ".partial"
_FIRST_WRITE = re.compile(r"zarr\.json\.[0-9a-f]{32}\.partial")
# Writing waits for the disk; in one of Zarr's threads, decoding would wait with it.
_WRITERS = ThreadPoolExecutor(4)
_log = logging.getLogger(__name__)


class DurableStore(LocalStore):
    """A local store that flushes every value to the disk before it takes the place of the old one.

    Zarr's own writes whole files or none, but a machine that loses power may keep the name of a file
    and not its content. Unlike Zarr's it never makes the folder anew: one that is gone was lost.
    """

    async def _open(self, *, mode: Any = None) -> None:
        """Open the folder. Raises `FileNotFoundError` where there is none."""
        self._ensure_open_sync()

    def _ensure_open_sync(self) -> None:
        if not self.root.exists():
            raise FileNotFoundError(f"{self.root} does not exist")
        self._is_open = True

    async def set(self, key: str, value: Any) -> None:
        """Store a value under `key`. Raises `RunError` where the folder is gone, full or not writable."""
        await asyncio.get_running_loop().run_in_executor(_WRITERS, self.set_sync, key, value)

    def set_sync(self, key: str, value: Any) -> None:
        """Store a value under `key`. Raises `RunError` where the folder is gone, full or not writable."""
        self._check_writable()
        path = self.root / key
        if not self.root.exists():
            raise RunError(
                f"OUT {self.root} has vanished; mount or restore it, then the same command resumes."
            )
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}{_PARTIAL}")
        try:
            made = _make_folders(path.parent)
            with partial.open("wb") as file:
                file.write(value.as_buffer_like())
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
            for folder in {path.parent, *(new.parent for new in made)}:
                _flush_folder(folder)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise RunError(
                f"OUT {self.root} cannot be written ({error.strerror or error}, at {key}); finished blocks"
                " are kept: make room or give access, then the same command resumes."
            ) from error


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder and what leads to it; return those that were not there."""
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return new


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_local(out: str) -> bool:
    """Return whether `out` is a path, not a URL."""
    return "://" not in out


def store_of(out: str) -> DurableStore | RemoteStore:
    """Return the store at `out`, a path or a URL. Raises `UsageError` for a URL that is out of reach."""
    return DurableStore(out) if is_local(out) else RemoteStore(out, "OUT")


def names_in(out: str) -> Sequence[str]:
    """Return the names of what lies directly in an OUT that is there, or below its URL."""
    return os.listdir(out) if is_local(out) else RemoteStore(out, "OUT").names()


@contextmanager
def held(out: str) -> Iterator[None]:
    """Hold `out` for this run alone; a folder that is not there is made.

    The lock is the operating system's on the folder itself, so it ends with the process, however that
    ends. A URL is not locked. Raises `RunError` where another run holds it or it cannot be made,
    `UsageError` where it is a file.
    """
    if not is_local(out):
        yield
        return
    made = not Path(out).exists()
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
        descriptor = os.open(out, os.O_RDONLY)
    except FileExistsError as error:
        raise UsageError(f"OUT {out} exists and is no run of dcf; choose another place.") from error
    except OSError as error:
        raise RunError(f"OUT {out} cannot be written: {error}.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise RunError(
            f"OUT {out} is locked by another run that is still going; wait for it or end it,"
            " or choose another OUT."
        ) from error
    except OSError as error:  # a file system without locks
        _log.warning("OUT %s cannot be locked (%s): let no other run use it meanwhile.", out, error)
    try:
        yield
    finally:
        if made:
            with suppress(OSError):  # it is empty only where nothing came of the run
                os.rmdir(out)
        os.close(descriptor)


def is_held(out: str) -> bool:
    """Return whether a run is at work on `out`, as far as a lock can tell."""
    if not is_local(out):
        return False
    descriptor = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def unborn(out: str) -> bool:
    """Return whether a folder holds nothing, or but the first write of a run that was killed in it."""
    place = Path(out)
    return place.is_dir() and all(_FIRST_WRITE.fullmatch(inside.name) for inside in place.iterdir())


def sweep(out: str) -> None:
    """Remove what writers that were killed left half written of a run at `out`, which is held.

    Raises `UsageError` where it holds a symbolic link: writes would leave the folder.
    """
    if not is_local(out):
        return
    for folder, folders, files in os.walk(Path(out).resolve()):
        for name in (*folders, *files):
            place = Path(folder, name)
            if place.is_symlink():
                raise UsageError(
                    f"OUT {out} holds a symbolic link, {place}, through which dcf does not write; remove it."
                )
            if name.endswith(_PARTIAL) and name in files:
                place.unlink(missing_ok=True)
