"""Records and plans as text."""

from __future__ import annotations

import datetime
import os
import shlex
from typing import TYPE_CHECKING, Any

from dcf.sizes import gigabytes, mebibytes, rate
from dcf.stages import KILLED
from dcf.storage.durable import is_held

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dcf.plan import Plan
    from dcf.storage.run import RunGroup

_NEXT = {"sketch": "factorize", "factorize": "recover", "recover": "refine", "refine": "refine"}


def plan_lines(plan: Plan, source: dict[str, Any]) -> list[str]:
    """Return what a plan says, a line a fact."""
    size = plan.bytes_to_read // plan.passes
    swept = f", swept {plan.most_sweeps} times at the most" if plan.most_sweeps else ""
    held_out = f" + {plan.held_out}" if plan.held_out else ""
    sketches = [
        f"one-sided sketch of {plan.sketch_size} rows" if plan.sketch_size else "",
        f"sample of {plan.sample_size}{held_out} rows" if plan.sample_size else "",
        f"range sketch of {plan.range_size} columns ({gigabytes(plan.range_bytes)})"
        f" and {plan.corange_size} rows{swept}"
        if plan.range_size
        else "",
        f"probe of {plan.probe_size} rows"
        if plan.method != "full"
        else "none: the data themselves are factorized",
        f"all of them over a sample, {_by(plan.slices)}, of the other modes' {_by(plan.others)}"
        if plan.slices != plan.others
        else "",
    ]
    blocks = []
    if plan.method != "full":
        blocks.append(
            f"{len(plan.sketch_blocks)} of {min(plan.sketch_block_rows, plan.rows)} rows in the sketch pass"
        )
    if plan.passes > 1:
        blocks.append(
            f"{len(plan.refine_blocks)} of {min(plan.refine_block_rows, plan.rows)} rows in a refine pass"
        )
    stages = ", ".join(f"{stage} {count}" for stage, count in plan.tasks.items() if count)
    return [
        f"source       {_by(source['shape'])} {source['dtype']}, {gigabytes(size)} decoded",
        f"             chunks {_by(source['chunks'])}"
        + (f", shards {_by(source['shards'])}" if source["shards"] else ""),
        f"method       {plan.method}, rank {plan.rank}, axis {plan.axis} compressed",
        f"sketches     {', '.join(s for s in sketches if s)}",
        f"passes       {plan.passes}, {gigabytes(plan.bytes_to_read)} to decode",
        f"blocks       {', '.join(blocks) or 'none'}",
        f"tasks        {stages or 'none'} ({plan.workers} workers)",
        f"memory       {mebibytes(plan.worker_bytes)} a worker, {mebibytes(plan.driver_bytes)} the driver,"
        f" of {mebibytes(plan.memory)} allowed; {plan.chunks_in_flight} chunks in flight",
    ]


def _by(sizes: Sequence[int]) -> str:
    return " x ".join(str(size) for size in sizes)


def summary_lines(record: dict[str, Any], out: str) -> list[str]:
    """Return the closing summary of a finished run."""
    source, plan, error = record["source"], record["plan"], record["relative_error"]
    interval = error["interval"]
    known = "exact" if interval is None else f"estimated, 95 % within {interval[0]:.4g} … {interval[1]:.4g}"
    seconds = record["seconds"]
    per_pass = record["bytes_read"] / max(record["passes"], 1)
    stages = []
    for stage, elapsed in seconds.items():
        # After a resume the seconds of the lost try are unknown, and so is the rate.
        reads = (stage == "sketch" or stage.startswith("refine")) and not record["resumed"]
        speed = f" ({rate(per_pass, elapsed)})" if reads else ""
        stages.append(f"{stage} {elapsed:.1f} s{speed}")
    peak = record["peak_memory"]
    return [
        f"{_by(source['shape'])} ≈ {_product(record)}, method {record['method']}: {record['reason']}",
        f"error        {error['value']:.6g} ({known}{_of_what(record)})",
        f"passes       {record['passes']}, {gigabytes(record['bytes_read'])} decoded,"
        f" {record['missing_chunks']} absent chunks",
        f"time         {', '.join(stages)}",
        f"peak memory  {mebibytes(peak['worker'])} a worker (planned {mebibytes(plan['worker_bytes'])},"
        f" allowed {mebibytes(plan['memory'])}), {mebibytes(peak['driver'])} the driver",
        f"{record['trust']['verdict']:<12} {record['trust']['why']}",
        *([f"advice       {record['advice']}"] if record["advice"] else []),
        f"written      {out}: arrays {_arrays(record)}, attributes dcf",
    ]


def unfinished_lines(run: RunGroup) -> list[str]:
    """Return how far a run is, why it stopped, and what goes on with it."""
    record, lines = run.record, []
    stage = record["stage"]
    lines.append("begun; no stage is done" if stage == "created" else f"stage {stage} is done")
    lines += [f"blocks       {done} of {count} of {name} are finished" for name, done, count in run.begun()]
    if is_held(run.url):
        lines.append("going        a run is at work on it")
        return lines
    stopped = record.get("stopped", KILLED)
    if stopped:
        lines.append(f"stopped      {stopped}")
    if stage == "created" or not record["command"].startswith("dcf sketch"):
        lines.append(f"resume with  {resumed_by(record['command'], record.get('folder', ''))}")
    else:
        lines[0] += f"; next: dcf {_NEXT[stage]} {shlex.quote(run.url)}"
    return lines


def resumed_by(command: str, folder: str) -> str:
    """Return what a user may type here to resume a run that `command`, typed in `folder`, began."""
    if not command:
        return "the call that began it"
    return command if folder in ("", os.getcwd()) else f"cd {shlex.quote(folder)} && {command}"


def _of_what(record: dict[str, Any]) -> str:
    center = record["settings"]["center"]
    return "" if center == "no" else f", of the data less the means of their {center}"


def _product(record: dict[str, Any]) -> str:
    """Return the model in letters, with the shapes of its factors."""
    shape, rank, settings = record["source"]["shape"], record["settings"]["rank"], record["settings"]
    if settings["decomposition"] == "cp":
        return f"a sum of {rank} tensors of rank one"
    less = {"no": "", "columns": "the means of its columns + ", "rows": "the means of its rows + "}
    return f"{less[settings['center']]}W ({shape[0]} x {rank}) H ({rank} x {shape[1]})"


def _arrays(record: dict[str, Any]) -> str:
    if record["settings"]["decomposition"] == "cp":
        last = len(record["source"]["shape"]) - 1
        return f"weights and factor_0 … factor_{last}"
    return "W and H" if record["settings"]["center"] == "no" else "W, H and mean"


def component_lines(record: dict[str, Any]) -> list[str]:
    """Return a table of the components; stability is the least cosine to the same one from other starts."""
    head = (
        f"{'component':>9}  {'norm':>10}  {'support':>10}  {'stability':>9}  {'iterations':>10}"
        f"  {'residual':>9}  status"
    )
    rows = [
        f"{k:>9}  {c['norm']:>10.4g}  {c['support']:>10}  {_stability(c['stability']):>9}"
        f"  {c['iterations']:>10}  {c['residual']:>9.1e}  {c['status']}"
        for k, c in enumerate(record["components"])
    ]
    return [head, *rows]


def _stability(cosine: float | None) -> str:
    return "unknown" if cosine is None else f"{cosine:.4f}"


def submitted_lines(job: dict[str, Any], out: str) -> list[str]:
    """Return what to know of a driver that was just submitted."""
    place = shlex.quote(out)
    if not job:
        return [f"the run at {out} is done already: dcf inspect {place}"]
    log = [f"log          {job['log']}"] if "log" in job else []
    return [
        f"submitted    {job['where']} job {job['jobs'][-1]}",
        *log,
        f"come back    dcf status {place} · dcf logs {place} · dcf cancel {place}",
    ]


def status_lines(now: dict[str, Any]) -> list[str]:
    """Return how a run is, a line a fact."""
    lines = [f"state        {_STATES.get(now['state'], now['state'])}"]
    if now["state"] == "waiting":
        lines += [f"reached      {now['reached']}"]
        return [*lines, f"next         dcf {_NEXT[now['reached']]} {shlex.quote(now['out'])}"]
    if now["jobs"]:
        before = f", after {', '.join(now['jobs'][:-1])}" if now["jobs"][:-1] else ""
        lines.append(f"driver       {now['where']} job {now['jobs'][-1]}{before}")
    if now["state"] == "done":
        return [*lines, f"result       dcf inspect {shlex.quote(now['out'])}"]
    if now["state"] == "running" and now["stage"]:
        many = f": {now['finished']} of {now['blocks']} blocks" if now["blocks"] else ""
        speed = f", {rate(now['rate'], 1.0)}" if now["rate"] else ""
        left = f", about {_duration(now['left'])} left of this stage" if now["left"] is not None else ""
        lines.append(f"stage        {now['stage']}{many}{speed}{left}")
    else:
        lines.append(f"reached      {now['reached']}")
        lines += [
            f"blocks       {done} of {count} of {name} are finished" for name, done, count in now["passes"]
        ]
    if now["silent"] is not None:
        lines.append(f"driver's     last sign of life {_duration(now['silent'])} ago, on {now['host']}")
    if now["state"] == "running" and now["until"]:
        lines.append(f"stops at     {datetime.datetime.fromtimestamp(now['until']):%Y-%m-%d %H:%M:%S}")
    if now["error"]:
        lines.append(f"last error   {now['error']}")
    if now["log"]:
        lines.append(f"log          {now['log']}")
    if now["state"] in ("stopped", "cancelled", "failed", "lost") and now["command"]:
        lines.append(f"resume with  {resumed_by(now['command'], now['folder'])}")
    return lines


_STATES = {
    "waiting": "waiting for the verb of its next stage",
    "queued": "queued: its driver waits, or is about to begin",
    "lost": "lost: its driver gives no sign of life, and did not say that it stopped",
}


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
