"""A driver that is left alone: submitted, asked how far it is, told to stop; by the run group alone."""

from __future__ import annotations

import math
import shlex
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dcf.api import Place, absolute, begun, run_source
from dcf.cluster.batch import cancel as cancel_job
from dcf.cluster.batch import driver_script, follow, own_job, refuse_no_queue, submit, time_left
from dcf.cluster.connect import attached, start_task
from dcf.cluster.queues import listed, number
from dcf.errors import DcfError, RunError, UsageError
from dcf.lines import Lines, describe
from dcf.settings import Settings
from dcf.stages import KILLED
from dcf.storage.durable import is_held, is_local
from dcf.storage.lease import BEAT_SECONDS, OUT_OF_TIME, SILENT_BEATS, Host, is_fresh, read, write
from dcf.storage.run import RunGroup
from dcf.urls import HIDDEN, conceal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dcf.cluster.configuration import ClusterConfig

_GOING = ("running", "queued")


def host_here() -> Host:
    """Return what this process runs in: a job that `dcf submit` made, or whatever somebody started it in."""
    kind, job = own_job()
    return Host(kind or "here", job, time_left())


def submit_run(
    source: str,
    out: str,
    settings: Settings,
    *,
    words: Sequence[str],
    memory: str | int | None,
    workers: int | None,
    cluster: ClusterConfig,
    overwrite: bool,
) -> dict[str, Any]:
    """Begin a run at `out` and leave its driver to a batch queue or a running Dask cluster.

    `words` are the command line that the driver is to run, without ``dcf``. Returns the document that is
    left in the run group (`where`, `jobs`, `log`, …), empty where the run is done. Raises what the run itself
    would raise before it reads a chunk, `UsageError` for a URL with a secret or a kind of cluster that takes
    no driver, `RunError` where a driver is there already or the queue does not take the job.
    """
    if any(conceal(word) != word for word in words):
        raise UsageError(
            f"A driver that is submitted would keep the secret in a URL ({HIDDEN}) in its script; give it by"
            " the environment."
        )
    if cluster.kind != "dask":
        refuse_no_queue(cluster)
    _refuse_submitted(out)
    place, command = Place.of(memory, workers, cluster, None), shlex.join(["dcf", *words])
    with attached(cluster):
        with begun(source, out, settings, place, overwrite=overwrite, last="done", command=command) as begin:
            run = begin[0]
            if run.record["stage"] == "done":
                return {}
            run.drop("driver")
            job = {"where": cluster.kind, "time": time.time(), "host": socket.gethostname(), "jobs": []}
            write(run, "job", job)
        # The driver may begin at once, and finds the run held by nobody.
        try:
            if cluster.kind == "dask":
                key = f"dcf-{run.record['run']}"
                job |= {"jobs": [key], "scheduler": cluster.scheduler}
                target = (absolute(source, "SOURCE"), run.url, settings.record(), place.memory, command, key)
                start_task(drive, *target, key=key)
            else:
                name = f"{Path(run.url).name}-{run.record['run'][:8]}"
                script, log = (Path(cluster.logs, f"{name}.{kind}") for kind in ("sh", "log"))
                job |= {"script": str(script), "log": str(log)}
                _write_script(script, driver_script(cluster, place.memory, words, log, script))
                job |= {"jobs": [submit(cluster, script)]}
        except DcfError as error:
            write(run, "job", {**job, "refused": str(error)})
            raise
        write(run, "job", job)
        return job


def _write_script(script: Path, text: str) -> None:
    try:
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(text)
        script.chmod(0o700)
    except OSError as error:
        raise RunError(f"The logs folder {script.parent} cannot be written: {error.strerror}.") from error


def _refuse_submitted(out: str) -> None:
    """Raise `RunError` where a driver was submitted for a run and waits or runs still."""
    try:
        now = status_of(out)
    except UsageError:  # nothing is there yet
        return
    if now["state"] in _GOING and now["jobs"]:
        raise RunError(
            f"OUT {out} has a driver already, {now['where']} job {now['jobs'][-1]} ({now['state']}); wait for"
            f" it, or end it with dcf cancel."
        )


def go_on(out: str, cluster: ClusterConfig, reason: str) -> str:
    """Let another job follow this one where its time is up; return its number, empty where none is to."""
    kind, _ = own_job()
    if not kind or OUT_OF_TIME not in reason:
        return ""
    run = RunGroup.open(absolute(out, "OUT"))
    job = follow(cluster)
    known = read(run.url, "job")
    write(run, "job", {**known, "jobs": [*known.get("jobs", []), job]})
    return job


def drive(source: str, out: str, settings: dict[str, Any], memory: int, command: str, key: str) -> None:
    """Be the driver of a run as a task of a Dask cluster; what it says goes to the run group."""
    host = Host("dask", key)
    say = Lines(host.lines.append)
    try:
        run_source(source, out, Settings(**settings), memory=memory, command=command, reporter=say, host=host)
    except DcfError:
        return  # its sentence is in the record


# ---------------------------------------------------------------------- asked from any later shell


def status_of(out: str) -> dict[str, Any]:
    """Return how a run is, from its run group and, where there is one here, its queue.

    state : done, running, queued, waiting (for the verb of its next stage), stopped, cancelled, failed or
    lost (no sign of life, though nothing ended it); stage, blocks, finished : how far it is, `before` of them
    by earlier tries; rate : decoded bytes a second; left : seconds of this stage; error : what stopped it
    last; silent : seconds since the driver's last sign of life; until : Unix time at which it stops; where,
    jobs, log : what it was submitted as; command, folder : what was typed where.
    """
    place = absolute(out, "OUT")
    run = RunGroup.open(place, mode="r")
    record, beat, job = run.record, read(place, "beat"), read(place, "job")
    progress = beat.get("progress", {})
    waiting = _queued(job)
    state = _state(place, record, beat, job, waiting)
    command = record["command"].replace("dcf ", "dcf submit ", 1) if job else record["command"]
    return {
        "out": place,
        "state": state,
        "reached": record["stage"],
        "command": command,
        "folder": record.get("folder", ""),
        "passes": [list(entry) for entry in run.begun()],
        "error": "" if state in ("done", "running") else job.get("refused") or record.get("stopped", ""),
        "where": job.get("where") or beat.get("where", ""),
        "jobs": job.get("jobs", []),
        "queue": waiting,
        "log": job.get("log", ""),
        "host": beat.get("host", ""),
        "silent": max(0.0, time.time() - beat["time"]) if "time" in beat else None,
        "until": beat.get("until"),
        **_pace(progress, beat),
    }


def _state(
    place: str, record: dict[str, Any], beat: dict[str, Any], job: dict[str, Any], waiting: str
) -> str:
    if record["stage"] == "done":
        return "done"
    here = is_local(place) and beat.get("host", socket.gethostname()) == socket.gethostname()
    if is_held(place) if here else is_fresh(beat) and waiting != "gone":
        return "running"
    if read(place, "cancel").get("time", 0.0) > job.get("time", 0.0):
        return "cancelled"
    if job.get("refused"):
        return "failed"
    begun_since = beat.get("time", 0.0) > job.get("time", 0.0)
    if waiting == "listed" or (job and not waiting and not begun_since):
        return "queued"
    if job and not begun_since:
        return "failed"  # before it was a driver
    if beat.get("state") == "running":
        return "lost"
    stopped = record.get("stopped", KILLED)
    if not stopped:
        return "waiting"
    return str(beat.get("state") or ("lost" if stopped == KILLED else "stopped"))


def _queued(job: dict[str, Any]) -> str:
    """Return whether the queue lists the driver's latest job: listed, gone, or empty where it cannot tell."""
    if job.get("where", "dask") == "dask" or not job["jobs"]:
        return ""
    try:
        return "listed" if number(job["jobs"][-1]) in listed(job["where"]) else "gone"
    except RunError:  # this machine does not know the queue
        return ""


def _pace(progress: dict[str, Any], beat: dict[str, Any]) -> dict[str, Any]:
    blocks, finished = progress.get("blocks", 0), progress.get("finished", 0)
    before = progress.get("before", 0)
    elapsed = beat.get("time", 0.0) - progress.get("since", math.inf)
    new = finished - before
    known = new > 0 and elapsed > 0
    return {
        "stage": describe(progress["stage"]) if "stage" in progress else "",
        "blocks": blocks,
        "finished": finished,
        "before": before,
        "rate": progress.get("bytes", 0) * new / blocks / elapsed if known else None,
        "left": elapsed * (blocks - finished) / new if known else None,
    }


def log_of(out: str) -> list[str]:
    """Return what the driver of a run said: its job's log, or its last lines where a cluster has it.

    Raises `UsageError` for a run that was not submitted, `RunError` where this machine does not see the log.
    """
    place = absolute(out, "OUT")
    RunGroup.open(place, mode="r")
    job = read(place, "job")
    if not job:
        raise UsageError(f"OUT {place} was not submitted: its driver spoke to the terminal it began in.")
    if "log" not in job:
        return list(read(place, "beat").get("lines", []))
    try:
        return Path(job["log"]).read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []  # the job has not begun
    except OSError as error:
        raise RunError(f"The log {job['log']} cannot be read here: {error.strerror}.") from error


def cancel_run(out: str, patience: float = SILENT_BEATS * BEAT_SECONDS) -> list[str]:
    """Tell the driver of a run to stop, take its job out of the queue; return what was done, in sentences.

    Finished blocks are kept. Waits `patience` seconds for the driver to end.
    """
    place = absolute(out, "OUT")
    run = RunGroup.open(place)
    now = status_of(place)
    if now["state"] not in (*_GOING, "lost"):
        return [f"nothing to cancel: the run is {now['state']}"]
    write(run, "cancel", {"time": time.time(), "host": socket.gethostname()})
    said = []
    for job in now["jobs"][-1:] if now["where"] != "dask" else []:
        trouble = cancel_job(now["where"], job)
        said.append(f"{now['where']} job {job}: {trouble or 'cancelled'}")
    start = time.monotonic()
    while status_of(place)["state"] == "running":
        if time.monotonic() - start > patience:
            return [*said, "told to stop; the driver has not ended yet"]
        time.sleep(0.5)
    return [*said, "stopped; finished blocks are kept, the same command resumes"]
