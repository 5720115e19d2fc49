"""The Python calls: plan, open the run group, find workers, run the pipeline."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import zarr

from dcf.certificate import BY_NAME
from dcf.cluster.connect import attached, connect, placement
from dcf.cluster.resident import uncounted_code
from dcf.errors import BudgetError, RunError, UsageError
from dcf.job import Job
from dcf.kinds import model_of, recovery_of
from dcf.pipeline import Pipeline
from dcf.plan import Plan, make_plan
from dcf.settings import IN_MEMORY, Settings, parse_memory
from dcf.sizes import MIB
from dcf.solvers.shared import single_blas_thread
from dcf.stages import KILLED, Told, tidy
from dcf.storage.durable import held, sweep
from dcf.storage.lease import Host, Lease, refuse_busy
from dcf.storage.record import SCHEMA, change_of, damaged
from dcf.storage.remote import CLIENT_BYTES, refuse_read_only
from dcf.storage.run import RunGroup
from dcf.storage.source import ArraySource, describe, layout_of, open_source
from dcf.types import STAGES, Layout, Reporter
from dcf.urls import HIDDEN, conceal
from dcf.warm import compile_kernels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dcf.cluster.configuration import ClusterConfig

DEFAULT_MEMORY = "2GiB"
# Starting worker processes takes about as long as two passes over this much (DESIGN.md).
SMALL_SOURCE_BYTES = 256 * MIB
MOST_WORKERS = 1024  # processes of one machine; a cluster has its own client
_RECORDED_PACKAGES = ("numpy", "scipy", "numba", "zarr", "dask", "distributed")


class Silent:
    """A reporter that says nothing."""

    def begin(self, stage: str, blocks: int, size: int) -> None:
        """Say nothing."""

    def advance(self, finished: int) -> None:
        """Say nothing."""

    def end(self, seconds: float) -> None:
        """Say nothing."""


def environment() -> dict[str, str]:
    """Return what may change the bits of a result besides plan and seed."""
    cpu = Path("/proc/cpuinfo")
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in (cpu.read_text().splitlines() if cpu.exists() else [])
            if line.startswith("model name")
        ),
        platform.processor() or platform.machine(),
    )
    versions = {name: importlib.metadata.version(name) for name in _RECORDED_PACKAGES}
    return {"python": platform.python_version(), "cpu": model, "system": platform.system(), **versions}


@dataclass(frozen=True)
class Place:
    """Where a run is computed, and with how much."""

    memory: int
    """bytes of each worker and of the driver"""
    workers: int | None = None
    """local worker processes; None for one a core, or where others decide"""
    cluster: ClusterConfig | None = None
    """what a cluster file describes; None for the present client, or this machine"""
    host: Host = field(default_factory=Host)
    """what the driver runs in"""

    @classmethod
    def of(
        cls, memory: str | int | None, workers: int | None, cluster: ClusterConfig | None, host: Host | None
    ) -> Place:
        """Return the place that options ask for; what a cluster file says counts where they say nothing."""
        if cluster is not None:
            memory = cluster.memory if memory is None else memory
            if workers is not None and cluster.kind == "dask":
                raise UsageError("--workers is for workers that are started; a running cluster has its own.")
            if cluster.kind != "dask":
                workers = workers or cluster.workers
                cluster = replace(cluster, workers=workers)
        return cls(
            parse_memory(DEFAULT_MEMORY if memory is None else memory), workers, cluster, host or Host()
        )


def plan_run(
    source: str | Path | zarr.Array[Any],
    settings: Settings,
    memory: str | int | None = None,
    workers: int | None = None,
    cluster: ClusterConfig | None = None,
) -> Plan:
    """Return the plan of a run, or refuse it; reads metadata alone."""
    if not isinstance(source, zarr.Array):
        source = absolute(source, "SOURCE")
    array = open_source(source, tensor=settings.decomposition == "cp")
    with attached(cluster):
        return _fitting_plan(layout_of(array), settings, Place.of(memory, workers, cluster, None))[0]


def _fitting_plan(layout: Layout, settings: Settings, place: Place, out: str = "") -> tuple[Plan, bool]:
    """Return a plan and whether its tasks run as threads of this process.

    Small data do, unless their threads together would not fit where processes do.
    """
    mapped = uncounted_code() + (CLIENT_BYTES if layout.remote or "://" in out else 0)
    memory, workers, cluster = place.memory, place.workers, place.cluster
    if workers is not None and workers > MOST_WORKERS and not (cluster and cluster.is_queue):
        raise UsageError(f"--workers is {workers}; this machine takes at most {MOST_WORKERS}.")
    small = layout.nbytes <= SMALL_SOURCE_BYTES or settings.method in IN_MEMORY
    if cluster is not None and cluster.is_queue:
        if settings.method == "full":
            raise UsageError("--method full computes in the driver alone; leave out --cluster.")
        small = False
    try:
        return make_plan(layout, settings, memory, *placement(cluster, workers, small), mapped), small
    except BudgetError:
        if not small:
            raise
    return make_plan(layout, settings, memory, *placement(cluster, workers, False), mapped), False


def run_source(
    source: str | Path | zarr.Array[Any],
    out: str | Path,
    settings: Settings,
    *,
    memory: str | int | None = None,
    workers: int | None = None,
    cluster: ClusterConfig | None = None,
    overwrite: bool = False,
    last: str = "done",
    command: str = "",
    reporter: Reporter | None = None,
    host: Host | None = None,
) -> RunGroup:
    """Begin a run at `out`, or resume it, and carry it to the stage `last`."""
    place = Place.of(memory, workers, cluster, host)
    with begun(source, out, settings, place, overwrite=overwrite, last=last, command=command) as begin:
        run, plan, array, in_process = begin
        _carry(run, plan, settings, array, last, in_process, reporter or Silent(), place)
    return run


@contextmanager
def begun(
    source: str | Path | zarr.Array[Any],
    out: str | Path,
    settings: Settings,
    place: Place,
    *,
    overwrite: bool,
    last: str,
    command: str,
) -> Iterator[tuple[RunGroup, Plan, zarr.Array[Any], bool]]:
    """Yield a run, begun or come back to, and held; its plan, SOURCE, and whether threads here compute it.

    What makes no sense or does not fit is refused before anything is written.
    """
    out = absolute(out, "OUT")
    refuse_read_only(out)
    if not isinstance(source, zarr.Array):
        source = absolute(source, "SOURCE")
    array = open_source(source, tensor=settings.decomposition == "cp")
    url = str(array.store_path) if isinstance(source, zarr.Array) else source
    refuse_overlap(url, out)
    with attached(place.cluster):
        plan, in_process = _fitting_plan(layout_of(array), settings, place, out)
        if last != "done" and plan.method in IN_MEMORY:
            raise UsageError(f"--method {plan.method} has no stages; use dcf {settings.decomposition}.")
        if last != "done" and settings.resketch:
            raise UsageError(
                "--resketch may have to read SOURCE again in a later stage; use it with"
                f" dcf {settings.decomposition}."
            )
        with held(out):
            refuse_busy(out)
            record = _record_of(settings, plan, describe(array, url), command)
            yield RunGroup.create(out, record, overwrite), plan, array, in_process


def _record_of(settings: Settings, plan: Plan, source: dict[str, Any], command: str) -> dict[str, Any]:
    """Return the record of a run that begins."""
    return {
        "schema": SCHEMA,
        "version": importlib.metadata.version("dcf"),
        "command": conceal(command),
        "folder": os.getcwd() if command else "",
        "source": source,
        "settings": settings.record(),
        "plan": plan.record(),
        "seed": settings.seed,
        "method": plan.method,
        "reason": "" if settings.method == "auto" else BY_NAME,
        "candidates": {},
        "evidence": {},
        "passes": 0,
        "bytes_read": 0,
        "missing_chunks": 0,
        "seconds": {},
        "peak_memory": {},
        "environment": environment(),
        "stage": STAGES[0],
        "resumed": 0,
    }


def run_stage(
    out: str | Path,
    last: str,
    *,
    memory: str | int | None = None,
    workers: int | None = None,
    cluster: ClusterConfig | None = None,
    reporter: Reporter | None = None,
    host: Host | None = None,
) -> RunGroup:
    """Carry the run at `out` through the stage `last`; opens the source for `refine` alone.

    Raises `UsageError` where the stage before it has not run.
    """
    url = absolute(out, "OUT")
    refuse_read_only(url)
    was = RunGroup.open(url, mode="r").record["plan"]  # nothing is made where nothing is
    if memory is None:
        memory = (cluster and cluster.memory) or was["memory"]
    if workers is None and cluster is None:
        workers = was["workers"]
    place = Place.of(memory, workers, cluster, host)
    with attached(cluster), held(url):
        refuse_busy(url)
        return _run_stage(RunGroup.open(url), out, last, place, reporter or Silent())


def _run_stage(run: RunGroup, out: str | Path, last: str, place: Place, reporter: Reporter) -> RunGroup:
    record = run.record
    reached = STAGES.index(record["stage"])
    if reached < STAGES.index(last) - 1:
        raise UsageError(f"OUT {out} has reached {record['stage']}; run dcf {STAGES[reached + 1]} first.")
    try:
        settings = Settings(**record["settings"])
        layout = Layout.of(record["source"])
    except (TypeError, ValueError) as error:
        raise damaged(run.url, f"its settings or source cannot be used: {error}") from error
    source = record["source"]
    tensor = settings.decomposition == "cp"
    if last == "refine" and HIDDEN in source["url"]:
        raise UsageError(
            f"The URL of SOURCE, {source['url']}, held a secret, which no run keeps: go on with"
            f" dcf {settings.decomposition} and the URL itself, or give the secret by the environment."
        )
    array = open_source(source["url"], tensor=tensor) if last == "refine" and settings.refine else None
    changed = array is not None and change_of(source, describe(array, source["url"]))
    if changed:
        raise UsageError(
            f"SOURCE {source['url']} is not the array that this run began with: its {changed}. Restore it, or"
            " begin another run."
        )
    plan, in_process = _fitting_plan(layout, settings, place, run.url)
    ends = last == "refine" or (last == "recover" and settings.refine == 0)
    _carry(run, plan, settings, array, "done" if ends else last, in_process, reporter, place)
    return run


def absolute(place: str | Path, name: str) -> str:
    """Return a path that holds from any working directory; URLs stay, file:// becomes a path.

    Raises `UsageError` for what names no place.
    """
    if not isinstance(place, str | Path):
        raise UsageError(
            f"SOURCE and OUT are paths or URLs (SOURCE also an array), not {type(place).__name__}."
        )
    text = str(place).removeprefix("file://")
    if not text or "\0" in text:
        raise UsageError(f"{name} is {text!r}, which names no place; give a path or URL.")
    return text if "://" in text else str(Path(text).absolute())


def refuse_overlap(source: str, out: str) -> None:
    """Raise `UsageError` where one of two places, paths or URLs, lies inside the other."""
    source = source.removeprefix("file://")
    # Of a path the real one (a link to itself stays one); of a URL the name alone says where it lies.
    a, b = (
        PurePosixPath(place.split("?")[0].replace("s3a://", "s3://"))
        if "://" in place
        else Path(os.path.realpath(place))
        for place in (source, out)
    )
    if a.is_relative_to(b) or b.is_relative_to(a):
        raise UsageError(f"OUT {out} and SOURCE {source} lie inside one another; choose another OUT.")


def _carry(
    run: RunGroup,
    plan: Plan,
    settings: Settings,
    array: zarr.Array[Any] | None,
    last: str,
    in_process: bool,
    reporter: Reporter,
    place: Place,
) -> None:
    """Run the stages up to `last` on the workers there are; start again where a run asks for more rows."""
    lease = Lease(run, place.host)
    with lease.held():
        while STAGES.index(run.record["stage"]) < STAGES.index(last):
            larger = run.record.get("resketched")
            if larger:
                plan, in_process = _larger_plan(run, settings, larger["sketch_size"], place)
                if run.record["plan"]["sample_size"] != plan.sample_size or (
                    run.record["plan"]["sketch_size"] != plan.sketch_size
                ):
                    run.drop("stages")  # of the smaller sketch
            _carry_once(run, plan, settings, array, last, in_process, reporter, place, lease)
        tidy(run)
    sweep(run.url)  # of workers that died while they wrote


def _larger_plan(run: RunGroup, settings: Settings, sketch_size: int, place: Place) -> tuple[Plan, bool]:
    wanted = replace(settings, sketch_size=sketch_size)
    return _fitting_plan(Layout.of(run.record["source"]), wanted, place, run.url)


def _carry_once(
    run: RunGroup,
    plan: Plan,
    settings: Settings,
    array: zarr.Array[Any] | None,
    last: str,
    in_process: bool,
    reporter: Reporter,
    place: Place,
    lease: Lease,
) -> None:
    def may_grow(sketch_size: int) -> bool:
        try:
            _larger_plan(run, settings, sketch_size, place)
        except BudgetError:
            return False
        return True

    tidy(run)
    run.update(plan=plan.record(), stopped=KILLED)
    source = (
        None
        if array is None
        else ArraySource(
            array, plan.axis, plan.stripe_rows, plan.tile_rows, plan.chunks_in_flight, plan.dtype
        )
    )
    with ThreadPoolExecutor(1) as pool, single_blas_thread():
        kernels = model_of(settings, plan, 1.0), recovery_of(settings)
        compiled = pool.submit(compile_kernels, plan, *kernels)
        here, cluster = in_process or last == "factorize", place.cluster
        limits = plan.memory, plan.worker_bytes
        with connect(plan.workers, here, *limits, cluster, lease.check) as workers:
            compiled.result()
            job = Job(run, plan, settings, source, workers, Told(reporter, lease.progress), may_grow)
            try:
                Pipeline(job).run_until(last)
            except BaseException as error:
                with suppress(RunError):  # what stopped it may be that nothing can be written
                    run.update(stopped=lease.reason or conceal(str(error)) or "interrupted")
                raise
            run.update(stopped="")
