"""Loaded by each worker process of an embedded cluster: when it ends, it ends at once.

All it made lies in the run group by then; taking numba and a hundred modules apart would only make
the user wait.
"""

import atexit
import os
from typing import Any


def dask_setup(worker: Any) -> None:
    """Register an exit that skips the interpreter's own; Dask calls this in the new worker."""
    atexit.register(os._exit, 0)
