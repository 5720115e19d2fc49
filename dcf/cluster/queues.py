"""Workers that are jobs of a batch system, and the queue's own word on which of them there are."""

from __future__ import annotations

import getpass
import importlib
import logging
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed.core import Status

from dcf.cluster.configuration import seconds_of
from dcf.cluster.environment import shell_exports
from dcf.cluster.security import make_certificates, security_of
from dcf.errors import RunError
from dcf.sizes import MIB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed.deploy.spec import SpecCluster
    from distributed.security import Security

    from dcf.cluster.configuration import ClusterConfig

_log = logging.getLogger(__name__)
KEEP_SECONDS = 5.0  # between two looks into the queue
_COMMAND_SECONDS = 60.0  # that the queue may take to answer
_MOST_FRUITLESS = 3  # jobs in a row that end without a worker having come of them
NANNY_BYTES = 256 * MIB  # of a job beside what its workers may take: their nannies
_LEAVE_SHARE = 10  # of its walltime, one part in so many is left to a worker to hand over what it has,
_LEAVE_SECONDS = 120  # but no more than this


@dataclass(frozen=True)
class Queue:
    """How one batch system is spoken to."""

    cluster: str
    """name of the class in dask_jobqueue"""
    listing: str
    """command that prints a user's jobs that wait or run, one a line, the number first"""
    identity: str
    """environment variable in which a job finds its own number"""
    account: str = "account"
    """what dask_jobqueue calls the account"""


QUEUES = {
    "slurm": Queue(
        "SLURMCluster",
        "squeue --noheader --format=%A --user={user}"
        " --states=PENDING,CONFIGURING,RUNNING,SUSPENDED,REQUEUED,RESIZING",
        "SLURM_JOB_ID",
    ),
    "pbs": Queue("PBSCluster", "qselect -u {user} -s QRHWTS", "PBS_JOBID"),
    "sge": Queue("SGECluster", "qstat -u {user}", "JOB_ID", account="project"),
    "lsf": Queue("LSFCluster", "bjobs -u {user} -noheader -o jobid", "LSB_JOBID", account="project"),
    "htcondor": Queue("HTCondorCluster", "condor_q {user} -format %d\\n ClusterId", "", account=""),
}


def listed(kind: str) -> set[str]:
    """Return the numbers of this user's jobs that wait or run.

    Raises `RunError` where the queue does not say.
    """
    command = shlex.split(QUEUES[kind].listing.format(user=shlex.quote(getpass.getuser())))
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunError(f"{command[0]} does not answer: {error}") from error
    if found.returncode:
        raise RunError(f"{command[0]} failed: {' '.join(found.stderr.split())}")
    words = (line.split() for line in found.stdout.splitlines())
    return {number(first[0]) for first in words if first and first[0][:1].isdigit()}


def number(job: str) -> str:
    """Return the number of a job without its server or its place in an array: 12 of 12.host or 12.0."""
    return job.split(".")[0].split("[")[0]


def jobqueue(config: ClusterConfig) -> Any:
    """Return the class of dask_jobqueue for a configuration's queue. Raises `RunError` without the extra."""
    try:
        return getattr(importlib.import_module("dask_jobqueue"), QUEUES[config.kind].cluster)
    except ImportError as error:
        raise RunError(
            f"--cluster {config.file} needs the extra: pip install '.[cluster]' in dcf's source ({error})."
        ) from error


def job_options(
    config: ClusterConfig, memory: int, walltime: str | None = None, processes: int | None = None
) -> dict[str, Any]:
    """Return what dask_jobqueue is to write into the script of a job of `memory` bytes a process.

    `walltime` and `processes` are the workers' where None.
    """
    queue, many = QUEUES[config.kind], processes or config.workers_per_job
    lifetime = lifetime_of(config.walltime)
    extra = ["--memory-limit", str(memory), "--dashboard-address", "127.0.0.1:0"]
    extra += ["--lifetime", f"{lifetime}s", "--lifetime-stagger", f"{lifetime // 20}s"]
    options = {
        "cores": many,
        "processes": many,
        "memory": f"{many * (memory + NANNY_BYTES) // MIB}MiB",
        "queue": config.queue,
        queue.account: config.account,
        "walltime": _walltime(config.kind, walltime or config.walltime),
        "interface": config.interface,
        "log_directory": config.logs,
        "local_directory": config.scratch,
        "python": config.python or shlex.quote(sys.executable),
        "job_name": "dcf-worker",
        "death_timeout": 60,
        "job_script_prologue": [*shell_exports(), *config.prologue],
        "job_extra_directives": list(config.directives),
        "worker_extra_args": extra,
    }
    if config.kind == "htcondor":
        pairs = (line.partition("=") for line in config.directives)
        options["job_extra_directives"] = {key.strip(): value.strip() for key, _, value in pairs}
        options["disk"] = config.disk
        for name in ("queue", "walltime", ""):
            options.pop(name, None)
    return options


def _walltime(kind: str, walltime: str) -> str:
    """Return a walltime in the words of a queue: only Slurm counts days, and LSF no seconds."""
    total = seconds_of(walltime)
    hours, minutes, seconds = total // 3600, total // 60 % 60, total % 60
    if kind == "lsf":
        return f"{hours:02d}:{minutes:02d}"
    return walltime if kind == "slurm" else f"{hours:02d}:{minutes:02d}:{seconds:02d}"


def lifetime_of(walltime: str) -> int:
    """Return after how many seconds a worker is to retire, in time before its job is ended."""
    total = seconds_of(walltime)
    return max(1, total - min(_LEAVE_SECONDS, total // _LEAVE_SHARE) - total // 20)


@contextmanager
def worker_jobs(config: ClusterConfig, memory: int) -> Iterator[tuple[SpecCluster, Keeper]]:
    """Yield a scheduler in this process with its worker jobs, and the keeper that replaces lost ones.

    Without certificates of the user's the talk goes over TLS by some made for the run, in the folder of
    the logs, which all machines see. Raises `RunError` where the queue is not here or takes no job.
    """
    made = jobqueue(config)
    if shutil.which(shlex.split(made.job_cls.submit_command)[0]) is None:
        command = shlex.split(made.job_cls.submit_command)[0]
        raise RunError(
            f"{command} of {config.kind} is not on this machine; run dcf where jobs are submitted."
        )
    with ExitStack() as stack:
        security = _security(config, stack)
        keeper = Keeper(config)
        try:
            Path(config.logs).mkdir(parents=True, exist_ok=True)
            cluster = made(
                **job_options(config, memory),
                job_cls=type("Told", (_Told, made.job_cls), {"keeper": keeper}),
                security=security,
                scheduler_options={"dashboard_address": "127.0.0.1:0"},
                silence_logs=logging.CRITICAL,
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise RunError(f"--cluster {config.file} cannot be started: {error}") from error
        stack.callback(cluster.close)
        stack.callback(keeper.stop)
        keeper.keep(cluster)
        yield cluster, keeper


def _security(config: ClusterConfig, stack: ExitStack) -> Security | None:
    if config.tls is not None:
        return security_of(config.tls)
    if config.insecure_plain_tcp:
        return None
    try:
        Path(config.logs).mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(prefix="tls-", dir=config.logs)
    except OSError as error:
        raise RunError(f"The logs folder {config.logs} cannot be written: {error.strerror}.") from error
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return security_of(make_certificates(folder))


class _Told:
    """A job of dask_jobqueue that tells its keeper when the queue does not take it."""

    keeper: Keeper
    status: Status

    async def start(self) -> None:
        """Submit the job."""
        try:
            await super().start()  # type: ignore[misc]  # the other base, a Job, is joined at run time
        except (RuntimeError, ValueError, OSError) as error:
            self.keeper.refusals.append(str(error))
            self.status = Status.failed  # or Dask would wait for it when the cluster closes
            raise
        self.keeper.refusals.clear()


@dataclass
class Keeper:
    """Keeps as many worker jobs in the queue as were asked for.

    dask_jobqueue does not miss a job that was cancelled, ended at its walltime or died, nor one that
    was cancelled while it waited; the queue's own listing tells. Jobs that the queue does not list any
    more are forgotten, and new ones submitted.
    """

    config: ClusterConfig
    """what the queue is asked for"""
    refusals: list[str] = field(default_factory=list)
    """what the queue said to the latest jobs, where it did not take them"""
    fruitless: int = 0
    """jobs in a row that ended without a worker having come"""
    _cluster: Any = None
    _waiting: bool = True
    _came: set[str] = field(default_factory=set)
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def keep(self, cluster: SpecCluster) -> None:
        """Submit the jobs, and look after them until `stop`."""
        self._cluster = cluster
        cluster.scale(jobs=self.config.jobs)  # type: ignore[call-arg]  # dask_jobqueue adds it
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look after them no longer."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def may_come(self) -> bool:
        """Return whether jobs wait in the queue or begin; raise `RunError` where nothing comes of them."""
        if self.refusals and not self._came and len(self.refusals) >= self.config.jobs:
            said = " ".join(self.refusals[-1].partition("stderr:")[2].split()) or self.refusals[-1]
            raise RunError(
                f"{self.config.kind} takes no job: {said} Mend {self.config.file}, then run again."
            )
        if self.fruitless >= _MOST_FRUITLESS:
            raise RunError(
                f"{self.fruitless} jobs ended before a worker came of them; see the newest files in"
                f" {self.config.logs}: {self._last_words()}"
            )
        return self._waiting

    def _run(self) -> None:
        while not self._ended.wait(KEEP_SECONDS):
            try:
                self._cluster.sync(self._reconcile)
            except Exception as error:  # the queue may be back at the next look
                _log.warning("The jobs could not be looked after: %s", error)

    async def _reconcile(self) -> None:
        cluster = self._cluster
        known = dict(cluster.workers)
        running = {w.get("name") for w in cluster.scheduler_info["workers"].values()}
        self._came |= {name for name in known if _of(name, running)}
        there = await cluster.loop.run_in_executor(None, listed, self.config.kind)
        for name, job in known.items():
            if job.job_id is not None and number(job.job_id) in there:
                continue
            cluster.workers.pop(name, None)
            cluster.worker_spec.pop(name, None)
            if job.job_id is not None:
                self.fruitless = 0 if name in self._came else self.fruitless + 1
                _log.warning("Job %s is no longer in the queue; another one is submitted.", job.job_id)
        self._waiting = any(j.job_id is not None for j in cluster.workers.values())
        if len(cluster.worker_spec) < self.config.jobs and self.fruitless < _MOST_FRUITLESS:
            cluster.scale(jobs=self.config.jobs)

    def _last_words(self) -> str:
        files = sorted(Path(self.config.logs).glob("*"), key=lambda file: file.stat().st_mtime)
        texts = (file.read_text(errors="replace").split("\n") for file in reversed(files) if file.is_file())
        lines = [line.strip() for text in texts for line in text[-50:] if line.strip()]
        errors = [line for line in lines if "Error" in line or "error" in line]
        return (errors or lines or ["they are empty"])[0][:300]


def _of(name: Any, running: set[Any]) -> bool:
    """Return whether a worker of this job is there: a job of several numbers them."""
    return any(str(worker) == str(name) or str(worker).rpartition("-")[0] == str(name) for worker in running)
