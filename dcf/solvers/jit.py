"""The one way in which dcf compiles a kernel."""

import logging
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])
_log = logging.getLogger(__name__)


def kernel(function: F) -> F:
    """Compile `function` with numba: without the GIL, cached on disk, sums free to vectorise.

    Reassociation is fixed at compile time, so a kernel gives the same bits on every call on
    one type of CPU; NaN and Inf keep their meaning.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract"}}
    try:
        return cast("F", numba.njit(cache=True, **options)(function))
    except RuntimeError:  # neither beside the code nor in the user's own folder can anything be written
        _tell()
        return cast("F", numba.njit(**options)(function))


@cache
def _tell() -> None:
    _log.warning(
        "Compiled kernels cannot be kept, and every process compiles its own: set NUMBA_CACHE_DIR to a"
        " folder that can be written."
    )
