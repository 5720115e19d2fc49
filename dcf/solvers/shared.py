"""Settings of a whole process, held while any of its tasks needs them."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

from dcf.errors import DcfError

T = TypeVar("T")
R = TypeVar("R")


class SharedSetting:
    """A setting that the first task in makes and the last one out undoes.

    Tasks that share a process overlap: each restoring what it found would leave the setting to
    chance. `make` sets it and returns what undoes it.
    """

    def __init__(self, make: Callable[..., Callable[[], Any]]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._inside = 0
        self._undo: Callable[[], Any] = lambda: None

    @contextmanager
    def held(self, *values: Any) -> Iterator[None]:
        """Hold the setting; the values of the first task in count."""
        with self._lock:
            if self._inside == 0:
                self._undo = self._make(*values)
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    self._undo()


# Dask's workers are the parallelism, and sums split over a varying number of BLAS threads would
# change their bits.
_single_thread = SharedSetting(lambda: threadpool_limits(1, user_api="blas").restore_original_limits)
single_blas_thread = _single_thread.held


def in_threads(threads: int, function: Callable[[T], R], values: Iterable[T]) -> list[R]:
    """Return the results in order, several made at once by what leaves the GIL, as kernels and BLAS do.

    Where it is interrupted, threads that compute something still are not waited for: nobody wants it.
    """
    pool = ThreadPoolExecutor(threads)
    try:
        return list(pool.map(function, values))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def block_task() -> Iterator[None]:
    """Be a block task: one BLAS thread, and errors of dcf that leave bare.

    What caused them may not pickle, and Dask would then send their text alone.
    """
    try:
        with single_blas_thread():
            yield
    except DcfError as error:
        error.__cause__ = error.__context__ = None
        raise
