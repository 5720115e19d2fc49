"""compress → factorize → recover → refine → certify: the way of a matrix through dcf."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import dcf.refinement.alternating as alternating
import dcf.sketch.compress as compression
from dcf.candidates import candidates
from dcf.certificate import enough_sketch, explain
from dcf.errors import EntryError, ScaleError, SourceError
from dcf.finish import column_reports, finish
from dcf.in_memory import factorize_in_memory, recover_then_factorize
from dcf.one_pass import components_of, estimate, recover_columns, recover_rows, shrunk
from dcf.solvers.shared import single_blas_thread
from dcf.solvers.sums import REACH
from dcf.stages import tidy
from dcf.storage.derived import Keeping
from dcf.types import STAGES, Block, Statistics, Status

SAMPLE_PARTS = 8  # chunks of a block's sample in the journal
# Squared norms of two passes over the same data differ by rounding alone.
SAME_DATA = 1e-4

if TYPE_CHECKING:
    from dcf.job import Job
    from dcf.types import Float64


class Pipeline:
    """One run, from whatever stage its group has reached to a later one."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.run, self.plan, self.settings, self.workers = job.run, job.plan, job.settings, job.workers

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
                if self._asks_for_more(stage):
                    return

    def _asks_for_more(self, stage: str) -> bool:
        """Send the run back to its first pass where it may, once, and its sketch was too small."""
        record, exact = self.run.record, self.settings.refine > 0
        if stage != ("factorize" if exact and record["method"] in ("rows", "range") else "recover"):
            return False
        wanted = enough_sketch(record["method"], record["evidence"], self.plan)
        if wanted is None or not self.job.may_grow(wanted):
            return False
        spent = {"passes": record["passes"], "bytes_read": record["bytes_read"]}
        self.run.update(stage=STAGES[0], resketched={"sketch_size": wanted}, spent=spent)
        return True

    # ------------------------------------------------------------------ the stages, in order

    def compress(self) -> None:
        """Pass 1: M̃ = P M, the row sample, the range sketch, the probe and the statistics."""
        plan = self.plan
        recipe = compression.SketchRecipe(
            seed=self.settings.seed,
            probe=self.job.probe,
            sample_capacity=plan.sample_size + plan.held_out + 1 if plan.sample_size else 0,
            projection=self.job.projection if plan.sketch_size else None,
            span=self.job.span if plan.range_size else None,
            corange=self.job.corange if plan.range_size else None,
            dtype=plan.dtype,
            negatives_allowed=self.settings.negatives == "allow",
            absence_allowed=self.settings.missing_chunks == "report",
            mean_of=self.job.mean_of,
            columns=self.job.columns,
        )
        if plan.method == "full":
            return self._read_whole(recipe)
        like = compression.empty_sketch(recipe, plan.sketch_width).to_arrays(recipe.sample_capacity)
        journal = self.run.journal(
            "sketch",
            len(plan.sketch_blocks),
            like,
            # Few rows of a later block get into the sample.
            chunks={"sample_rows": (-(-recipe.sample_capacity // SAMPLE_PARTS), plan.sketch_width)},
            rows=self.job.allocate_once("stages/range") if plan.range_size else None,
            rows_at_once=plan.range_chunk_rows,
            behind=plan.saves_behind,
            padded=("sample_rows",),
        )
        try:
            with self.job.stage("sketch", journal, plan.sketch_blocks):
                graph = compression.compress(
                    self.job.source, recipe, journal, plan.sketch_blocks, plan.workers
                )
                sketch = self.workers.compute(graph)
        except EntryError:  # the data have to change, and then no block of theirs holds any more
            self.run.drop("stages/sketch")
            raise
        except ScaleError as error:
            rescaled = self._rescale(error.largest)
        else:
            rescaled = self._record_pass(sketch.statistics)
        if rescaled:
            return self.compress()
        self.run.put("stages/probe", sketch.probe)
        if plan.sample_size:
            # Sparse PCA needs rows of one noise, as they are; all other fits are to stand for all of M.
            as_it_is, sample = self.settings.decomposition == "spca", sketch.sample
            rows = sample.rows if as_it_is else sample.weighted(recipe.sample_capacity)
            self.run.put("stages/sample", rows)
        if plan.sketch_size:
            self.run.put("stages/compressed", sketch.compressed)
        if plan.range_size:
            self.run.put("stages/corange", sketch.corange)
            self.run.put("stages/triangle", sketch.triangle)
        self.job.keep_means(sketch.means)

    def factorize(self) -> None:
        """Find the candidates for H, and choose where the next stage needs no more than H."""
        if self.plan.method == "full":
            return
        if self.plan.method == "recover-factorize":
            return recover_then_factorize(self.job)
        with self.job.stage("factorize"):
            found = candidates(self.job)
        for method, candidate in found.items():
            self.run.put(f"stages/candidates/{method}", candidate.components)
        self.run.update(candidates={method: candidate.record() for method, candidate in found.items()})
        if self.settings.refine:
            self._choose(self.run.record["evidence"].get("held_out", {}))

    def recover(self) -> None:
        """W from the sketches alone: one column a task, or row block by row block; then choose."""
        contenders = self.job.contenders
        if "factorize-recover" in contenders:
            recover_columns(self.job)
            reports = column_reports(self.job)
            unconverged = sum(report.status is not Status.converged for report in reports)
            widest = max(report.support for report in reports)
            dense = sum(not report.sparse for report in reports)
            self.job.note(recovery={"widest_support": widest, "unconverged": unconverged, "dense": dense})
        if self.settings.refine or self.plan.method == "full":
            return
        if "range" in contenders:
            recover_rows(self.job)
        errors = {method: estimate(self.job, method) for method in contenders}
        if "factorize-recover" in errors and errors["factorize-recover"].value > 1.0:
            errors["factorize-recover"] = shrunk(self.job, "factorize-recover")
        self.job.note(errors={m: {"value": c.value, "interval": c.interval} for m, c in errors.items()})
        self._choose({method: certificate.value for method, certificate in errors.items()})

    def refine(self) -> None:
        """Make the exact passes; the last one leaves W, block by block, in the run group."""
        plan = self.plan
        for number in range(self.run.record.get("refined", 0) + 1, self.settings.refine + 1):
            last = number == self.settings.refine
            journal = self.run.journal(
                f"refine_{number}",
                len(plan.refine_blocks),
                alternating.empty_sums(plan.carried, plan.width).to_arrays(),
                rows=self.job.allocate_once("stages/weights") if last else None,
                behind=plan.saves_behind,
            )
            components = self.run.complete(f"stages/components_{number - 1}")
            columns = self.job.columns if number == 1 else None  # a first pass finds H in full
            with self.job.stage(f"refine {number}", journal, plan.refine_blocks):
                graph = alternating.refine(
                    self.job.centred_source,
                    self.job.model,
                    components,
                    None,
                    plan.dtype,
                    journal,
                    plan.refine_blocks,
                    plan.workers,
                    columns,
                )
                sums = self.workers.compute(graph)
            self._refuse_other_chunks(sums.missing_chunks, number)
            before = components[:].astype(np.float64)
            self._refuse_changed_data(sums, before, columns is None, number)
            if columns is None:
                updated, squared_error = alternating.update_components(self.job.model, sums, before)
            else:
                updated, squared_error = alternating.first_components(self.job.model, sums)
            self.run.put(f"stages/components_{number}", updated.astype(plan.dtype))
            self.run.put("stages/gram", sums.gram)
            record = self.run.record
            self.run.update(
                refined=number,
                passes=record["passes"] + 1,
                bytes_read=record["bytes_read"] + sums.bytes_read,
                squared_error=squared_error,
            )

    def finish(self) -> None:
        """Bring the factors to their stored form and write them, certify and judge."""
        finish(self.job)

    def _choose(self, errors: dict[str, float]) -> None:
        """Take the contender of least error; `errors` are measured on the same evidence."""
        contenders = self.job.contenders
        method = (
            min(contenders, key=lambda m: errors.get(m, np.inf)) if len(contenders) > 1 else contenders[0]
        )
        if components_of(method) != "stages/components_0":
            h = self.run.complete(components_of(method))[:]
            self.run.put("stages/components_0", h.astype(self.plan.dtype))
        reason = explain(method, contenders, errors, self.settings, self.plan)
        self.run.update(method=method, reason=reason)

    # ------------------------------------------------------------------ their parts

    def _read_whole(self, recipe: compression.SketchRecipe) -> None:
        """Run the uncompressed algorithm: read all of M into the driver and factorize it."""
        plan = self.plan
        dense = Keeping(self.job.source, np.empty((plan.rows, plan.width), plan.dtype))
        whole = Block(0, 0, plan.rows)
        with self.job.stage("sketch", None, (whole,)):
            try:
                sketch, _ = compression.compress_block(dense, recipe, whole)
            except ScaleError as error:
                rescaled = self._rescale(error.largest)
            else:
                rescaled = self._record_pass(sketch.statistics)
        if rescaled:
            return self._read_whole(recipe)
        self.job.keep_means(sketch.means)
        self.run.update(squared_error=factorize_in_memory(self.job, dense.entries))

    def _refuse_other_chunks(self, missing: int, number: int) -> None:
        """Raise `SourceError` where a pass lacked other chunks than the first one did; it is forgotten."""
        first = self.run.record["missing_chunks"]
        if missing != first:
            self.run.drop(f"stages/refine_{number}")
            raise SourceError(
                f"SOURCE lacked {first} chunks in its first pass and {missing} in pass {number + 1}: some"
                " were lost or added in between. Restore it as it was, then the same command makes this pass"
                " again; or start again with --overwrite."
            )

    def _refuse_changed_data(
        self, sums: alternating.RefineSums, components: Float64, known: bool, number: int
    ) -> None:
        """Raise `SourceError` where an exact pass did not read what the first pass did; it is forgotten.

        ‖M‖² = ‖R‖² + 2 ⟨WᵀR, H⟩ + ⟨WᵀW, HHᵀ⟩, with H = 0 where it was not known in full.
        """
        read = sums.squared_residual
        if known:
            read += float(((sums.gradient + sums.linear(components)) * components).sum())
        first = self.run.record["statistics"]["squared_norm"]
        first = self.job.squared_norm if self.job.mean_of == "columns" else first
        # Components that cancel one another are larger than the data, and so is the rounding of their sums.
        sizes = float(np.diag(sums.gram) @ np.square(components).sum(axis=1)) if known else 0.0
        if not abs(read - first) <= SAME_DATA * max(first, read, sizes):  # not a number is another one
            self.run.drop(f"stages/refine_{number}")
            raise SourceError(
                f"SOURCE has changed since its first pass: its squared norm was {first:.8g}, is {read:.8g}."
                " Restore it as it was, then the same command makes this pass again; or start again with"
                " --overwrite."
            )

    def _record_pass(self, statistics: Statistics) -> bool:
        """Record what a first pass learnt; return whether it is to be made again with the data scaled."""
        spent = self.run.record.get("spent", {"passes": 0, "bytes_read": 0})
        spent = {"passes": spent["passes"] + 1, "bytes_read": spent["bytes_read"] + statistics.bytes_read}
        low, high = REACH[self.plan.dtype]
        if statistics.largest > 0.0 and not low <= statistics.squared_norm <= high:
            return self._rescale(statistics.largest, spent=spent)
        self._refuse_unwritable(np.sqrt(statistics.squared_norm))
        self.run.update(
            **spent,
            missing_chunks=statistics.missing_chunks,
            statistics={
                "squared_norm": statistics.squared_norm,
                "minimum": statistics.minimum,
                "zeros": statistics.zeros,
            },
        )
        return False

    def _rescale(self, largest: float, **spent: dict[str, int]) -> bool:
        """Let the first pass begin again with the data divided by a power of two, to about one; return True.

        No more than one full pass is lost: where entries are too large the first block says so.
        """
        self.run.update(exponent=self.job.exponent + int(np.frexp(largest)[1]), **spent)
        for name in ("sketch", "range"):
            self.run.drop(f"stages/{name}")
        return True

    def _refuse_unwritable(self, norm: float) -> None:
        """Raise `SourceError` where the factors of data of this norm cannot be written in their dtype."""
        exponent = np.log2(norm or 1.0) + self.job.exponent
        if exponent > np.finfo(self.plan.dtype).maxexp - 2:
            self.run.drop("stages/sketch")  # the data have to change
            raise SourceError(
                f"The norm of SOURCE, about 1e{exponent * np.log10(2):+.0f}, is more than {self.plan.dtype}"
                " can hold, and so would the factors be: divide the data by their largest entry."
            )
