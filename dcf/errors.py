"""The few exceptions of dcf, each with the exit code of the command line."""

from __future__ import annotations

from typing import ClassVar

from dcf.urls import conceal


class DcfError(Exception):
    """Base of every error that dcf raises on purpose: one clear sentence, no traceback needed."""

    exit_code: ClassVar[int] = 1

    def __init__(self, sentence: str) -> None:
        super().__init__(conceal(sentence))


class RunError(DcfError, RuntimeError):
    """The run group cannot be written or read, or the workers are lost for good."""


class Stopped(DcfError):
    """A run was told to stop from outside: by dcf cancel, or because the time of its job is up."""

    exit_code = 143


class UsageError(DcfError, ValueError):
    """A bad option or path: the request itself makes no sense."""

    exit_code = 2


class SourceError(DcfError, ValueError):
    """The numbers in the source cannot be factorized: dtype, NaN, negatives, a damaged chunk."""

    exit_code = 3


class EntryError(SourceError):
    """An entry of the source is not a number that can be factorized; the data have to change."""


class BudgetError(DcfError, MemoryError):
    """The plan does not fit the memory budget; raised before a chunk is read."""

    exit_code = 4


class ScaleError(DcfError):
    """Squares of entries leave the range of the numbers: the pass starts again with the data divided."""

    def __init__(self, largest: float) -> None:
        super().__init__(f"Entries as large as {largest:.3g} have no squares.")
        self.largest = largest

    def __reduce__(self) -> tuple[type[ScaleError], tuple[float]]:
        """Cross to another process with the entry, not the sentence."""
        return type(self), (self.largest,)
