"""The baselines, which hold all of M in the driver: the uncompressed algorithm, and recover-factorize."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import dcf.recovery.columns as columns
import dcf.refinement.alternating as alternating
from dcf.candidates import Candidate, data_noise
from dcf.factorization.truncated import Truncated
from dcf.kinds import baseline_recovery_of
from dcf.storage.derived import InMemory
from dcf.types import Block

if TYPE_CHECKING:
    from dcf.job import Job
    from dcf.types import Real


def factorize_in_memory(job: Job, entries: Real) -> float:
    """Factorize M = `entries` (n, m), which may be overwritten; return ‖M − W H‖²_F.

    W is solved exactly for the H found, then H for that W: the last half-steps of every method.
    """
    plan = job.plan
    if job.mean_of == "columns":
        entries -= job.run.complete("stages/mean")[:].astype(plan.dtype)
    with job.stage("factorize"):
        if job.mean_of == "rows":
            means = entries.mean(axis=1, dtype=np.float64, keepdims=True).astype(plan.dtype)
            result = job.row_factorizer.factorize(entries - means)
        else:
            result = job.row_factorizer.factorize(entries)
        candidate = Candidate.of(result)
        if plan.method == "full":
            job.note(noise=result.noise)
        h = job.with_means(candidate.components).astype(plan.dtype).astype(np.float64)
        held, whole = InMemory(entries, plan.tile_rows), Block(0, 0, plan.rows)
        sums, weights = alternating.refine_block(held, job.model, h, None, plan.dtype, whole)
        h, squared_error = alternating.update_components(job.model, sums, h)
    job.run.put("stages/components_0", h.astype(plan.dtype))
    job.run.put("stages/gram", sums.gram)
    job.run.update(candidates={plan.method: candidate.record()})
    job.allocate("stages/weights")[:] = weights
    return squared_error


def _error_of_recovery(job: Job, entries: Real) -> float:
    """Return the probe's estimate of ‖M − M̂‖_F / ‖M‖_F for the recovered M̂ = `entries` (n, m)."""
    plan, probe = job.plan, job.run.complete("stages/probe")[:]
    seen = np.zeros_like(probe)
    for start, tile in InMemory(entries, plan.tile_rows).tiles(0, plan.rows, set()):
        job.probe.accumulate(tile, start, seen)
    return float(np.linalg.norm(probe - seen) / (np.linalg.norm(probe) or 1.0))


def recover_then_factorize(job: Job) -> None:
    """Recover every column of M from M̃ = P M, then factorize them (Sharan et al. 2019, §3, the baseline)."""
    plan = job.plan
    like = columns.column_arrays(plan.rows, plan.dtype)
    journal = job.run.journal("recover_source", plan.width, like)
    targets = job.run.complete("stages/compressed")[:]
    noise = Truncated(targets, min(plan.rank, *targets.shape)).noise(targets)
    with job.stage("recover", journal, tuple(Block(k, k, k + 1) for k in range(plan.width))):
        solver, noises = baseline_recovery_of(job.settings), np.full(plan.width, noise)
        graph = columns.recover(solver, job.projection, plan.rows, plan.dtype, journal, targets, noises)
        job.workers.compute(graph)
    recovered = job.run.complete("stages/recover_source/column")
    entries = np.empty((plan.rows, plan.width), plan.dtype)
    for k in range(plan.width):
        entries[:, k] = recovered[k]
    job.note(recovered_error=_error_of_recovery(job, entries), noise=data_noise(job))
    factorize_in_memory(job, entries)
