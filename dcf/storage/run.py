"""The run group: a Zarr v3 group that holds a run while it grows and when it is done.

``attrs["dcf"]`` is the record; ``W`` and ``H`` are the result; ``stages/`` holds what lies
between (sketch, factors of the sketch, recovered columns, the journal of each pass). Every
array is protected by crc32c.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import uuid
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import zarr
from zarr.errors import BaseZarrError

from dcf.errors import DcfError, RunError, UsageError
from dcf.sizes import mib
from dcf.storage.arrays import Kept, create_array, open_member
from dcf.storage.durable import is_local, names_in, store_of, sweep, unborn
from dcf.storage.guard import size_of
from dcf.storage.journal import BlockJournal
from dcf.storage.record import Record, refuse_damage, refuse_other_identity

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dcf.types import Arrays, RowStore

_log = logging.getLogger(__name__)


# What a run makes; of these, folders that are no members of the group are remains of a deletion.
_OURS = re.compile(r"stages|driver|W|H|mean|weights|factor_\d+")


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
        if group is not None:
            found = dict(group.attrs).get("dcf")
            if not isinstance(found, dict):
                raise UsageError(f"OUT {out} exists and is no run of dcf; choose another place.")
            sweep(out)
            if not overwrite:
                refuse_damage(out, found)
                found = Record(found, out)
                refuse_other_identity(out, found, record)
                if "emptying" not in found:
                    return cls(group, out)
        elif is_local(out) and Path(out).exists():
            if not unborn(out):
                raise UsageError(f"OUT {out} exists and is no run of dcf; choose another place.")
            sweep(out)
        elif not is_local(out) and names_in(out):
            raise UsageError(f"OUT {out} exists and is no run of dcf; choose another place.")
        try:
            if is_local(out):
                Path(out).mkdir(parents=True, exist_ok=True)
                _refuse_narrow_place(out, record["plan"]["out_bytes"])
            # Mode "a" deletes nothing; what an older run left goes member by member. A run that was killed
            # while it did is known by its mark, one that was never recorded would be taken for foreign.
            begun = {**record, "run": uuid.uuid4().hex}
            marked: dict[str, Any] = {"dcf": {**begun, "emptying": True}}
            group = zarr.open_group(store_of(out), mode="a", zarr_format=3, attributes=marked)
            group.attrs.update(marked)
            run = cls(group, out)
            for name in filter(_OURS.fullmatch, names_in(out)):
                run.drop(name)
            with warnings.catch_warnings(action="ignore"):  # Zarr's, of folders that are not its own
                members = list(group)
            for name in members:
                run.drop(name)
            group.attrs["dcf"] = begun
        except OSError as error:
            raise RunError(f"OUT {out} cannot be written: {error}.") from error
        return cls(group, out)

    @classmethod
    def open(cls, out: str, mode: str = "r+") -> RunGroup:
        """Open a run that exists. Raises `UsageError` where `out` is none."""
        group = _existing(out, mode)
        found = None if group is None else dict(group.attrs).get("dcf")
        if group is None or not isinstance(found, dict):
            raise UsageError(f"OUT {out} holds no run of dcf.")
        if mode != "r":
            sweep(out)
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
        with warnings.catch_warnings(action="ignore"):  # Zarr's, of what is half deleted
            passes = list(cast("Any", self.group["stages"]).groups())
        return [
            (name.replace("_", " "), int(group["done"].nchunks_initialized), int(group["done"].nchunks))
            for name, group in passes
            if "done" in group
        ]

    def result_bytes(self) -> int:
        """Return the bytes of the factors and whatever else the run leaves."""
        return sum(int(array.nbytes) for _, array in self.group.arrays())

    def drop(self, name: str) -> None:
        """Delete an array or group of the run, if it is there; of a journal the marks go first."""
        for member in (f"{name}/done", name):  # what a killed run half deleted is no member any more
            if not is_local(self.url):
                del self.group[member]
            elif Path(self.url, member).exists():
                shutil.rmtree(Path(self.url, member))

    def journal(
        self,
        name: str,
        blocks: int,
        like: Arrays,
        chunks: dict[str, tuple[int, ...]] | None = None,
        rows: RowStore | None = None,
        rows_at_once: int = 0,
        behind: bool = False,
        padded: tuple[str, ...] = (),
    ) -> BlockJournal:
        """Return the journal of a pass, made on first use.

        `like` holds arrays shaped and typed as those of a block; `chunks` splits the larger ones; `rows`
        is the n-sized array that the blocks write beside, `rows_at_once` a chunk of it; `behind` says
        whether a block may be saved while the next is made; `padded` names arrays of which chunks of zeros
        need not be written.
        """
        record = self.record
        path, run = f"stages/{name}", f"{record['run']} {record.get('exponent', 0)}"
        if all(f"{path}/{key}" in self.group for key in (*like, "done")):
            return BlockJournal(cast("zarr.Group", self.group[path]), run, rows, rows_at_once, behind, padded)
        group = self.group.require_group(path)
        for key, values in like.items():
            chunk = (chunks or {}).get(key, values.shape)
            create_array(group, key, (blocks, *values.shape), (1, *(max(1, n) for n in chunk)), values.dtype)
        create_array(group, "done", (blocks,), (1,), "uint64")
        return BlockJournal(group, run, rows, rows_at_once, behind, padded)


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
        return zarr.open_group(store_of(out), mode=cast("Any", mode), zarr_format=3)
    except DcfError:
        raise
    except (FileNotFoundError, BaseZarrError):
        return None
    except OSError as error:
        raise RunError(f"OUT {out} cannot be opened: {error}.") from error
    except Exception as error:
        advice = "restore its zarr.json, or choose another OUT" if is_local(out) else "choose another OUT"
        cause = f"{type(error).__name__}: {error!s:.200}"
        raise RunError(f"OUT {out} cannot be opened ({cause}); {advice}.") from error


def _refuse_narrow_place(out: str, need: int) -> None:
    """Raise `RunError` where a new run at `out` would fill the disk; what is there is replaced."""
    free = shutil.disk_usage(out).free + sum(f.stat().st_size for f in Path(out).rglob("*") if f.is_file())
    if need > free:
        raise RunError(
            f"OUT {out} needs {mib(need)} while the run is going, {mib(free)} are free there: make room, or"
            " choose another OUT."
        )
