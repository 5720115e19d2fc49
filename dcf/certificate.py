"""What may be believed of a result: a verdict in one plain sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dcf.types import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dcf.recovery.columns import ColumnReport

# Sparse recovery needs about this many rows of the sketch for a nonzero of a column (DESIGN.md).
ROWS_PER_NONZERO = 10


def _unconverged(factorization: dict[str, Any]) -> str:
    status = factorization["status"]
    if status == Status.converged.value:
        return ""
    return f" The factorization ended as {status}. {factorization['remedy']}"


def judge_exact(factorization: dict[str, Any]) -> dict[str, str]:
    """Return the verdict on a pair whose error was summed over every entry."""
    why = "The error is exact, summed over every entry of the data." + _unconverged(factorization)
    return {"verdict": "trusted", "why": why}


def judge_recovery(
    factorization: dict[str, Any], reports: Sequence[ColumnReport], sketch_size: int
) -> dict[str, str]:
    """Return the verdict on a factor that was recovered from the sketch alone.

    Recovery can be believed where its columns have few enough nonzeros for the sketch size and
    every solve converged.
    """
    widest = max(report.support for report in reports)
    failed = [k for k, report in enumerate(reports) if report.status is not Status.converged]
    if widest * ROWS_PER_NONZERO > sketch_size:
        why = (
            f"A recovered component has {widest} nonzeros; a sketch of {sketch_size} rows can carry about"
            f" {sketch_size // ROWS_PER_NONZERO}. The factors may be wrong even where the error looks small:"
            " use --method rows, or --refine 1."
        )
        return {"verdict": "doubtful", "why": why}
    if failed:
        why = (
            f"The recovery of {len(failed)} components did not converge: the sketch is too small for them."
            " Use --method rows, or a larger --sketch-size."
        )
        return {"verdict": "doubtful", "why": why}
    why = (
        f"Every component is sparse enough (at most {widest} nonzeros) for a sketch of {sketch_size} rows,"
        " and every recovery converged; the error is an estimate." + _unconverged(factorization)
    )
    return {"verdict": "trusted", "why": why}
