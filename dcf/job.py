"""What every stage of a run has at hand: its group, its plan, its projections, its workers."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from dcf.errors import UsageError
from dcf.factorization.truncated import LEAST_ZEROS
from dcf.sketch.projections import CountSketch, Gaussian, Role, SparseBinary, SparseSign
from dcf.stages import timed
from dcf.storage.run import Transposed

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from dcf.plan import Plan
    from dcf.settings import Settings
    from dcf.storage.run import RunGroup
    from dcf.storage.source import ArraySource
    from dcf.types import Block, Journal, Reporter, RowStore, Workers


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
    def source(self) -> ArraySource:
        """The data; only the stages that read it ask."""
        if self._source is None:
            raise UsageError("This stage reads SOURCE, and none was given.")
        return self._source

    @cached_property
    def projection(self) -> SparseBinary:
        """P (d, n)."""
        return SparseBinary(self.settings.seed, self.plan.sketch_size, self.settings.nnz_per_column)

    @cached_property
    def probe(self) -> CountSketch:
        """S (t, n)."""
        return CountSketch(self.settings.seed, self.plan.probe_size, role=Role.probe)

    @cached_property
    def span(self) -> Gaussian:
        """Ωᵀ (q, m)."""
        return Gaussian(self.settings.seed, self.plan.range_size, Role.range)

    @cached_property
    def corange(self) -> SparseSign:
        """Ψ (l, n)."""
        return SparseSign(self.settings.seed, self.plan.corange_size, 2, Role.corange)

    @property
    def contenders(self) -> tuple[str, ...]:
        """The methods of which one will be chosen, in the order of preference."""
        if self.plan.method != "auto":
            return (self.plan.method,)
        if not self.settings.refine:
            sparse = self.run.record["evidence"].get("zero_fraction", 1.0) >= LEAST_ZEROS
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
        width, rows = plan.rank, plan.refine_block_rows
        if name == "stages/range":
            width, rows = plan.range_size, plan.range_chunk_rows
        elif name == "stages/range_weights":
            rows = plan.sketch_block_rows
        if name == "H":
            return Transposed(self.run.allocate(name, (width, plan.rows), (width, rows), plan.dtype))
        store: RowStore = self.run.allocate(name, (plan.rows, width), (rows, width), plan.dtype)
        return store

    def allocate_once(self, name: str) -> RowStore:
        """Return the array of an earlier, interrupted try, or create it."""
        store: RowStore = self.run.get(name) if self.run.has(name) else self.allocate(name)
        return store
