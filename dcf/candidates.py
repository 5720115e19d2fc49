"""Candidates for H: what each way from the first pass's sketches finds, and what speaks for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

import dcf.refinement.alternating as alternating
from dcf.factorization.nmf import HalsNMF
from dcf.factorization.range import factorize_surrogate
from dcf.factorization.truncated import Truncated, column_noise, zero_fraction
from dcf.kinds import Comparable
from dcf.sizes import CARRIED_ON, COMPARED
from dcf.sketch.range import Surrogate, SurrogateRows
from dcf.sketch.rows import spared
from dcf.types import Status

if TYPE_CHECKING:
    from dcf.job import Job
    from dcf.solvers.models import Model
    from dcf.types import FactorizationResult, Float64, Real

# KKT ratio at which H has converged on the surrogate where an exact pass will improve it.
SURROGATE_TOL = 1e-3


@dataclass(frozen=True)
class Candidate:
    """One candidate for H."""

    components: Float64
    """H (r, m), rows of unit norm"""
    status: Status
    """of the factorization"""
    remedy: str
    """what can be done about it, a sentence; empty where nothing is wrong"""
    iterations: int
    """sweeps of it"""
    residual: float
    """its last KKT ratio"""
    stability: Float64 | None
    """(r,) least cosine of each component to its partners from other starts; None where none was tried"""

    @classmethod
    def of(cls, result: FactorizationResult) -> Candidate:
        """Return what a factorization of a sketch found."""
        return cls(
            result.factors.components,
            result.status,
            result.status.remedy,
            result.n_iter,
            result.kkt,
            result.stability,
        )

    def record(self) -> dict[str, Any]:
        """Return it as JSON, without H."""
        return {
            "status": self.status.value,
            "remedy": self.remedy,
            "iterations": self.iterations,
            "residual": self.residual,
            "stability": None if self.stability is None else [float(c) for c in self.stability],
        }


def error_on(model: Model, rows: Real, shares: Float64, components: Float64) -> float:
    """Return min over W of ‖D (M_s − W H)‖_F / ‖D M_s‖_F for rows M_s (s, m) and H (r, m).

    shares : (s,), D². On rows that H was not fitted to, it estimates the error that an exact pass would
    reach with H.
    """
    counted = shares > 0
    m = rows[counted].astype(np.float64) * np.sqrt(shares[counted])[:, None]
    w = model.weights_solver(components @ components.T)(m @ components.T)
    norm = np.linalg.norm(m)
    return float(np.linalg.norm(m - w @ components) / norm) if norm else 0.0


def data_noise(job: Job) -> float:
    """Return the standard deviation of an entry of M about its part of rank r, from the probe.

    An entry of S M is the sum of n / t entries of M with random signs.
    """
    plan, probe = job.plan, job.run.complete("stages/probe")[:]
    of_probe = Truncated(probe, min(plan.rank, probe.shape[1])).noise(probe)
    statistics = job.run.record["statistics"]
    live = max(plan.rows * plan.width - statistics["zeros"], 1)
    rounding = 4.0 * float(np.finfo(plan.dtype).eps * np.sqrt(statistics["squared_norm"] / live))
    return max(of_probe * float(np.sqrt(len(probe) / plan.rows)), rounding)


def candidates(job: Job) -> dict[str, Candidate]:
    """Return what every sketch that was taken finds, by method, and note the evidence."""
    plan, found = job.plan, {}
    if job.settings.decomposition == "spca":
        job.note(noise=data_noise(job))
    if plan.sample_size:
        sample = job.run.complete("stages/sample")[:]
        solver = job.row_factorizer
        found["rows"] = Candidate.of(solver.factorize(sample))
        if plan.range_size:
            found["range"] = found["rows"]
            if job.settings.decomposition in CARRIED_ON:
                found["range"] = _from_surrogate(job, found["rows"])
        if job.settings.decomposition in COMPARED and isinstance(solver, Comparable):
            job.note(**_compare(job, solver, sample, found))
            errors = job.run.record["evidence"]["held_out"]
            if plan.range_size and not job.settings.refine and errors["rows"] < errors["range"]:
                found["range"] = found["rows"]  # W comes from the surrogate, H from where it is better
    elif plan.range_size:
        found["range"] = _singular_vectors(job)
    if plan.sketch_size:
        result = job.sketch_factorizer.factorize(job.run.complete("stages/compressed")[:])
        found["factorize-recover"] = Candidate.of(result)
        noise = column_noise(result.noise, result.factors.components)
        job.run.put("stages/sketch_weights", result.factors.weights)
        job.run.put("stages/sketch_noise", noise)
        job.note(sketch_fit=result.objective, zero_fraction=zero_fraction(result.factors.weights, noise))
    return found


def _compare(job: Job, solver: Comparable, sample: Real, found: dict[str, Candidate]) -> dict[str, Any]:
    """Return each candidate's error on sampled rows that it was not fitted to, and that on fitted ones.

    The sample's own H is fitted anew without the rows kept out, from where all of them led: only the
    comparison does without them.
    """
    plan = job.plan
    complete = len(sample) < plan.sample_size + plan.held_out  # every row that is not zero
    common, apart = spared(sample, 0 if complete else plan.held_out)
    fitted = solver.carry_on(cast("Real", np.ascontiguousarray(sample[~apart])), found["rows"].components)
    candidates = {method: candidate.components for method, candidate in found.items()}
    candidates["rows"] = fitted.factors.components
    # Each row kept out speaks for its share of those like it, the rare ones for themselves.
    shares = np.where(common, 0.0, 1.0) if apart.any() else np.ones(len(sample))
    shares[apart] = common.sum() / max(apart.sum(), 1)
    return {
        "fit": fitted.objective,
        "held_out": {method: error_on(job.model, sample, shares, h) for method, h in candidates.items()},
    }


def surrogate_of(job: Job) -> tuple[Surrogate, SurrogateRows]:
    """Return M̂, less the means of its columns where asked, and its rows, computed where they lie."""
    plan = job.plan
    omega = job.span.dense(plan.width)
    corange, triangle = (job.run.complete(f"stages/{name}")[:] for name in ("corange", "triangle"))
    surrogate = Surrogate.of(corange, triangle, omega, 10.0 * float(np.finfo(plan.dtype).eps))
    unseen = surrogate.unseen(job.run.complete("stages/probe")[:], omega)
    job.note(surrogate_error=float(np.linalg.norm(unseen) / np.sqrt(job.squared_norm or 1.0)))
    if job.mean_of == "columns":
        surrogate = surrogate.less_mean(job.run.complete("stages/mean")[:])
    rows = job.run.complete("stages/range")
    return surrogate, SurrogateRows(
        rows, surrogate.coordinates.astype(plan.dtype), surrogate.mean.astype(plan.dtype)
    )


def _singular_vectors(job: Job) -> Candidate:
    """Return the leading right singular vectors of the surrogate (Tropp et al. 2017)."""
    plan = job.plan
    surrogate, _ = surrogate_of(job)
    centred = job.mean_of == "rows"
    surrogate = surrogate.less_row_means() if centred else surrogate
    triangle = job.run.complete("stages/triangle")[:]
    sums = np.zeros(plan.range_size)
    if job.mean_of == "columns":
        sums = plan.rows * job.span.dense(plan.width).T @ job.run.complete("stages/mean")[:]
    h = surrogate.leading(triangle.T @ triangle, sums, plan.rows, plan.carried - centred)
    return Candidate(job.with_means(h), Status.converged, "", 0, 0.0, None)


def _from_surrogate(job: Job, start: Candidate) -> Candidate:
    """Carry the sample's H on over all rows of the surrogate."""
    plan = job.plan
    surrogate, rows = surrogate_of(job)

    def sums(h: Float64) -> tuple[Float64, Float64]:
        g, gram, journal = surrogate.project(h), h @ h.T, alternating.Unjournalled()
        graph = alternating.refine(
            rows, job.model, g, gram, plan.dtype, journal, plan.sketch_blocks, plan.workers
        )
        total = job.workers.compute(graph)
        return total.linear(g) @ surrogate.directions, total.gram

    tol = SURROGATE_TOL if job.settings.refine else HalsNMF.tol
    tol = tol if job.settings.tol is None else job.settings.tol
    h, status, sweeps, ratio = factorize_surrogate(job.model, sums, start.components, tol, plan.most_sweeps)
    remedy = ""
    if status is not Status.converged:
        remedy = (
            f"It may sweep {plan.most_sweeps} times over the range sketch; exact passes (--refine) go on."
        )
    return Candidate(h, status, remedy, start.iterations + sweeps, ratio, start.stability)
