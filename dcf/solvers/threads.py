"""One BLAS thread in every task and solve.

Dask's workers are the parallelism, and sums split over a varying number of threads would change
their bits.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits

_lock = threading.Lock()
_inside = 0
_limits: threadpool_limits | None = None


@contextmanager
def single_blas_thread() -> Iterator[None]:
    """Hold BLAS of this process to one thread while any task is inside.

    The limit belongs to the process, so tasks that share one count themselves in and out.
    """
    global _inside, _limits
    with _lock:
        if _inside == 0:
            _limits = threadpool_limits(1, user_api="blas")
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0 and _limits is not None:
                _limits.restore_original_limits()
                _limits = None
