"""What may be believed of a result, and why it was made the way it was: plain sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dcf.factorization.truncated import LEAST_ZEROS
from dcf.recovery.base import rows_to_carry

if TYPE_CHECKING:
    from collections.abc import Sequence

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
# A singular vector that the last pass turned by more (the sine) is not what more passes would find.
TURNED = 0.1
# Where the columns of M that were recovered miss so much of it, their factors are not those of M: planted
# ones miss at most 0.31 where they come back under noise of 0 to 10 %, at least 0.52 where they do not.
LOST = 0.4
# A factor with more nonzeros than this part of its rows is not the sparse one that sparse PCA looks for.
DENSE = 0.5
# Components of so many times the norm of the data cancel one another: more sweeps only make them larger.
CANCELLING = 10.0
# Components that other starts find again with at least this cosine are determined by the data (DESIGN.md).
STABLE = 0.98
OPEN = " Where one factor may have any sign, this is the rule unless the other one has zeros."


def parts_of(decomposition: str, axis: int) -> tuple[str, str, str]:
    """Return the names of the long factor, of what is beside it, and of rows of M, as users have them."""
    if decomposition == "cp":
        return f"factor_{axis}", "the other factors", f"slices along axis {axis}"
    return ("W", "H", "rows") if axis == 0 else ("H", "W", "columns")


def explain(
    method: str, contenders: tuple[str, ...], errors: dict[str, float], settings: Settings, plan: Plan
) -> str:
    """Say why `method` was taken among the contenders, by their errors on the same evidence."""
    if settings.method != "auto":
        return BY_NAME
    long, short, rows = parts_of(settings.decomposition, plan.axis)
    come = "come" if settings.decomposition == "cp" else "comes"
    if settings.decomposition == "svd":
        return f"the range sketch of all {rows} holds the leading singular vectors" + (
            ", and every exact pass is a step of subspace iteration on all of them" if settings.refine else ""
        )
    if contenders == ("range",) and not plan.sketch_size:
        return f"one pass for a {long} that need not be sparse: it comes from the range sketch"
    if contenders == ("range",):
        return (
            f"the one-sided sketch of {plan.sketch_size} rows is too full to recover a sparse {long} from it"
            f" (some component is in almost every row), so {long} comes from the range sketch"
        )
    if len(contenders) == 1:
        part = f"a sample of {plan.sample_size} of the" if plan.sample_size < plan.rows else "all"
        return f"{short} {come} from {part} {plan.rows} {rows}, and an exact pass then finds {long}"
    ways = {
        "rows": f"{short} from the sample of {plan.sample_size} {rows}",
        "range": f"{short} from the range sketch of all {rows}" if settings.refine else "the range sketch",
        "factorize-recover": "sparse recovery from the one-sided sketch",
    }
    where = f"on {rows} kept out of the fit" if settings.refine else "by the probe's estimate"
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
    rows = parts_of(settings.decomposition, plan.axis)[2]
    wanted = enough_sketch(method, evidence, plan)
    if wanted is not None:
        what = "one-sided sketch" if method == "factorize-recover" else "sample"
        of = "rows" if method == "factorize-recover" else rows
        had = plan.sketch_size if method == "factorize-recover" else plan.sample_size
        return f"A {what} of {had} {of} was too small; about {wanted} should do: --sketch-size {wanted}" + (
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
            f"An exact pass (--refine 1) should lower the error: it is {reachable:.3g} on {rows} that were"
            " kept out of the fit, from the data themselves."
        )
    return ""


def _so_many(some: Sequence[Any], all_of: Sequence[Any], what: str, one: str, more: str) -> str:
    """Return "2 of 5 components come", with the verb in its number."""
    return f"{len(some)} of {len(all_of)} {what}s {one if len(some) == 1 else more}"


def judge(
    certificate: Certificate, components: list[dict[str, Any]], record: dict[str, Any], plan: Plan
) -> dict[str, str]:
    """Return the verdict on a finished decomposition and why."""
    method, kind = record["method"], record["settings"]["decomposition"]
    factorization = record["candidates"][method]
    doubts = []
    if method == "factorize-recover":
        doubts += _doubts_of_recovery(record["evidence"], plan, parts_of(kind, plan.axis)[0])
    missed = record["evidence"].get("recovered_error", 0.0)
    if missed > LOST:
        doubts.append(
            f"The data recovered from a sketch of {plan.sketch_size} rows are off by {100 * missed:.0f} % of"
            f" their norm: they are not sparse enough along axis {plan.axis}. Use {INSTEAD}, or a larger"
            " --sketch-size."
        )
    live = [c for c in components if c["support"]]  # one that is zero has no direction to agree on
    shaky = [c for c in live if c["stability"] is not None and c["stability"] < STABLE]
    if shaky:
        least = min(c["stability"] for c in shaky)
        doubts.append(
            f"{_so_many(shaky, components, 'component', 'comes', 'come')} out differently from other starts"
            f" that fit as well (cosine down to {least:.3f}): the data do not determine them, only their sum."
            + (OPEN if kind == "semi-nmf" else " Try a lower --rank.")
        )
    if not live and certificate.value > 0.0:
        doubts.append(
            "Every component is zero: nothing that is allowed explains these data, or their scale is out of"
            " reach (divide them by their largest entry)."
        )
    if certificate.value > 1.0 + 1e-6:
        doubts.append(f"The error is {certificate.value:.3g} times the data: nothing at all would be nearer.")
    norm = float(np.linalg.norm([c["norm"] for c in components]))
    scale = float(np.sqrt(record["statistics"]["squared_norm"])) or 1.0
    if kind != "svd" and norm > CANCELLING * scale:
        doubts.append(
            f"Components cancel one another: together they are {norm / scale:.3g} times as large as the data."
            " Their sum fits, each of them alone means nothing. Try a lower --rank."
        )
    turned = [c["residual"] for c in components if c["norm"] > 0.0 and c["residual"] > TURNED]
    if kind == "svd" and turned:
        why = (
            f"the last pass turned them by a sine of up to {max(turned):.2g}; values that follow may be too"
            " close. Take another pass (--refine), or look at fewer of them."
            if "squared_error" in record
            else f"the sketch leaves {max(turned):.2g} of the norm unexplained. Take an exact pass"
            " (--refine 1)."
        )
        doubts.append(f"{_so_many(turned, components, 'singular vector', 'is', 'are')} not settled: {why}")
    if factorization["stability"] is None and live and kind != "svd":
        doubts.append(
            "No other start came as close as the best: its components were not found a second time. More"
            " --restarts may find them again, or better ones."
        )
    widest = max((c["support"] for c in components), default=0)
    if kind == "spca" and widest > DENSE * plan.rows:
        doubts.append(
            f"Some component is in {100 * widest / plan.rows:.0f} % of the {parts_of(kind, plan.axis)[2]}:"
            f" {parts_of(kind, plan.axis)[0]} is not sparse, and nothing else tells the components apart. Use"
            " dcf svd, or a lower --rank."
        )
    known = (
        "The error is exact, summed over every entry of the data"
        if certificate.kind == "exact"
        else "The error is that before the factors were rounded, with what rounding may add"
        if "squared_error" in record
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
    elif not live:
        agreed = ""
    empty = len(components) - len(live)
    agreed += f"; {empty} of {len(components)} components are zero, the data hold no more" * (empty > 0)
    status = factorization["status"]
    note = f" The factorization ended as {status}. {factorization['remedy']}"
    note = note if factorization["remedy"] else ""
    return {"verdict": "trusted", "why": f"{known}{agreed}.{note}"}


def _doubts_of_recovery(evidence: dict[str, Any], plan: Plan, long: str) -> list[str]:
    recovery, d = evidence["recovery"], plan.sketch_size
    widest, unconverged = recovery["widest_support"], recovery["unconverged"]
    if not widest:  # nothing was there to be recovered
        return []
    if evidence["zero_fraction"] < LEAST_ZEROS:
        return [
            f"Some component is in {100 * (1 - evidence['zero_fraction']):.0f} % of the sketch's {d} rows:"
            f" {long} is not sparse, or the sketch is far too small for it, and cannot tell the components."
            f" Use {INSTEAD}."
        ]
    if recovery["dense"]:
        return [
            f"Of {recovery['dense']} of {plan.rank} components no sparse column foretells rows of the sketch"
            f" kept out of its recovery: {long} is not sparse, or {d} rows are too few for it. Use {INSTEAD}."
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
