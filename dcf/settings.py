"""What a user asks for, checked once."""

from __future__ import annotations

import operator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from dask.utils import parse_bytes

from dcf.errors import UsageError

_MOST = 10**6  # passes, restarts, sweeps: more would never end
_WHOLE = ("rank", "sketch_size", "nnz_per_column", "restarts", "max_iter", "seed")


def _whole(name: str, value: Any) -> int:
    """Return a whole number of any integer type as an int."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        return operator.index(value)
    except TypeError:
        option = "--" + name.replace("_", "-")
        raise UsageError(f"{option} is {value!r}; it must be a whole number.") from None


METHODS = ("auto", "factorize-recover", "recover-factorize", "range", "rows", "full")
# What each decomposition can be found by: recovery needs a W that may be sparse, rows a fit of their own.
METHODS_OF = {
    "nmf": METHODS,
    "cp": METHODS,
    "spca": METHODS,
    "semi-nmf": ("auto", "range", "rows", "full"),
    "svd": ("auto", "range", "full"),
}
IN_MEMORY = ("full", "recover-factorize")


@dataclass(frozen=True)
class Settings:
    """What a run computes. Two runs with equal settings on one source give the same bits."""

    rank: int
    """r, the number of components"""
    decomposition: str = "nmf"
    """one of METHODS_OF: what W and H may be"""
    method: str = "auto"
    """one of METHODS"""
    refine: int = 1
    """exact passes after the factorization"""
    axis: str = "longest"
    """the compressed axis of the source: longest, or its number; of a tensor several, comma-separated"""
    sketch_size: int | None = None
    """rows of the one-sided sketch or of the row sample; None lets the planner choose"""
    nnz_per_column: int = 5
    """p, ones per column of P"""
    restarts: int = 4
    """random starts besides the first"""
    tol: float | None = None
    """KKT ratio at which a factorization has converged; None lets each take its own"""
    max_iter: int = 2000
    """most sweeps of a factorization"""
    signed: bool = False
    """whether the factors of a CP decomposition may have any sign"""
    center: str = "no"
    """of an SVD: no, or columns or rows, whose means are taken out first (PCA)"""
    negatives: str = "error"
    """error or allow"""
    missing_chunks: str = "report"
    """report or error"""
    resketch: bool = False
    """whether to take one more pass with a larger sketch where the evidence asks for one"""
    seed: int = 0
    """of every random number of the run"""

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("--rank", self.rank, 1, None),
            ("--refine", self.refine, 0, _MOST),
            ("--nnz-per-column", self.nnz_per_column, 1, None),
            ("--restarts", self.restarts, 0, _MOST),
            ("--max-iter", self.max_iter, 1, _MOST),
            ("--seed", self.seed, 0, None),
            ("--sketch-size", 1 if self.sketch_size is None else self.sketch_size, 1, None),
        ):
            if value < least:
                raise UsageError(f"{name} is {value!r}; it must be a whole number from {least} on.")
            if most is not None and value > most:
                raise UsageError(f"{name} is {value!r}; it must be at most {most}.")
        if self.seed >= 2**63:
            raise UsageError(f"--seed is {self.seed}; it must lie below 2**63.")
        if self.tol is not None and (not isinstance(self.tol, float | int) or not 0 <= self.tol < 1):
            raise UsageError(f"--tol is {self.tol}; it must lie in [0, 1).")
        for name, word, allowed in (
            ("decomposition", self.decomposition, tuple(METHODS_OF)),
            ("--method", self.method, METHODS_OF.get(self.decomposition, METHODS)),
            ("--center", self.center, ("no", "columns", "rows")),
            ("--negatives", self.negatives, ("error", "allow")),
            ("--missing-chunks", self.missing_chunks, ("report", "error")),
        ):
            if word not in allowed:
                raise UsageError(f"{name} is {word!r}; it must be one of {', '.join(allowed)}.")
        if self.center != "no" and self.decomposition != "svd":
            raise UsageError(
                f"--center belongs to svd (PCA); {self.decomposition} takes the data as they are."
            )
        if self.signed and self.decomposition != "cp":
            raise UsageError(f"--signed belongs to cp; the signs of {self.decomposition} are its own.")
        self._check_axes()
        if self.method == "rows" and self.refine == 0:
            raise UsageError(
                "--method rows finds W in a refine pass; use --refine 1, or --method range to do without."
            )

    def _check_axes(self) -> None:
        several = self.decomposition == "cp"
        if self.axis != "longest" and not (
            all(part.isdecimal() and len(part) < 10 for part in self.axis.split(","))
            if several
            else self.axis in ("0", "1")
        ):
            allowed = "longest, or numbers such as 0 or 0,2" if several else "longest, 0 or 1"
            raise UsageError(f"--axis is {self.axis!r}; it must be {allowed}.")

    @property
    def nonnegative(self) -> bool:
        """Whether every factor is at least zero."""
        return self.decomposition == "nmf" or (self.decomposition == "cp" and not self.signed)

    @classmethod
    def of(
        cls,
        *,
        decomposition: str = "nmf",
        refine: int | None = None,
        method: str = "auto",
        negatives: str | None = None,
        **others: Any,
    ) -> Settings:
        """Return settings with the defaults of what is asked for.

        One exact pass, none where the factorization is in memory; negative entries are an error where
        all factors are nonnegative, and data like all other elsewhere.
        """
        passes = (0 if method in IN_MEMORY else 1) if refine is None else refine
        numbers = {k: _whole(k, v) for k, v in others.items() if k in _WHOLE and v is not None}
        words = {"decomposition": decomposition, "method": method, "negatives": negatives or "allow"}
        made = cls(refine=_whole("refine", passes), **{**words, **others, **numbers})
        return made if negatives or not made.nonnegative else replace(made, negatives="error")

    def record(self) -> dict[str, Any]:
        """Return the settings as JSON."""
        return asdict(self)


def parse_memory(memory: str | int, option: str = "--memory") -> int:
    """Return a size such as 512MiB in bytes. Raises `UsageError` for what is none."""
    try:
        if not any(map(str.isdigit, str(memory))):  # Dask reads an empty one as a byte
            raise ValueError
        size = int(parse_bytes(memory))
    except (ValueError, AttributeError, OverflowError) as error:
        raise UsageError(f"{option} is {memory!r}; give a size such as 512MiB or 2GiB.") from error
    if size < 1:
        raise UsageError(f"{option} is {memory!r}; it must be positive.")
    if size >= 2**63:
        raise UsageError(f"{option} is {memory!r}, more than any machine has.")
    return size
