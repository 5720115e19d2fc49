"""What may be believed of a result, and why it was made the way it was: plain sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dcf.factorization.truncated import LEAST_ZEROS
from dcf.recovery.base import rows_to_carry

if TYPE_CHECKING:
    from dcf.plan import Plan
    from dcf.settings import Settings
    from dcf.types import Certificate

INSTEAD = "--method rows with --refine 1, or --method range where one pass must do"
# Held out against fitted, squared: beyond this the rows fitted were too few, not their choice unlucky.
WIDE_GAP = 1.25
# A sample is large enough where it costs the fit this part of its squared error (an exact pass follows).
MOST_EXCESS = 0.04
# A sketch of more than one part in so many of the rows is no sketch any more.
LARGEST_SHARE = 4
# A one-pass error so much above what an exact pass would reach is worth telling.
WORTH_A_PASS = 1.05
# And not below what float32 factors can hold.
ROUNDING = 1e-5
BY_NAME = "asked for by name"
# Factors of a recovered matrix that fit the data worse than it by this are not factors of the data.
WORSE = 1.5
# A singular vector that the last pass turned by more (the sine) is not what more passes would find.
TURNED = 0.1
# Components that other starts find again with at least this cosine are determined by the data (DESIGN.md).
STABLE = 0.98


def explain(
    method: str, contenders: tuple[str, ...], errors: dict[str, float], settings: Settings, plan: Plan
) -> str:
    """Say why `method` was taken among the contenders, by their errors on the same evidence."""
    if settings.method != "auto":
        return BY_NAME
    if settings.decomposition == "svd":
        return "the range sketch of all rows holds the leading singular vectors" + (
            ", and every exact pass is a step of subspace iteration on all of them" if settings.refine else ""
        )
    if contenders == ("range",) and not plan.sketch_size:
        return "one pass over a W that need not be sparse: it comes from the range sketch"
    if contenders == ("range",):
        return (
            f"the one-sided sketch of {plan.sketch_size} rows is too full to recover a sparse W from it (some"
            " component is in almost every row), so W comes from the range sketch"
        )
    if len(contenders) == 1:
        part = f"a sample of {plan.sample_size} of the" if plan.sample_size < plan.rows else "all"
        return f"H comes from {part} {plan.rows} rows, and an exact pass then finds W"
    ways = {
        "rows": f"H from the sample of {plan.sample_size} rows",
        "range": "H from the range sketch of all rows" if settings.refine else "the range sketch",
        "factorize-recover": "sparse recovery from the one-sided sketch",
    }
    where = "on rows kept out of the fit" if settings.refine else "by the probe's estimate"
    said = " and ".join(f"{ways[m]} leaves an error of {errors[m]:.4g}" for m in contenders)
    verdict = "the smaller was taken" if len(set(errors.values())) > 1 else "they are equal"
    return f"{where}, {said}; {verdict}"


def enough_sketch(method: str, evidence: dict[str, Any], plan: Plan) -> int | None:
    """Return the sketch size that the evidence of a first pass asks for; None where this one would do.

    Of a sample of s rows, H fits those s better and all others worse than the best H would, by a
    factor of about 1 ∓ c/s in the square; c follows from the two errors. Of a one-sided sketch, the
    widest column says it. None, too, where W is dense or not even a quarter of the rows would be enough.
    """
    if method == "factorize-recover":
        if evidence["zero_fraction"] < LEAST_ZEROS:
            return None
        widest = evidence["recovery"]["widest_support"]
        size, wanted = plan.sketch_size, rows_to_carry(widest, plan.rows)
    elif method not in evidence.get("held_out", {}):
        return None  # nothing was kept out: all rows are at hand, or none
    else:
        fit, held = evidence["fit"] ** 2, evidence["held_out"][method] ** 2
        size, excess = plan.sample_size, plan.sample_size * (held - fit) / ((held + fit) or 1.0)
        wanted = int(excess / MOST_EXCESS) if plan.held_out and held > WIDE_GAP * fit else 0
    return wanted if size < wanted <= plan.rows // LARGEST_SHARE else None


def advise(
    method: str, certificate: Certificate, record: dict[str, Any], settings: Settings, plan: Plan
) -> str:
    """Say what would make the result better, in a sentence; nothing where nothing is known to."""
    evidence = record["evidence"]
    wanted = enough_sketch(method, evidence, plan)
    if wanted is not None:
        what = "one-sided sketch" if method == "factorize-recover" else "sample"
        had = plan.sketch_size if method == "factorize-recover" else plan.sample_size
        return f"A {what} of {had} rows was too small; about {wanted} should do: --sketch-size {wanted}" + (
            ", or --resketch to let a run take them in one more pass." if not settings.resketch else "."
        )
    if plan.slices != plan.others and settings.refine == 1:
        return (
            "The exact pass solved the factor of the first mode from a part of the others; one more"
            " (--refine 2) solves it from all of them."
        )
    reachable = min(evidence.get("held_out", {"": np.inf}).values())
    if certificate.kind == "estimated" and certificate.value > max(WORTH_A_PASS * reachable, ROUNDING):
        return (
            "An exact pass (--refine 1) should lower the error: from the data themselves, H explains rows"
            f" kept out of its fit up to {reachable:.3g}."
        )
    return ""


def judge(
    certificate: Certificate, components: list[dict[str, Any]], record: dict[str, Any], plan: Plan
) -> dict[str, str]:
    """Return the verdict on a finished decomposition and why."""
    method, kind = record["method"], record["settings"]["decomposition"]
    factorization = record["candidates"][method]
    doubts = []
    if method == "factorize-recover":
        doubts += _doubts_of_recovery(record["evidence"], plan)
    if method == "recover-factorize" and certificate.value > WORSE * record["evidence"]["fit"]:
        doubts.append(
            f"The factors fit the recovered matrix to {record['evidence']['fit']:.3g} and the data to"
            f" {certificate.value:.3g}: what was recovered from the sketch is not the data. Use {INSTEAD}."
        )
    live = [c for c in components if c["support"]]  # one that is zero has no direction to agree on
    shaky = [c for c in live if c["stability"] is not None and c["stability"] < STABLE]
    if shaky:
        least = min(c["stability"] for c in shaky)
        doubts.append(
            f"{len(shaky)} of {len(components)} components come out differently from other starts that fit"
            f" as well (cosine down to {least:.3f}): the data do not determine them, only their sum."
            " Try a lower --rank."
        )
    if not live and certificate.value > 0.0:
        doubts.append(
            "Every component is zero: nothing that is allowed explains these data, or their scale is out of"
            " reach (divide them by their largest entry)."
        )
    turned = [c["residual"] for c in components if c["norm"] > 0.0 and c["residual"] > TURNED]
    if kind == "svd" and turned:
        doubts.append(
            f"{len(turned)} of {len(components)} singular vectors are not settled (sine up to"
            f" {max(turned):.2g}, of the last pass or the sketch's own error): the singular values that"
            " follow are too close. Take another pass (--refine), or look at fewer of them."
        )
    known = (
        "The error is exact, summed over every entry of the data"
        if certificate.kind == "exact"
        else "The error is an estimate from the probe"
    )
    if doubts:
        return {
            "verdict": "doubtful",
            "why": f"{' '.join(doubts)} {known}; it says nothing of single components.",
        }
    agreed = ", and other starts find the same components"
    if kind == "svd":
        agreed = ", and the singular vectors are settled" if components else ""
    elif factorization["stability"] is None:
        agreed = "; no other start came as close, so that components are not checked against one"
    empty = len(components) - len(live)
    agreed += f"; {empty} of {len(components)} components are zero, the data hold no more" * (empty > 0)
    status = factorization["status"]
    note = f" The factorization ended as {status}. {factorization['remedy']}"
    note = note if factorization["remedy"] else ""
    return {"verdict": "trusted", "why": f"{known}{agreed}.{note}"}


def _doubts_of_recovery(evidence: dict[str, Any], plan: Plan) -> list[str]:
    recovery, d = evidence["recovery"], plan.sketch_size
    widest, unconverged = recovery["widest_support"], recovery["unconverged"]
    if evidence["zero_fraction"] < LEAST_ZEROS:
        return [
            f"Some component is in {100 * (1 - evidence['zero_fraction']):.0f} % of the sketch's {d} rows: W"
            " is not sparse, or the sketch is far too small for it, and cannot tell the components. Use"
            f" {INSTEAD}."
        ]
    if recovery["dense"]:
        return [
            f"Of {recovery['dense']} of {plan.rank} components no sparse column foretells rows of the sketch"
            f" kept out of its recovery: W is not sparse, or {d} rows are too few for it. Use {INSTEAD}."
        ]
    if rows_to_carry(widest, plan.rows) > d:
        return [
            f"A recovered component has {widest} nonzeros, which take a sketch of about"
            f" {rows_to_carry(widest, plan.rows)} rows; this one has {d}. Use {INSTEAD}."
        ]
    if unconverged:
        return [
            f"The recovery of {unconverged} components did not converge: the sketch is too small for them."
            f" Use {INSTEAD}, or a larger --sketch-size."
        ]
    return []
