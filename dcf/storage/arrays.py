"""The arrays of a run: protected by crc32c, written whole, and seen as the factors that they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from dcf.errors import DcfError, RunError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

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
    """Open an array of a run: its chunks of zeros, too, will be written, for an absent one is a lost one.

    Raises `RunError` where it is not there any more.
    """
    try:
        return cast("zarr.Array[Any]", group[name]).with_config(_WRITE_ZEROS)
    except KeyError as error:
        raise RunError(
            f"OUT has vanished or lost its {group.path}/{name}; mount or restore it, then the same command"
            " resumes."
        ) from error


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


def allocate_plain(path: str | Path, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str) -> Any:
    """Create an uncompressed Zarr array with crc32c at `path`, replacing one that is there."""
    return zarr.create_array(
        str(path), shape=shape, chunks=chunks, dtype=dtype, compressors=[Crc32cCodec()], overwrite=True
    )
