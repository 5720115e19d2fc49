"""The driver itself as a job of a batch system: its script, its time, and the job that follows it."""

from __future__ import annotations

import datetime
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from dcf.cluster.configuration import seconds_of
from dcf.cluster.queues import NANNY_BYTES, QUEUES, job_options, jobqueue, number
from dcf.errors import RunError, UsageError
from dcf.sizes import MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dcf.cluster.configuration import ClusterConfig

_QUEUE, _SCRIPT, _END = "DCF_QUEUE", "DCF_SCRIPT", "DCF_END"  # what a driver's script tells the driver
_MARGIN_SECONDS = 60.0  # before its job is ended a driver stops, but no sooner than
_MARGIN_SHARE = 4  # when so manieth part of the time is left that it had
_ASK_SECONDS = 15.0  # between two questions to Slurm how much time is left
_COMMAND_SECONDS = 60.0


def driver_script(config: ClusterConfig, memory: int, words: Sequence[str], log: Path, script: Path) -> str:
    """Return the script of a job that runs ``dcf words`` in this folder and says to `log` what it says."""
    options = job_options(config, memory, walltime=config.driver_walltime or config.walltime, processes=1)
    options |= {"memory": f"{(memory + NANNY_BYTES) // MIB}MiB", "job_name": "dcf-driver"}
    job = jobqueue(config).job_cls("tcp://not-of-a-driver:0", name="driver", **options)
    seconds = seconds_of(config.driver_walltime or config.walltime)
    lines = [
        f"exec >>{shlex.quote(str(log))} 2>&1",
        *config.prologue,
        f"export {_QUEUE}={config.kind}",
        f"export {_SCRIPT}={shlex.quote(str(script))}",
        f"export {_END}=$(( $(date +%s) + {seconds} ))",
        f"cd {shlex.quote(os.getcwd())}",
        f"exec {config.python or shlex.quote(sys.executable)} -m dcf {shlex.join(words)}",
    ]
    return f"{job.shebang}\n\n{job.job_header}\n\n" + "\n".join(lines) + "\n"


def submit(config: ClusterConfig, script: Path) -> str:
    """Submit a driver's script; return the number of its job."""
    job = jobqueue(config).job_cls
    return _submit(job.submit_command, job.job_id_regexp, script)


def _submit(command: str, pattern: str, script: Path) -> str:
    """Give a script to the queue. Raises `RunError` where the queue does not take it."""
    words = shlex.split(command)
    try:
        with script.open("rb") as stream:
            said = subprocess.run(
                words, stdin=stream, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunError(
            f"{words[0]} cannot be run here ({error}); run dcf where jobs are submitted."
        ) from error
    found = re.search(pattern, said.stdout)
    if said.returncode or found is None:
        what = " ".join((said.stderr or said.stdout).split())
        raise RunError(f"{words[0]} did not take the job: {what}")
    return found["job_id"]


def follow(config: ClusterConfig) -> str:
    """Submit the script of this very job once more; return the number of the job that follows."""
    return submit(config, Path(os.environ[_SCRIPT]))


def cancel(kind: str, job: str) -> str:
    """Cancel a job; return what its queue said against it, if anything."""
    words = [*shlex.split(_CANCEL[kind]), job]
    try:
        said = subprocess.run(words, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{words[0]} cannot be run here: {error}"
    return " ".join(said.stderr.split()) if said.returncode else ""


_CANCEL = {"slurm": "scancel", "pbs": "qdel", "sge": "qdel", "lsf": "bkill"}


def own_job() -> tuple[str, str]:
    """Return the batch system and the number of the job that this driver was submitted as; empty: none."""
    kind = os.environ.get(_QUEUE, "")
    if kind not in _CANCEL:
        return "", ""
    return kind, number(os.environ.get(QUEUES[kind].identity, ""))


def time_left() -> Callable[[], float | None]:
    """Return what tells the seconds after which this process is to stop, in time before its job is ended.

    Slurm is asked, again and again, for an administrator may move the end; other systems' drivers know when
    they began and what they asked for. None outside of a job.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job:
        return _Slurm(job).left
    end = os.environ.get(_END, "")
    if not end.isdigit():
        return lambda: None
    margin = min(_MARGIN_SECONDS, max(0.0, float(end) - time.time()) / _MARGIN_SHARE)
    return lambda: float(end) - time.time() - margin


class _Slurm:
    """What Slurm says of a job's end."""

    def __init__(self, job: str) -> None:
        # The time left, which squeue can print as well, keeps to full minutes of the limit, not to the end.
        self._command = ["squeue", "--noheader", "--format=%e", f"--jobs={job}"]
        self._asked = -_ASK_SECONDS
        self._end: float | None = None
        self._margin: float | None = None

    def left(self) -> float | None:
        """Return the seconds until the driver is to stop; None where the job has no end."""
        now = time.monotonic()
        if now - self._asked >= _ASK_SECONDS:
            self._asked = now
            self._end = self._ask() or self._end
        if self._end is None:
            return None
        left = self._end - time.time()
        if self._margin is None:
            self._margin = min(_MARGIN_SECONDS, max(0.0, left) / _MARGIN_SHARE)
        return left - self._margin

    def _ask(self) -> float | None:
        try:
            said = subprocess.run(
                self._command, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False
            )
            return datetime.datetime.fromisoformat(said.stdout.strip()).timestamp()
        except (OSError, ValueError, subprocess.TimeoutExpired):  # it has no end, or is not to be asked
            return None


def refuse_no_queue(config: ClusterConfig) -> None:
    """Raise `UsageError` where a driver cannot be submitted to what a configuration describes."""
    if config.kind not in _CANCEL:
        raise UsageError(
            f"{config.file}: a driver cannot be submitted to kind {config.kind}, only to"
            f" {', '.join(_CANCEL)} or a running cluster (--scheduler); run it in a terminal that stays."
        )
