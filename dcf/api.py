"""The Python calls: plan, open the run group, find workers, run the pipeline."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import dask.utils
import zarr

from dcf.certificate import BY_NAME
from dcf.cluster import connect, placement, uncounted_code
from dcf.errors import BudgetError, RunError, UsageError
from dcf.job import Job
from dcf.kinds import model_of, recovery_of
from dcf.pipeline import Pipeline
from dcf.plan import Plan, make_plan
from dcf.settings import IN_MEMORY, Settings
from dcf.sizes import MIB
from dcf.solvers.shared import single_blas_thread
from dcf.stages import tidy
from dcf.storage.durable import held, sweep
from dcf.storage.record import SCHEMA, change_of, damaged
from dcf.storage.remote import CLIENT_BYTES, refuse_read_only
from dcf.storage.run import RunGroup
from dcf.storage.source import ArraySource, describe, layout_of, open_source
from dcf.types import STAGES, Layout, Reporter
from dcf.urls import HIDDEN, conceal
from dcf.warm import compile_kernels

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


def parse_memory(memory: str | int, option: str = "--memory") -> int:
    """Return a size such as 512MiB in bytes. Raises `UsageError` for what is none."""
    try:
        if not any(map(str.isdigit, str(memory))):  # Dask reads an empty one as a byte
            raise ValueError
        size = int(dask.utils.parse_bytes(memory))
    except (ValueError, AttributeError, OverflowError) as error:
        raise UsageError(f"{option} is {memory!r}; give a size such as 512MiB or 2GiB.") from error
    if size < 1:
        raise UsageError(f"{option} is {memory!r}; it must be positive.")
    if size >= 2**63:
        raise UsageError(f"{option} is {memory!r}, more than any machine has.")
    return size


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


def plan_run(
    source: str | Path | zarr.Array[Any],
    settings: Settings,
    memory: str | int = DEFAULT_MEMORY,
    workers: int | None = None,
) -> Plan:
    """Return the plan of a run, or refuse it; reads metadata alone."""
    if not isinstance(source, zarr.Array):
        source = absolute(source, "SOURCE")
    array = open_source(source, tensor=settings.decomposition == "cp")
    return _fitting_plan(layout_of(array), settings, parse_memory(memory), workers)[0]


def _fitting_plan(
    layout: Layout, settings: Settings, memory: int, workers: int | None, out: str = ""
) -> tuple[Plan, bool]:
    """Return a plan and whether its tasks run as threads of this process.

    Small data do, unless their threads together would not fit where processes do.
    """
    mapped = uncounted_code() + (CLIENT_BYTES if layout.remote or "://" in out else 0)
    if workers is not None and workers > MOST_WORKERS:
        raise UsageError(f"--workers is {workers}; this machine takes at most {MOST_WORKERS}.")
    small = layout.nbytes <= SMALL_SOURCE_BYTES or settings.method in IN_MEMORY
    try:
        return make_plan(layout, settings, memory, *placement(workers, small), mapped), small
    except BudgetError:
        if not small:
            raise
    return make_plan(layout, settings, memory, *placement(workers, False), mapped), False


def run_source(
    source: str | Path | zarr.Array[Any],
    out: str | Path,
    settings: Settings,
    *,
    memory: str | int = DEFAULT_MEMORY,
    workers: int | None = None,
    overwrite: bool = False,
    last: str = "done",
    command: str = "",
    reporter: Reporter | None = None,
) -> RunGroup:
    """Begin a run at `out`, or resume it, and carry it to the stage `last`."""
    out = absolute(out, "OUT")
    refuse_read_only(out)
    if not isinstance(source, zarr.Array):
        source = absolute(source, "SOURCE")
    array = open_source(source, tensor=settings.decomposition == "cp")
    url = str(array.store_path) if isinstance(source, zarr.Array) else source
    refuse_overlap(url, out)
    plan, in_process = _fitting_plan(layout_of(array), settings, parse_memory(memory), workers, out)
    if last != "done" and plan.method in IN_MEMORY:
        raise UsageError(f"--method {plan.method} has no stages; use dcf {settings.decomposition}.")
    if last != "done" and settings.resketch:
        raise UsageError(
            "--resketch may have to read SOURCE again in a later stage; use it with"
            f" dcf {settings.decomposition}."
        )
    record = {
        "schema": SCHEMA,
        "version": importlib.metadata.version("dcf"),
        "command": conceal(command),
        "source": describe(array, url),
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
    with held(out):
        run = RunGroup.create(out, record, overwrite)
        _carry(run, plan, settings, array, last, in_process, reporter)
    return run


def run_stage(
    out: str | Path,
    last: str,
    *,
    memory: str | int | None = None,
    workers: int | None = None,
    reporter: Reporter | None = None,
) -> RunGroup:
    """Carry the run at `out` through the stage `last`; opens the source for `refine` alone.

    Raises `UsageError` where the stage before it has not run.
    """
    place = absolute(out, "OUT")
    refuse_read_only(place)
    RunGroup.open(place, mode="r")  # nothing is made where nothing is
    with held(place):
        return _run_stage(RunGroup.open(place), out, last, memory, workers, reporter)


def _run_stage(
    run: RunGroup,
    out: str | Path,
    last: str,
    memory: str | int | None,
    workers: int | None,
    reporter: Reporter | None,
) -> RunGroup:
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
    was = record["plan"]
    plan, in_process = _fitting_plan(
        layout, settings, parse_memory(memory or was["memory"]), workers or was["workers"], run.url
    )
    ends = last == "refine" or (last == "recover" and settings.refine == 0)
    _carry(run, plan, settings, array, "done" if ends else last, in_process, reporter)
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
    reporter: Reporter | None,
) -> None:
    """Run the stages up to `last` on the workers there are; start again where a run asks for more rows."""
    while STAGES.index(run.record["stage"]) < STAGES.index(last):
        larger = run.record.get("resketched")
        if larger:
            plan, in_process = _larger_plan(run, plan, settings, larger["sketch_size"])
            if run.record["plan"]["sample_size"] != plan.sample_size or (
                run.record["plan"]["sketch_size"] != plan.sketch_size
            ):
                run.drop("stages")  # of the smaller sketch
        _carry_once(run, plan, settings, array, last, in_process, reporter)
    tidy(run)
    sweep(run.url)  # of workers that died while they wrote


def _larger_plan(run: RunGroup, plan: Plan, settings: Settings, sketch_size: int) -> tuple[Plan, bool]:
    wanted = replace(settings, sketch_size=sketch_size)
    return _fitting_plan(Layout.of(run.record["source"]), wanted, plan.memory, plan.workers, run.url)


def _carry_once(
    run: RunGroup,
    plan: Plan,
    settings: Settings,
    array: zarr.Array[Any] | None,
    last: str,
    in_process: bool,
    reporter: Reporter | None,
) -> None:
    def may_grow(sketch_size: int) -> bool:
        try:
            _larger_plan(run, plan, settings, sketch_size)
        except BudgetError:
            return False
        return True

    tidy(run)
    run.update(plan=plan.record(), stopped="")
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
        here = in_process or last == "factorize"
        with connect(plan.workers, here, plan.memory, plan.worker_bytes) as workers:
            compiled.result()
            job = Job(run, plan, settings, source, workers, reporter or Silent(), may_grow)
            try:
                Pipeline(job).run_until(last)
            except BaseException as error:
                with suppress(RunError):  # what stopped it may be that nothing can be written
                    run.update(stopped=conceal(str(error)) or "interrupted")
                raise
