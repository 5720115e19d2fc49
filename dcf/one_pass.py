"""W from the sketches of one pass alone, and what the probe says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import dcf.recovery.columns as columns
import dcf.refinement.alternating as alternating
from dcf.candidates import surrogate_of
from dcf.kinds import model_of, recovery_of
from dcf.sketch.probe import certify
from dcf.storage.arrays import Transposed
from dcf.types import Block

if TYPE_CHECKING:
    from dcf.job import Job
    from dcf.types import Certificate, RowStore


def recover_columns(job: Job) -> None:
    """Recover W from W̃, one column a task (Sharan et al. 2019, Algorithm 1, step 3)."""
    plan = job.plan
    like = columns.column_arrays(plan.rows, plan.dtype)
    journal = job.run.journal("recover", plan.rank, like, {"column": (plan.refine_block_rows,)})
    targets, noises = (job.run.complete(f"stages/sketch_{name}")[:] for name in ("weights", "noise"))
    with job.stage("recover", journal, tuple(Block(k, k, k + 1) for k in range(plan.rank))):
        graph = columns.recover(
            recovery_of(job.settings), job.projection, plan.rows, plan.dtype, journal, targets, noises
        )
        job.workers.compute(graph)


def recover_rows(job: Job) -> None:
    """Solve W from the surrogate M̂ = Z A V, row block by row block."""
    plan, blocks = job.plan, job.plan.sketch_blocks
    surrogate, rows = surrogate_of(job)
    h, model = job.run.complete("stages/candidates/range")[:], job.model
    if job.settings.decomposition == "spca":  # rows of M̂ have a noise of their own
        triangle = job.run.complete("stages/triangle")[:]
        model = model_of(job.settings, plan, surrogate.noise(triangle.T @ triangle, plan.rows, plan.rank))
    like = alternating.empty_sums(plan.carried, len(surrogate.directions)).to_arrays()
    journal = job.run.journal(
        "recover_rows", len(blocks), like, rows=job.allocate_once("stages/range_weights")
    )
    with job.stage("recover rows", journal, blocks):
        coordinates = surrogate.project(h)
        graph = alternating.refine(
            rows, model, coordinates, h @ h.T, plan.dtype, journal, blocks, plan.workers
        )
        sums = job.workers.compute(graph)
    job.run.put("stages/range_gram", sums.gram)


def recovered(job: Job, method: str) -> RowStore:
    """Return the W (n, r) that a method recovered, columns not yet scaled."""
    if method == "range":
        store: RowStore = job.run.complete("stages/range_weights")
        return store
    if method == "recover-factorize":
        held: RowStore = job.run.complete("stages/weights")
        return held
    return Transposed(job.run.complete("stages/recover/column"))


def components_of(method: str) -> str:
    """Return the name of the H that goes with the W that a method recovered."""
    return "stages/components_0" if method == "recover-factorize" else f"stages/candidates/{method}"


def shrunk(job: Job, method: str) -> Certificate:
    """Scale down an H that with the W recovered is worse than nothing; return the probe's new word on them.

    c W H with c = ⟨S M, S W H⟩ / ‖S W H‖² is the nearest to M of all multiples.
    """
    plan, name = job.plan, components_of(method)
    h, probe = job.run.complete(name)[:], job.run.complete("stages/probe")[:]
    graph = alternating.project(recovered(job, method), job.probe, None, h, plan.refine_blocks, plan.workers)
    seen = job.workers.compute(graph).probe @ h
    factor = float((probe * seen).sum() / np.square(seen).sum())
    job.run.put(name, h * min(max(factor, 0.0), 1.0))
    return estimate(job, method)


def estimate(job: Job, method: str) -> Certificate:
    """Return the probe's word on the W and H that a method recovered."""
    plan, dtype = job.plan, job.plan.dtype
    blocks = plan.sketch_blocks if method == "range" else plan.refine_blocks
    h = job.run.complete(components_of(method))[:].astype(dtype).astype(np.float64)
    probe, squared_norm = job.run.complete("stages/probe")[:], job.squared_norm
    surrogate, rows = surrogate_of(job) if plan.range_size else (None, None)
    g = h if surrogate is None else surrogate.project(h)
    graph = alternating.project(recovered(job, method), job.probe, rows, g, blocks, plan.workers)
    seen = job.workers.compute(graph)
    difference = probe - seen.probe @ h
    if job.mean_of == "columns":
        difference -= seen.ones * job.run.complete("stages/mean")[:]
    known, squared_known = np.zeros_like(probe), 0.0
    if surrogate is not None:
        known = difference - surrogate.unseen(probe, job.span.dense(plan.width))
        outside = h - g @ surrogate.directions  # of the surrogate's row space
        squared_known = seen.squared_residual + float((seen.gram * (outside @ outside.T)).sum())
    rounding = 4.0 * float(np.finfo(dtype).eps * np.sqrt(plan.rank))
    return certify(difference, known, squared_known, squared_norm, rounding)
