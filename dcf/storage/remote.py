"""A store reached by a URL: asked again where it fails for the moment, and never believed by hearsay.

The clients' own retries are off, for they would multiply with these; so are their caches of listings, which
do not know what another process wrote. Credentials are looked for where these clients look: the environment,
the profiles of ~/.aws, the machine's own.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import importlib
import logging
import os
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from zarr.core.sync import sync
from zarr.storage import FsspecStore

from dcf.errors import DcfError, RunError, UsageError
from dcf.urls import conceal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

CLIENT_BYTES = 40 << 20  # resident with s3fs, botocore and its tables for S3; measured 36 MiB
_S3 = ("s3://", "s3a://")
_HTTP = ("http://", "https://")
_SECONDS_BETWEEN_TRIES = (0.1, 0.2, 0.4, 0.8, 1.6)
_SILENT_SECONDS = 30.0  # without a byte of an answer, and the request is made again
# By name: the packages that they come from need not be there. What is not named here may pass.
_LASTING = (
    "FileNotFoundError",
    "PermissionError",
    "NoCredentialsError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "ParamValidationError",
    "UnauthorizedSSOTokenError",
)
_MAY_PASS = (408, 425, 429)
_LOG = logging.getLogger(__name__)

Answer = TypeVar("Answer")


async def tried(what: str, action: Callable[[], Awaitable[Answer]]) -> Answer:
    """Return the answer of `action`, made up to six times; let the last error pass, a lasting one at once."""
    for wait in (*_SECONDS_BETWEEN_TRIES, None):
        try:
            return await action()
        except (DcfError, MemoryError):
            raise
        except Exception as error:
            if wait is None or is_lasting(error):
                raise
            _LOG.warning("%s: %s; trying again in %s s", conceal(what), _words_of(error), wait)
            await asyncio.sleep(wait)
    raise AssertionError


def is_lasting(error: Exception) -> bool:
    """Return whether the same request would meet the same error: credentials, not weather."""
    status = getattr(error, "status", None)
    refused = isinstance(status, int) and 400 <= status < 500 and status not in _MAY_PASS
    return refused or any(kind.__name__ in _LASTING for kind in type(error).__mro__)


def cause_of(error: Exception) -> str:
    """Return how often an error was met, and in parentheses what it is, without secrets."""
    often = "" if is_lasting(error) else f"after {len(_SECONDS_BETWEEN_TRIES) + 1} tries "
    return f"{often}({_words_of(error)})"


def _words_of(error: Exception) -> str:
    return conceal(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".rstrip(".: "))


class RemoteStore(FsspecStore):
    """What lies at a URL, as `name`: SOURCE, which is only read, or OUT.

    A value is written whole or not at all: by one PUT, or parts that count when the last has come. Where
    OUT fails for good, every method raises `RunError`; of SOURCE the errors are the client's own, for
    who reads knows better what to say. Raises `UsageError` where nothing here can reach such a URL.
    """

    def __init__(self, url: str, name: str, read_only: bool = False) -> None:
        if url.startswith(_S3) and "@" in url.split("/")[2]:
            raise UsageError(
                f"{name} {url} holds a secret; give credentials by the environment or ~/.aws instead."
            )
        try:
            whole = _connected(url, os.getpid(), _environment())
        except ImportError as error:
            raise UsageError(
                f"{name} {url} needs the extra: pip install '.[cloud]' in dcf's source ({error})."
            ) from error
        except ValueError as error:
            raise UsageError(f"{name} {url} cannot be opened: {error}.") from error
        super().__init__(whole.fs, read_only, whole.path)
        self.url = url
        self.name = name

    def __reduce__(self) -> tuple[type[RemoteStore], tuple[str, str, bool]]:
        """Cross to another process as a URL, which connects there, with the credentials there."""
        return type(self), (self.url, self.name, self.read_only)

    def with_read_only(self, read_only: bool = False) -> RemoteStore:
        """Return the same store, writable or not."""
        return type(self)(self.url, self.name, read_only)

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        """Return the value under `key`, or a part of it; None where there is none."""
        return await self._patiently("read", key, partial(super().get, key, prototype, byte_range))

    async def get_once(self, key: str, prototype: Any, byte_range: Any, most: int) -> Any:
        """Do as `get` does, but try once, and refuse an S3 object of more than `most` bytes unread.

        Raises `OversizedError`, and whatever the client does.
        """
        if byte_range is not None or not self.url.startswith(_S3):
            return await super().get(key, prototype, byte_range)
        fs: Any = self.fs
        bucket, path, _ = fs.split_path(f"{self.path}/{key}")
        try:
            answer = await fs._call_s3("get_object", Bucket=bucket, Key=path)
        except self.allowed_exceptions:
            return None
        body = answer["Body"]
        try:
            if answer["ContentLength"] > most:
                raise OversizedError(answer["ContentLength"])
            return prototype.buffer.from_bytes(await body.read())
        finally:
            body.close()

    async def exists(self, key: str) -> bool:
        """Return whether there is a value under `key`."""
        return await self._patiently("read", key, partial(super().exists, key))

    async def set(self, key: str, value: Any, byte_range: Any = None) -> None:
        """Store a value under `key`."""
        await self._patiently("written", key, partial(super().set, key, value))

    async def delete(self, key: str) -> None:
        """Delete the value under `key`, if there is one."""
        await self._patiently("written", key, partial(super().delete, key))

    async def delete_dir(self, prefix: str) -> None:
        """Delete what lies below `prefix`, and look whether it is gone: S3 does not say what it kept."""
        emptied, listed = super().delete_dir, super().list_prefix

        async def left() -> Sequence[str]:  # some servers list a folder that is empty as itself
            return [key async for key in listed(prefix) if key != prefix]

        async def delete() -> None:
            if await left():
                await emptied(prefix)
                if kept := await left():
                    raise OSError(f"{len(kept)} objects below were not deleted, {kept[0]} for one")

        await self._patiently("emptied", prefix, delete)

    async def list(self) -> AsyncIterator[str]:
        """Yield all keys."""
        async for key in self._listed("", super().list):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yield the keys below `prefix`."""
        async for key in self._listed(prefix, partial(super().list_prefix, prefix)):
            yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names directly below `prefix`."""
        async for key in self._listed(prefix, partial(super().list_dir, prefix)):
            yield key

    def names(self) -> Sequence[str]:
        """Return the names of what lies directly in the store."""

        async def listed() -> list[str]:
            return [name async for name in self.list_dir("") if name]

        return sync(listed())

    async def _listed(self, prefix: str, listing: Callable[[], AsyncIterator[str]]) -> AsyncIterator[str]:
        async def collected() -> list[str]:
            return [key async for key in listing()]

        for key in await self._patiently("listed", prefix, collected):
            yield key

    async def _patiently(self, done: str, key: str, action: Callable[[], Awaitable[Answer]]) -> Answer:
        try:
            return await tried(f"{key} of {self.name} {self.url}", action)
        except (DcfError, MemoryError):
            raise
        except Exception as error:
            if self.name == "SOURCE":
                raise
            then = "the same command resumes" if done == "written" else "give the same command again"
            raise RunError(
                f"OUT {self.url} cannot be {done}, at {key or 'its root'}, {cause_of(error)};"
                f" mend the store or the access to it, then {then}."
            ) from error


class OversizedError(Exception):
    """An object is larger than makes sense; its first argument says by how many bytes."""


def refuse_read_only(out: str) -> None:
    """Raise `UsageError` for an OUT that nobody can write to."""
    if out.startswith(_HTTP):
        raise UsageError(f"OUT {out} cannot be written by HTTP; give a path or s3://bucket/name.")


def _environment() -> tuple[tuple[str, str], ...]:
    """Return what of the environment says where S3 is and who asks: a change of it is another connection."""
    return tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))


@functools.cache
def _connected(url: str, process: int, environment: tuple[tuple[str, str], ...]) -> FsspecStore:
    """Return the client of a URL, one for each process: connections do not outlive a fork."""
    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    if url.startswith(_HTTP):
        timeout = importlib.import_module("aiohttp").ClientTimeout(
            total=None, sock_connect=_SILENT_SECONDS, sock_read=_SILENT_SECONDS
        )
        options["client_kwargs"] = {"timeout": timeout}
    store = FsspecStore.from_url(url, options)
    if url.startswith(_S3):
        fs: Any = store.fs
        fs.retries = 1
        fs.max_concurrency = 1  # with more it asks for the size of an object before it reads it
        fs.read_timeout = _SILENT_SECONDS
        fs.config_kwargs = {**fs.config_kwargs, "retries": {"total_max_attempts": 1}}
    atexit.register(_close, store.fs, process)
    return store


def _close(fs: Any, process: int) -> None:
    """Close a client's connections, if they are this process's, or asyncio would complain of them."""
    session = getattr(fs, "_s3", None) or getattr(fs, "_session", None)
    if session is not None and process == os.getpid():
        sync(session.close())
