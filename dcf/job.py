"""What every stage of a run has at hand: its group, its plan, its projections, its workers."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from dcf.errors import UsageError
from dcf.factorization.truncated import LEAST_ZEROS
from dcf.kinds import model_of, row_factorizer, sketch_factorizer
from dcf.sizes import mean_of
from dcf.sketch.projections import (
    CountSketch,
    Folded,
    Role,
    SparseBinary,
    SparseSign,
    sample_of,
)
from dcf.stages import timed
from dcf.storage.arrays import OneColumn, Transposed
from dcf.storage.derived import LessMeans, Scaled

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from dcf.factorization.base import Factorizer
    from dcf.plan import Plan
    from dcf.settings import Settings
    from dcf.solvers.models import Model
    from dcf.storage.run import RunGroup
    from dcf.storage.source import ArraySource
    from dcf.types import Block, BlockSource, Float64, Index, Journal, Reporter, RowStore, Workers


class Job:
    """One run on its way.

    `source` may be None for the stages that never open it (factorize, recover); `may_grow` says
    whether a plan with so large a sketch fits the budget.
    """

    def __init__(
        self,
        run: RunGroup,
        plan: Plan,
        settings: Settings,
        source: ArraySource | None,
        workers: Workers,
        reporter: Reporter,
        may_grow: Callable[[int], bool],
    ) -> None:
        self.run, self.plan, self.settings = run, plan, settings
        self.workers, self.reporter = workers, reporter
        self._source = source
        self._may_grow = may_grow

    def may_grow(self, sketch_size: int) -> bool:
        """Return whether a first pass with a larger sketch is wanted, can be made, and would fit."""
        if not self.settings.resketch or self._source is None or self.run.record.get("resketched"):
            return False
        return self._may_grow(sketch_size)

    @property
    def source(self) -> BlockSource:
        """The data; only the stages that read it ask."""
        if self._source is None:
            raise UsageError("This stage reads SOURCE, and none was given.")
        return Scaled(self._source, self.exponent) if self.exponent else self._source

    @property
    def exponent(self) -> int:
        """E, where the run factorizes the data divided by 2ᴱ (see `dcf.errors.ScaleError`)."""
        return int(self.run.record.get("exponent", 0))

    @cached_property
    def projection(self) -> SparseBinary:
        """P (d, n)."""
        return SparseBinary(self.settings.seed, self.plan.sketch_size, self.settings.nnz_per_column)

    @cached_property
    def probe(self) -> CountSketch:
        """S (t, n)."""
        return CountSketch(self.settings.seed, self.plan.probe_size, role=Role.probe)

    @cached_property
    def span(self) -> Folded:
        """Ω (m, q)."""
        return Folded(self.settings.seed, self.plan.range_size, ones=self.mean_of == "rows")

    @cached_property
    def corange(self) -> SparseSign:
        """Ψ (l, n)."""
        return SparseSign(self.settings.seed, self.plan.corange_size, 2, Role.corange)

    @cached_property
    def columns(self) -> Index | None:
        """The columns of M that the sketches see, where modes besides the first are sampled; None for all."""
        plan = self.plan
        if plan.slices == plan.others:
            return None
        kept = [
            sample_of(self.settings.seed, mode, size, count)
            for mode, (size, count) in enumerate(zip(plan.others, plan.slices, strict=True))
        ]
        return np.ravel_multi_index(np.ix_(*kept), plan.others).ravel()

    @property
    def model(self) -> Model:
        """Which W and H the decomposition allows."""
        return model_of(self.settings, self.plan, self.run.record["evidence"].get("noise", 0.0))

    @property
    def row_factorizer(self) -> Factorizer:
        """What factorizes rows of M in memory."""
        return row_factorizer(self.settings, self.plan, self.workers.count)

    @property
    def sketch_factorizer(self) -> Factorizer:
        """What factorizes the one-sided sketch."""
        return sketch_factorizer(self.settings, self.plan, self.workers.count)

    @property
    def centred_source(self) -> BlockSource:
        """The data, less the means of the columns where these are taken out."""
        if self.mean_of != "columns":
            return self.source
        return LessMeans(self.source, self.run.complete("stages/mean")[:].astype(self.plan.dtype))

    def with_means(self, components: Float64) -> Float64:
        """Return H (r, m), with a last row 1ᵀ/√m where the means of the rows are taken out."""
        if self.mean_of != "rows":
            return components
        return np.concatenate([components, np.full((1, self.plan.width), self.plan.width**-0.5)])

    @property
    def mean_of(self) -> str:
        """Whose means are taken out of M: no, its columns' or its rows'."""
        return mean_of(self.plan.axis, self.settings)

    @property
    def squared_norm(self) -> float:
        """‖M‖²_F, of M less the means that are taken out; 0 where that is no more than rounding."""
        squared: float = self.run.record["statistics"]["squared_norm"]
        left = squared - self.run.record["statistics"].get("squared_means", 0.0)
        return left if left > 1e-13 * squared else 0.0

    def keep_means(self, means: Float64) -> None:
        """Record what the first pass learnt of the means: 1ᵀM (m,) or ‖M 1‖²/m (1,), see `Sketch`."""
        if self.mean_of == "no":
            return
        squared = float(means[0])
        if self.mean_of == "columns":
            self.run.put("stages/mean", means / self.plan.rows)
            squared = float(means @ means) / self.plan.rows
        self.run.update(statistics={**self.run.record["statistics"], "squared_means": squared})

    @property
    def contenders(self) -> tuple[str, ...]:
        """The methods of which one will be chosen, in the order of preference."""
        if self.plan.method != "auto":
            return (self.plan.method,)
        if not self.plan.sample_size:
            return ("range",)
        if not self.settings.refine:
            sparse = self.run.record["evidence"].get("zero_fraction", 0.0) >= LEAST_ZEROS
            return ("factorize-recover", "range") if sparse else ("range",)
        return ("rows", "range") if self.plan.range_size else ("rows",)

    def note(self, **evidence: Any) -> None:
        """Add to the evidence that the run records."""
        self.run.update(evidence={**self.run.record["evidence"], **evidence})

    def stage(
        self, name: str, journal: Journal | None = None, blocks: tuple[Block, ...] = ()
    ) -> AbstractContextManager[None]:
        """Time a stage and tell of its progress."""
        reads = name == "sketch" or name.startswith("refine")
        size = sum(self.source.decoded_bytes(b.start, b.stop) for b in blocks) if reads else 0
        return timed(self.run, self.reporter, name, journal, len(blocks), size)

    def allocate(self, name: str) -> RowStore:
        """Create an n-sized array of the run, one chunk a block of the pass that writes it."""
        plan = self.plan
        width, rows = plan.carried, plan.refine_block_rows
        if name == "stages/range":
            width, rows = plan.range_size, plan.range_chunk_rows
        elif name == "stages/range_weights":
            rows = plan.sketch_block_rows
        elif not name.startswith("stages/"):
            width = plan.rank
        if name == "H":
            return Transposed(self.run.allocate(name, (width, plan.rows), (width, rows), plan.dtype))
        if name == "mean":
            return OneColumn(self.run.allocate(name, (plan.rows,), (rows,), plan.dtype))
        store: RowStore = self.run.allocate(name, (plan.rows, width), (rows, width), plan.dtype)
        return store

    def allocate_once(self, name: str) -> RowStore:
        """Return the array of an earlier, interrupted try, or create it."""
        store: RowStore = self.run.get(name) if self.run.has(name) else self.allocate(name)
        return store
