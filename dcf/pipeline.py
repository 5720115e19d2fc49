"""compress → factorize → recover → refine → certify: the way of a matrix through dcf."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

import dcf.recovery.columns as columns
import dcf.refinement.alternating as alternating
import dcf.sketch.compress as compression
from dcf.certificate import judge_exact, judge_recovery
from dcf.errors import EntryError, UsageError
from dcf.factorization.nmf import HalsNMF
from dcf.factorization.sparsest import SparsestNMF, column_noise
from dcf.sketch.probe import certify
from dcf.sketch.projections import CountSketch, Role, SparseBinary
from dcf.solvers.shared import single_blas_thread
from dcf.storage.run import RunGroup, Transposed
from dcf.storage.source import ArraySource, InMemory
from dcf.types import (
    Block,
    Certificate,
    FactorizationResult,
    Float64,
    Journal,
    Reporter,
    RowStore,
    Settings,
    Statistics,
    Workers,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dcf.plan import Plan

STAGES = ("created", "sketch", "factorize", "recover", "refine", "done")
POLL_SECONDS = 0.5


def tidy(run: RunGroup) -> None:
    """Delete what the stage that a run has reached no longer needs."""
    stage, refined = run.record["stage"], run.record.get("refined", 0)
    if stage == STAGES[-1]:
        run.drop("stages")
    elif stage != STAGES[0]:
        for name in ("sketch", *(f"refine_{number}" for number in range(1, refined + 1))):
            run.drop(f"stages/{name}")


class Pipeline:
    """One run, from whatever stage its group has reached to a later one.

    `source` may be None for the stages that never open it (factorize, recover).
    """

    def __init__(
        self,
        run: RunGroup,
        plan: Plan,
        settings: Settings,
        source: ArraySource | None,
        workers: Workers,
        reporter: Reporter,
    ) -> None:
        self.run, self.plan, self.settings = run, plan, settings
        self.workers, self.reporter = workers, reporter
        self._source = source
        self._projection = (
            SparseBinary(settings.seed, plan.sketch_size, settings.nnz_per_column)
            if plan.sketch_size
            else None
        )
        self._probe = CountSketch(settings.seed, plan.probe_size, role=Role.probe)

    @property
    def source(self) -> ArraySource:
        """The data; only the stages that read it ask."""
        if self._source is None:
            raise UsageError("This stage reads SOURCE, and none was given.")
        return self._source

    def run_until(self, last: str) -> None:
        """Run every stage that is not done yet, up to and including `last`."""
        steps = {
            "sketch": self.compress,
            "factorize": self.factorize,
            "recover": self.recover,
            "refine": self.refine,
            "done": self.finish,
        }
        reached = STAGES.index(self.run.record["stage"])
        with single_blas_thread():
            for stage in STAGES[reached + 1 : STAGES.index(last) + 1]:
                steps[stage]()
                self.run.update_peaks(self.workers.peaks(), self.workers.driver_peak())
                # Marked first, tidied after: what is half deleted must never be read again.
                self.run.update(stage=stage)
                tidy(self.run)

    # ------------------------------------------------------------------ the stages, in order

    def compress(self) -> None:
        """Pass 1: M̃ = P M, the row sample, the probe and the statistics."""
        plan = self.plan
        recipe = compression.SketchRecipe(
            seed=self.settings.seed,
            probe=self._probe,
            sample_capacity=plan.sample_size + 1 if plan.sample_size else 0,
            projection=self._projection,
            dtype=plan.dtype,
            negatives_allowed=self.settings.negatives == "allow",
            absence_allowed=self.settings.missing_chunks == "report",
        )
        if plan.method == "full":
            return self._factorize_in_memory(recipe)
        like = compression.empty_sketch(recipe, plan.width).to_arrays(recipe.sample_capacity)
        journal = self.run.journal("sketch", len(plan.sketch_blocks), like)
        with self._stage("sketch", journal, plan.sketch_blocks):
            graph = compression.compress(self.source, recipe, journal, plan.sketch_blocks, plan.most_tasks)
            try:
                sketch = self.workers.compute(graph)
            except EntryError:  # the data have to change, and then no block of theirs holds any more
                self.run.drop("stages/sketch")
                raise
        self._record_pass(1, sketch.statistics)
        self.run.put("stages/probe", sketch.probe)
        if self._projection is None:
            self.run.put("stages/sample", sketch.sample.weighted(recipe.sample_capacity))
        else:
            self.run.put("stages/compressed", sketch.compressed)

    def factorize(self) -> None:
        """NMF of M̃ or of the sampled rows, in the driver."""
        if self.plan.method == "full":
            return
        settings, sparsest = self.settings, self._projection is not None
        solver = (SparsestNMF if sparsest else HalsNMF)(
            rank=self.plan.rank,
            restarts=settings.restarts,
            tol=settings.tol,
            max_iter=settings.max_iter,
            seed=settings.seed,
            threads=self.workers.count,
        )
        m = self.run.complete("stages/compressed" if sparsest else "stages/sample")[:]
        with self._stage("factorize"):
            result = solver.factorize(m)
        self._keep_factorization(result)
        self.run.put("stages/sketch_noise", column_noise(result.noise, result.factors.components))
        self.run.put("stages/sketch_weights", result.factors.weights)

    def recover(self) -> None:
        """W from W̃, one column a task."""
        if self._projection is None:
            return
        plan = self.plan
        like = columns.column_arrays(plan.rows, plan.probe_size, plan.dtype)
        journal = self.run.journal("recover", plan.rank, like, {"column": (plan.refine_block_rows,)})
        targets = self.run.complete("stages/sketch_weights")[:]
        noises = self.run.complete("stages/sketch_noise")[:]
        with self._stage("recover", journal, tuple(Block(k, k, k + 1) for k in range(plan.rank))):
            graph = columns.recover(
                self._projection,
                self._probe,
                plan.rows,
                plan.dtype,
                journal,
                targets,
                noises,
            )
            self.workers.compute(graph)

    def refine(self) -> None:
        """Make the exact passes; the last one leaves W, block by block, in the run group."""
        plan = self.plan
        for number in range(self.run.record.get("refined", 0) + 1, self.settings.refine + 1):
            journal = self.run.journal(
                f"refine_{number}",
                len(plan.refine_blocks),
                alternating.empty_sums(plan.rank, plan.width).to_arrays(),
            )
            factor = None
            if number == self.settings.refine:
                factor = self._allocate_once("stages/weights")
            components = self.run.complete(f"stages/components_{number - 1}")
            with self._stage(f"refine {number}", journal, plan.refine_blocks):
                graph = alternating.refine(
                    self.source,
                    components,
                    plan.dtype,
                    factor,
                    journal,
                    plan.refine_blocks,
                    plan.most_tasks,
                )
                sums = self.workers.compute(graph)
            updated, squared_error = alternating.update_components(sums, components[:].astype(np.float64))
            self.run.put(f"stages/components_{number}", updated.astype(plan.dtype))
            self.run.put("stages/gram", sums.gram)
            self.run.put("stages/support", sums.support)
            record = self.run.record
            self.run.update(
                refined=number,
                passes=record["passes"] + 1,
                bytes_read=record["bytes_read"] + sums.bytes_read,
                squared_error=squared_error,
            )

    def finish(self) -> None:
        """Scale and order the components, write W and H, certify and judge."""
        plan = self.plan
        raw, weight_norms, components, certificate = self._final_pair()
        component_norms = np.linalg.norm(components, axis=1)
        order = np.argsort(-weight_norms * component_norms, kind="stable")
        norms = weight_norms[order]
        scales = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
        long, short = ("W", "H") if plan.axis == 0 else ("H", "W")
        with self._stage("scale"):
            factor = self._allocate(long)
            self.workers.compute(
                alternating.scale(raw, factor, [int(k) for k in order], scales, plan.refine_blocks)
            )
            scaled = (components[order] * norms[:, None]).astype(plan.dtype)
            self.run.put(short, scaled if plan.axis == 0 else np.ascontiguousarray(scaled.T))
        trust, described = self._judgement(certificate)
        interval = certificate.interval
        self.run.update(
            relative_error={
                "value": certificate.value,
                "kind": certificate.kind,
                "interval": list(interval) if interval else None,
            },
            trust=trust,
            components=[{**described[k], "norm": float(weight_norms[k] * component_norms[k])} for k in order],
        )

    # ------------------------------------------------------------------ their parts

    def _factorize_in_memory(self, recipe: compression.SketchRecipe) -> None:
        """Run the uncompressed algorithm: read all of M into the driver and factorize it."""
        plan = self.plan
        dense = InMemory(self.source, np.empty((plan.rows, plan.width), plan.dtype))
        whole = Block(0, 0, plan.rows)
        with self._stage("sketch", None, (whole,)):
            sketch = compression.compress_block(dense, recipe, whole)
        self._record_pass(1, sketch.statistics)
        settings = self.settings
        solver = HalsNMF(
            plan.rank,
            settings.restarts,
            settings.tol,
            settings.max_iter,
            settings.seed,
            threads=self.workers.count,
        )
        with self._stage("factorize"):
            result = solver.factorize(dense.entries)
        self._keep_factorization(result)
        weights = result.factors.weights.astype(plan.dtype)
        self._allocate("stages/weights")[:] = weights
        exact = weights.astype(np.float64)
        self.run.put("stages/gram", exact.T @ exact)
        self.run.put("stages/support", np.count_nonzero(weights, axis=0).astype(np.float64))
        h = self.run.complete("stages/components_0")[:]
        squared_error = sum(
            float(np.square(tile - weights[start : start + len(tile)] @ h, dtype=np.float64).sum())
            for start, tile in dense.slices(plan.tile_rows)
        )
        self.run.update(squared_error=squared_error)

    def _final_pair(self) -> tuple[RowStore, Float64, Float64, Certificate]:
        """Return raw W, the norms of its columns, its H and what is known of their error."""
        record, last = self.run.record, self.run.record.get("refined", 0)
        components = self.run.complete(f"stages/components_{last}")[:].astype(np.float64)
        squared_norm = record["statistics"]["squared_norm"]
        if "squared_error" in record:
            raw: RowStore = self.run.complete("stages/weights")
            norms = np.sqrt(np.diag(self.run.complete("stages/gram")[:]))
            error = np.sqrt(record["squared_error"] / squared_norm) if squared_norm else 0.0
            return raw, norms, components, Certificate(float(error))
        raw = Transposed(self.run.complete("stages/recover/column"))
        norms = np.array([report.norm for report in self._reports()])
        projected = self.run.complete("stages/recover/probe")[:].T
        probe = self.run.complete("stages/probe")[:]
        return raw, norms, components, certify(probe, projected, components, squared_norm)

    def _judgement(self, certificate: Certificate) -> tuple[dict[str, str], list[dict[str, Any]]]:
        """Return the verdict and the description of every component, in the order of the stages."""
        factorization = self.run.record["factorization"]
        if certificate.kind == "exact":
            support = self.run.complete("stages/support")[:]
            return judge_exact(factorization), [
                {
                    "status": factorization["status"],
                    "iterations": factorization["iterations"],
                    "residual": factorization["residual"],
                    "support": int(count),
                }
                for count in support
            ]
        reports = self._reports()
        trust = judge_recovery(factorization, reports, self.plan.sketch_size)
        return trust, [
            {
                "status": report.status.value,
                "iterations": report.n_iter,
                "residual": report.residual,
                "support": report.support,
            }
            for report in reports
        ]

    def _reports(self) -> list[columns.ColumnReport]:
        return [columns.ColumnReport.from_vector(v) for v in self.run.complete("stages/recover/report")[:]]

    def _keep_factorization(self, result: FactorizationResult) -> None:
        self.run.put("stages/components_0", result.factors.components.astype(self.plan.dtype))
        self.run.update(
            factorization={
                "status": result.status.value,
                "remedy": result.status.remedy,
                "iterations": result.n_iter,
                "residual": result.kkt,
                "objective": result.objective,
            }
        )

    def _record_pass(self, passes: int, statistics: Statistics) -> None:
        """Record what a first pass learnt."""
        self.run.update(
            passes=passes,
            bytes_read=statistics.bytes_read,
            missing_chunks=statistics.missing_chunks,
            statistics={
                "squared_norm": statistics.squared_norm,
                "minimum": statistics.minimum,
                "zeros": statistics.zeros,
            },
        )

    def _allocate(self, name: str) -> RowStore:
        """Create the factor along the compressed axis, one chunk a block."""
        plan = self.plan
        shape, chunks = (plan.rows, plan.rank), (plan.refine_block_rows, plan.rank)
        if name == "H":
            return Transposed(self.run.allocate(name, shape[::-1], chunks[::-1], plan.dtype))
        store: RowStore = self.run.allocate(name, shape, chunks, plan.dtype)
        return store

    def _allocate_once(self, name: str) -> RowStore:
        """Return the array of an earlier, interrupted try, or create it."""
        store: RowStore = self.run.get(name) if self.run.has(name) else self._allocate(name)
        return store

    @contextmanager
    def _stage(
        self, name: str, journal: Journal | None = None, blocks: tuple[Block, ...] = ()
    ) -> Iterator[None]:
        """Time a stage, and tell the reporter how many of its blocks are finished."""
        reads = name == "sketch" or name.startswith("refine")
        size = sum(self.source.decoded_bytes(b.start, b.stop) for b in blocks) if reads else 0
        self.reporter.begin(name, len(blocks), size)
        start, stop = time.perf_counter(), threading.Event()

        def poll() -> None:
            while journal is not None and not stop.wait(POLL_SECONDS):
                self.reporter.advance(journal.count())

        before = journal.count() if journal is not None else 0
        if before:
            self.run.update(resumed=self.run.record["resumed"] + 1)
        self.reporter.advance(before)
        watcher = threading.Thread(target=poll, daemon=True)
        watcher.start()
        try:
            yield
            self.reporter.advance(len(blocks))
        finally:
            stop.set()
            watcher.join()
            elapsed = time.perf_counter() - start
            seconds = self.run.record["seconds"]
            self.run.update(seconds={**seconds, name: seconds.get(name, 0.0) + elapsed})
            self.reporter.end(elapsed)
