"""Whether a machine can read a source and write a run, by doing a little of both."""

from __future__ import annotations

import os
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path

import zarr

from dcf.storage.durable import is_local, store_of
from dcf.storage.source import open_source


def read_corner(source: str) -> str:
    """Read the first entry of a source, and so one chunk; return what went wrong, empty for nothing."""
    try:
        array = open_source(source, tensor=_is_tensor(source))
        array[(slice(0, 1),) * array.ndim]
    except Exception as error:
        return f"{type(error).__name__}: {error}" if not str(error).startswith("SOURCE") else str(error)
    return ""


def _is_tensor(source: str) -> bool:
    return len(zarr.open(store=source, mode="r").shape) > 2  # type: ignore[union-attr]


def write_beside(out: str) -> str:
    """Write a little where a run is to be, and take it away; return what went wrong, empty for nothing."""
    try:
        if is_local(out):
            place = next(folder for folder in (Path(out), *Path(out).parents) if folder.is_dir())
            with tempfile.NamedTemporaryFile(dir=place, prefix=".dcf-check-") as file:
                file.write(b"dcf")
                file.flush()
                os.fsync(file.fileno())
            return ""
        name = f".dcf-check-{uuid.uuid4().hex}"
        group = zarr.open_group(store_of(f"{out.rstrip('/')}/{name}"), mode="w", zarr_format=3)
        with suppress(Exception):  # it was written, which is what was asked
            group.store.delete_dir("") if group.store.supports_deletes else None
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
