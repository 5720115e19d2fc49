"""A cluster as a YAML file describes it: one schema for a laptop, a running cluster and a batch queue."""

from __future__ import annotations

import re
import reprlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from dcf.errors import UsageError
from dcf.settings import parse_memory

QUEUES = ("slurm", "pbs", "sge", "lsf", "htcondor")
_OF_QUEUES = (
    "workers workers_per_job walltime interface logs scratch python prologue directives tls"
    " insecure_plain_tcp"
)
KEYS = {
    "local": "workers scratch",
    "dask": "scheduler tls insecure_plain_tcp",
    **dict.fromkeys(QUEUES, f"{_OF_QUEUES} queue account driver_walltime"),
    "htcondor": f"{_OF_QUEUES} disk",
}
_BRIEF = reprlib.Repr()
_BRIEF.maxlevel = 2  # a few lines of YAML may stand for more than any memory holds
_MOST_BYTES = 1 << 20
_MOST_WORKERS = 100_000
# What goes into a job script as a word, unquoted, for queues do not agree on how to quote.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@:+-]*")
_PATH = re.compile(r"[A-Za-z0-9_.@:+,=~/-]+")
_PATH_THERE = re.compile(r"[A-Za-z0-9_.@:+,=~/${}-]+")  # variables are those of the machine it is on
_WALLTIME = re.compile(r"(?:(\d{1,3})-)?(\d{1,4}):([0-5]\d):([0-5]\d)")


@dataclass(frozen=True)
class ClusterConfig:
    """Where the tasks of a run are to be computed."""

    kind: str
    """local, dask (a running cluster), or one of QUEUES"""
    file: str = ""
    """where it was read from, absolute; empty where it was made from options"""
    workers: int | None = None
    """worker processes of one thread each"""
    memory: str | None = None
    """budget of each of them, and of the driver, such as 2GiB"""
    scratch: str | None = None
    """folder on the worker's machine for what Dask keeps beside"""
    scheduler: str = ""
    """address of the running cluster's scheduler"""
    tls: str | None = None
    """folder of ca.pem, cert.pem and key.pem; None: made for the run (queues)"""
    insecure_plain_tcp: bool = False
    """whether data and code may go over a network unencrypted, from and to anyone"""
    workers_per_job: int = 1
    """worker processes of one job of the queue"""
    walltime: str = "01:00:00"
    """of a worker job, [D-]HH:MM:SS"""
    driver_walltime: str | None = None
    """of the job that dcf submit puts the driver in; that of the workers where None"""
    queue: str | None = None
    """queue or partition"""
    account: str | None = None
    """account or project that pays"""
    interface: str | None = None
    """network interface that scheduler and workers talk over"""
    logs: str = str(Path("dcf-logs").absolute())
    """folder for what jobs print, which all machines see"""
    python: str | None = None
    """interpreter of the worker jobs; this one where None"""
    prologue: tuple[str, ...] = ()
    """lines of shell that a job begins with, such as `module load python`"""
    directives: tuple[str, ...] = ()
    """further options of the queue, such as --constraint=avx2"""
    disk: str | None = None
    """disk space of a job (HTCondor asks for it)"""

    def __post_init__(self) -> None:
        if self.kind not in KEYS:
            raise UsageError(f"{self._where}kind is {self.kind!r}; it must be one of {', '.join(KEYS)}.")
        for name in ("workers", "workers_per_job"):
            count = getattr(self, name)
            if count is not None and not (type(count) is int and 1 <= count <= _MOST_WORKERS):
                raise self._wrong(name, "a whole number from 1 on")
        for name in ("memory", "disk"):
            if not isinstance(getattr(self, name), str | int | None):
                raise self._wrong(name, "a size such as 2GiB")
            if getattr(self, name) is not None:
                parse_memory(getattr(self, name), f"{self._where}{name}")
        if type(self.insecure_plain_tcp) is not bool:
            raise self._wrong("insecure_plain_tcp", "true or false")
        for name in ("queue", "account", "interface"):
            self._check_word(name, _NAME, "a name of letters, digits and _.@:+-")
        for name in ("tls", "logs"):
            self._check_word(name, _PATH, "a path of letters, digits and _.@:+,=~/-")
        for name in ("scratch", "python"):
            self._check_word(name, _PATH_THERE, "a path of letters, digits, $ and _.@:+,=~/{}-")
        for name in ("walltime", "driver_walltime"):
            self._check_word(name, _WALLTIME, "of the form HH:MM:SS or D-HH:MM:SS, in quotes")
        for name in ("prologue", "directives"):
            lines = getattr(self, name)
            if not isinstance(lines, tuple) or not all(_is_line(line) for line in lines):
                raise self._wrong(name, "a list of lines")
        if not isinstance(self.scheduler, str) or (self.kind == "dask") != bool(self.scheduler):
            raise self._wrong("scheduler", "the address of a running scheduler, such as tls://host:8786")
        if self.kind in QUEUES and self.workers is None:
            raise self._wrong("workers", "given: how many worker processes the jobs make together")
        if self.kind == "htcondor" and self.disk is None:
            raise self._wrong("disk", "given: HTCondor asks how much disk a job takes, such as 1GiB")

    def _check_word(self, name: str, allowed: re.Pattern[str], what: str) -> None:
        value = getattr(self, name)
        if value is not None and not (isinstance(value, str) and allowed.fullmatch(value)):
            raise self._wrong(name, what)

    @property
    def _where(self) -> str:
        return f"{self.file}: " if self.file else ""

    def _wrong(self, name: str, what: str) -> UsageError:
        return UsageError(f"{self._where}{name} is {_BRIEF.repr(getattr(self, name))}; it must be {what}.")

    @property
    def is_queue(self) -> bool:
        """Whether workers are jobs of a batch system."""
        return self.kind in QUEUES

    @property
    def jobs(self) -> int:
        """How many worker jobs there are to be."""
        return -(-(self.workers or 1) // self.workers_per_job)

    def smallest(self) -> ClusterConfig:
        """Return the same with one worker."""
        return replace(self, workers=1, workers_per_job=1) if self.kind != "dask" else self

    @classmethod
    def read(cls, file: str | Path) -> ClusterConfig:
        """Read a file; relative folders in it hold from where dcf is called.

        Raises `UsageError` for what is no such file, naming the key that is wrong.
        """
        place = Path(file).absolute()
        try:
            with place.open("rb") as stream:
                content = stream.read(_MOST_BYTES)
            keys = yaml.safe_load(content)
        except OSError as error:
            raise UsageError(f"--cluster {file} cannot be read: {error.strerror}.") from error
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            problem = " ".join(str(error).split())
            raise UsageError(f"--cluster {file} is not YAML that can be loaded safely: {problem}.") from error
        if not isinstance(keys, dict) or not isinstance(keys.get("kind"), str):
            raise UsageError(f"{file}: kind is missing; it must be one of {', '.join(KEYS)}.")
        allowed = ["kind", "memory", *KEYS.get(keys["kind"], _OF_QUEUES).split()]
        for key in keys:
            if key not in allowed:
                raise UsageError(
                    f"{file}: {_BRIEF.repr(key)} is no key of kind {keys['kind']}; known are"
                    f" {', '.join(allowed)}."
                )
        given: dict[str, Any] = {key: value for key, value in keys.items() if value is not None}
        for name in ("prologue", "directives"):
            if isinstance(given.get(name), list):
                given[name] = tuple(given[name])
        for name in ("tls", "logs"):
            if isinstance(given.get(name), str):
                given[name] = str(Path(given[name]).expanduser().absolute())
        return cls(**{**given, "file": str(place)})


def seconds_of(walltime: str) -> int:
    """Return [D-]HH:MM:SS in seconds."""
    found = _WALLTIME.fullmatch(walltime)
    if found is None:
        raise UsageError(f"{walltime!r} is no time of the form HH:MM:SS.")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((24 * days + hours) * 60 + minutes) * 60 + seconds


def _is_line(line: Any) -> bool:
    return isinstance(line, str) and bool(line.strip()) and line.isprintable()
