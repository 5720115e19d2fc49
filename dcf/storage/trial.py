"""Whether a machine can read a source and write a run, by doing a little of both."""

from __future__ import annotations

import os
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import zarr
from zarr.core.sync import sync

from dcf.errors import DcfError, UsageError
from dcf.storage.durable import is_local, store_of
from dcf.storage.source import open_source

_NAME = ".dcf-check-"


def read_corner(source: str) -> str:
    """Read the first entry of a source, and so one chunk; return what went wrong, empty for nothing."""
    try:
        array = _opened(source)
        array[(slice(0, 1),) * array.ndim]
    except Exception as error:
        return str(error) if isinstance(error, DcfError) else f"{type(error).__name__}: {error}"
    return ""


def _opened(source: str) -> zarr.Array[Any]:
    try:
        return open_source(source)
    except UsageError as error:
        with suppress(UsageError):
            return open_source(source, tensor=True)
        raise error


def write_beside(out: str) -> str:
    """Write a little where a run is to be, and take it away; return what went wrong, empty for nothing."""
    try:
        if is_local(out):
            place = next(folder for folder in (Path(out), *Path(out).parents) if folder.is_dir())
            with tempfile.NamedTemporaryFile(dir=place, prefix=_NAME) as file:
                file.write(b"dcf")
                file.flush()
                os.fsync(file.fileno())
        else:
            store = store_of(f"{out.rstrip('/')}/{_NAME}{uuid.uuid4().hex}")
            zarr.open_group(store, mode="w", zarr_format=3)
            sync(store.delete("zarr.json"))
    except Exception as error:
        return str(error) if isinstance(error, DcfError) else f"{type(error).__name__}: {error}"
    return ""
