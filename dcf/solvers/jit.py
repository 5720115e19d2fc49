"""The one way in which dcf compiles a kernel."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile `function` with numba: without the GIL, cached on disk, sums free to vectorise.

    Reassociation is fixed at compile time, so a kernel gives the same bits on every call on
    one type of CPU; NaN and Inf keep their meaning.
    """
    jit = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract"})
    return cast("F", jit(function))
