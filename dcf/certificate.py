"""What may be believed of a result, and why it was made the way it was: plain sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dcf.plan import Plan
    from dcf.settings import Settings
    from dcf.types import Certificate

INSTEAD = "--method rows with --refine 1, or --method range where one pass must do"
BY_NAME = "asked for by name"
# Sparse recovery needs about this many rows of the sketch for a nonzero of a column (DESIGN.md).
ROWS_PER_NONZERO = 10
# Components that other starts find again with at least this cosine are determined by the data (DESIGN.md).
STABLE = 0.98


def explain(
    method: str, contenders: tuple[str, ...], errors: dict[str, float], settings: Settings, plan: Plan
) -> str:
    """Say why `method` was taken among the contenders, by their errors on the same evidence."""
    if settings.method != "auto":
        return BY_NAME
    if len(contenders) == 1:
        return f"all {plan.rows} rows fit into the sample, and an exact pass then finds W"
    ways = {
        "rows": f"the sample of {plan.sample_size} rows",
        "range": "the range sketch of all rows",
        "factorize-recover": "sparse recovery from the one-sided sketch",
    }
    where = "rows that were kept out of the fit" if settings.refine else "the data, by the probe's estimate"
    said = " and ".join(f"{ways[m]} explains up to an error of {errors[m]:.4g}" for m in contenders)
    return f"{said} {where}; the better was taken"


def judge(
    method: str,
    certificate: Certificate,
    components: list[dict[str, Any]],
    record: dict[str, Any],
    plan: Plan,
) -> dict[str, str]:
    """Return the verdict on a finished pair and why."""
    factorization = record["candidates"][method]
    doubts = []
    if method == "factorize-recover":
        doubts += _doubts_of_recovery(record["evidence"]["recovery"], plan)
    shaky = [k for k, c in enumerate(components) if c["stability"] is not None and c["stability"] < STABLE]
    if shaky:
        least = min(components[k]["stability"] for k in shaky)
        doubts.append(
            f"{len(shaky)} of {len(components)} components come out differently from other starts that fit"
            f" as well (cosine down to {least:.2f}): the data do not determine them, only their sum."
            " Try a lower --rank."
        )
    known = (
        "The error is exact, summed over every entry of the data"
        if certificate.kind == "exact"
        else "The error is an estimate from the probe"
    )
    if doubts:
        return {"verdict": "doubtful", "why": f"{' '.join(doubts)} {known}; the factors may still be wrong."}
    agreed = "" if factorization["stability"] is None else ", and other starts find the same components"
    status = factorization["status"]
    note = f" The factorization ended as {status}. {factorization['remedy']}"
    note = note if factorization["remedy"] else ""
    return {"verdict": "trusted", "why": f"{known}{agreed}.{note}"}


def _doubts_of_recovery(recovery: dict[str, int], plan: Plan) -> list[str]:
    widest, unconverged = recovery["widest_support"], recovery["unconverged"]
    if widest * ROWS_PER_NONZERO > plan.sketch_size:
        return [
            f"A recovered component has {widest} nonzeros; a sketch of {plan.sketch_size} rows can carry"
            f" about {plan.sketch_size // ROWS_PER_NONZERO}. Use {INSTEAD}."
        ]
    if unconverged:
        return [
            f"The recovery of {unconverged} components did not converge: the sketch is too small for them."
            f" Use {INSTEAD}, or a larger --sketch-size."
        ]
    return []
