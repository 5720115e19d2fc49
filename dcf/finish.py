"""The last stage: factors in their stored form, their error, and what may be believed of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

import dcf.recovery.columns as columns
import dcf.refinement.alternating as alternating
from dcf.canonical import Canonical, singular_triplets, unit_columns
from dcf.certificate import TURNED, advise, judge
from dcf.errors import SourceError
from dcf.one_pass import recovered
from dcf.solvers.polyadic import split
from dcf.types import Certificate, Status

if TYPE_CHECKING:
    from dcf.job import Job
    from dcf.types import Float64, Real, RowStore

# Rounding that leaves an error exact: what float32 factors of ordinary size add.
LEAST_ROUNDING = 1e-6


@dataclass(frozen=True)
class _RawPair:
    """W and H as the stages left them, and what is known of their error."""

    weights: RowStore
    """W (n, k)"""
    gram: Float64
    """WᵀW (k, k), or its diagonal alone"""
    components: Float64
    """H (k, m)"""
    certificate: Certificate
    """of the pair"""


def finish(job: Job) -> None:
    """Scale and order the components, write the factors, certify and judge."""
    plan, run = job.plan, job.run
    raw = _raw_pair(job)
    form = _canonical(job, raw)
    certificate = raw.certificate
    squared_norm = job.squared_norm
    if form.squared_loss and squared_norm:
        lost = form.squared_loss / squared_norm
        certificate = replace(certificate, value=float(np.sqrt(certificate.value**2 + lost)))
    rounding = rounding_of(form, squared_norm, plan.dtype, len(plan.others) + 1, job.exponent)
    certificate = as_stored(certificate, rounding)
    with job.stage("scale"):
        counts = job.workers.compute(
            alternating.transform(
                raw.weights,
                job.allocate(_name_of_long_factor(job)),
                form.transform,
                plan.refine_blocks,
                plan.workers,
            )
        )
        _write_short_factors(job, form)
        _write_means(job, raw)
    described = [
        {**component, "norm": float(norm), "support": int(count)}
        for component, norm, count in zip(
            _described(job, form), form.norms, np.sum(counts, axis=0), strict=True
        )
    ]
    record = run.record
    run.update(
        relative_error={
            "value": certificate.value,
            "kind": certificate.kind,
            "interval": list(certificate.interval) if certificate.interval else None,
        },
        trust=judge(certificate, described, record, plan),
        advice=advise(record["method"], certificate, record, job.settings, plan),
        components=[
            {**component, "norm": float(np.ldexp(component["norm"], job.exponent))} for component in described
        ],
    )


def column_reports(job: Job) -> list[columns.ColumnReport]:
    """Return how the recovery of each column of W ended."""
    return [columns.ColumnReport.from_vector(v) for v in job.run.complete("stages/recover/report")[:]]


def rounding_of(form: Canonical, squared_norm: float, dtype: str, modes: int, exponent: int) -> float:
    """Return what rounding each of the factors to `dtype` may add to the error, over ‖M‖.

    exponent : the data are those of `form` times 2 to its power, and so small numbers lose their digits.
    """
    kind, norm = np.finfo(dtype), float(np.sqrt(squared_norm or 1.0))
    relative = 0.5 * float(kind.eps) * float(np.sqrt(modes)) * float(np.linalg.norm(form.norms)) / norm
    least = float(np.ldexp(0.5 / norm, int(np.frexp(kind.smallest_subnormal)[1]) - exponent))
    return float(np.hypot(relative, least * np.sqrt(form.components.size)))


def as_stored(certificate: Certificate, rounding: float) -> Certificate:
    """Return the error with an interval where that of the stored factors may be another one.

    Components that cancel one another can be larger than the data by so much that rounding them shows.
    """
    value = float(np.hypot(certificate.value, rounding))
    if certificate.interval or value - certificate.value <= max(1e-3 * certificate.value, LEAST_ROUNDING):
        return certificate
    return Certificate(value, (max(0.0, certificate.value - rounding), certificate.value + rounding))


def _raw_pair(job: Job) -> _RawPair:
    run, record = job.run, job.run.record
    components = run.complete(f"stages/components_{record.get('refined', 0)}")[:].astype(np.float64)
    method = record["method"]
    if "squared_error" in record:
        error = float(np.sqrt(record["squared_error"] / job.squared_norm)) if job.squared_norm else 0.0
        weights, gram = run.complete("stages/weights"), run.complete("stages/gram")[:]
        return _RawPair(weights, gram, components, Certificate(error))
    if method == "factorize-recover":
        gram = np.diag([report.norm**2 for report in column_reports(job)])
    else:
        gram = run.complete("stages/range_gram" if method == "range" else "stages/gram")[:]
    said = record["evidence"]["errors"][method]
    certificate = Certificate(said["value"], tuple(said["interval"]))
    return _RawPair(recovered(job, method), gram, components, certificate)


def _canonical(job: Job, raw: _RawPair) -> Canonical:
    if job.settings.decomposition != "svd":
        return unit_columns(raw.gram, raw.components)
    precision = 0.5 * float(np.finfo(job.plan.dtype).eps)
    if job.mean_of != "rows":
        return singular_triplets(raw.gram, raw.components, job.plan.rank, precision)
    form = singular_triplets(raw.gram[:-1, :-1], raw.components[:-1], job.plan.rank, precision)
    return replace(form, transform=np.pad(form.transform, ((0, 1), (0, 0))))


def _name_of_long_factor(job: Job) -> str:
    if job.settings.decomposition == "cp":
        return f"factor_{job.plan.axis}"
    return "W" if job.plan.axis == 0 else "H"


def _write_short_factors(job: Job, form: Canonical) -> None:
    """Write the factors of the axes that were not compressed."""
    plan, run = job.plan, job.run
    if job.settings.decomposition != "cp":
        short = _stored(form.components, job)
        run.put("H" if plan.axis == 0 else "W", short if plan.axis == 0 else np.ascontiguousarray(short.T))
        return
    run.put("weights", _stored(form.norms, job))
    modes = [mode for mode in range(len(plan.others) + 1) if mode != plan.axis]
    for mode, factor in zip(modes, split(form.components, plan.others)[0], strict=True):
        run.put(f"factor_{mode}", factor.astype(plan.dtype))


def _stored(values: Float64, job: Job) -> Real:
    """Return what carries the scale of the data as it is stored. Raises `SourceError` where it overflows."""
    with np.errstate(over="ignore", under="ignore"):
        stored = cast("Real", np.ldexp(values, job.exponent).astype(job.plan.dtype))
    if not np.isfinite(stored).all():
        raise SourceError(
            f"The factors of SOURCE are larger than {job.plan.dtype} can hold: divide the data by their"
            " largest entry, or take a lower --rank."
        )
    return stored


def _write_means(job: Job, raw: _RawPair) -> None:
    """Write the means that were taken out."""
    plan = job.plan
    if job.mean_of == "columns":
        job.run.put("mean", _stored(job.run.complete("stages/mean")[:], job))
    elif job.mean_of == "rows":
        last = np.zeros((plan.carried, 1))
        last[-1] = np.ldexp(plan.width**-0.5, job.exponent)
        graph = alternating.transform(
            raw.weights, job.allocate("mean"), last, plan.refine_blocks, plan.workers
        )
        job.workers.compute(graph)


def _described(job: Job, form: Canonical) -> list[dict[str, Any]]:
    """Return status, iterations, residual and stability of every component, in their final order."""
    record, rank = job.run.record, job.plan.rank
    candidate = record["candidates"][record["method"]]
    stability = candidate["stability"] or [None] * rank
    if job.settings.decomposition == "svd":
        solves = _turned(job, form)
    elif "squared_error" in record or record["method"] != "factorize-recover":
        solves = [(candidate["status"], candidate["iterations"], candidate["residual"])] * rank
    else:
        solves = [(report.status.value, report.n_iter, report.residual) for report in column_reports(job)]
    return [
        {
            "status": solves[k][0],
            "iterations": solves[k][1],
            "residual": solves[k][2],
            "stability": stability[k],
        }
        for k in form.order
    ]


def _turned(job: Job, form: Canonical) -> list[tuple[str, int, float]]:
    """Return, of each singular vector, by what sine the last pass turned it out of the span before it.

    Without an exact pass nothing is known but how much of M the sketch left unexplained.
    """
    record, refined = job.run.record, job.run.record.get("refined", 0)
    sines = np.full(len(form.norms), record["evidence"].get("surrogate_error", 0.0))
    if refined:
        before = job.run.complete(f"stages/components_{refined - 1}")[:].astype(np.float64)
        basis = np.linalg.svd(before, full_matrices=False)
        span = basis[2][basis[1] > 1e-10 * max(basis[1][0], np.finfo(float).tiny)]
        unit = form.components / np.where(form.norms > 0, form.norms, 1.0)[:, None]
        sines = np.linalg.norm(unit - (unit @ span.T) @ span, axis=1)
    status = [Status.converged if sine <= TURNED else Status.max_iter_reached for sine in sines]
    return [(state.value, refined, float(sine)) for state, sine in zip(status, sines, strict=True)]
