"""Who carries a run: one driver at a time, its signs of life, and how far it is.

``driver/`` in the run group holds two documents, each with one writer: ``beat``, which the driver renews
every few seconds, and ``job``, which whoever submitted the driver to a cluster leaves there. A member
``cancel`` asks the driver to stop. All of it can be read from any machine that sees the run group.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import zarr
from zarr.errors import BaseZarrError

from dcf.errors import DcfError, RunError, Stopped
from dcf.storage.durable import is_local, store_of
from dcf.urls import conceal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dcf.storage.run import RunGroup

OUT_OF_TIME = "the time of its job is nearly up; finished blocks are kept."
BEAT_SECONDS = 5.0  # between two signs of life
SILENT_BEATS = 4  # without one, and the driver is taken for dead
_SETTLE_SECONDS = 1.0  # in which two drivers that begin at once both have written
_LINES = 200  # of what the driver said, the last so many are kept
_log = logging.getLogger(__name__)


@dataclass
class Host:
    """What a driver runs in."""

    where: str = "here"
    """here (a process that somebody started), dask (a task on a cluster), or the batch system of its job"""
    job: str = ""
    """the number of that job"""
    left: Callable[[], float | None] = lambda: None
    """seconds that are left to this driver before it has to stop; None where nobody ends it"""
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LINES))
    """what it says, where nobody else keeps that"""


def read(out: str, name: str) -> dict[str, Any]:
    """Return one of the documents, empty where there is none; a torn one counts as none."""
    try:
        group = zarr.open_group(store_of(out), path=f"driver/{name}", mode="r")
        return cast("dict[str, Any]", dict(group.attrs))
    except (FileNotFoundError, KeyError, ValueError, BaseZarrError):
        return {}


def write(run: RunGroup, name: str, content: dict[str, Any]) -> None:
    """Write one of the documents whole. Raises `RunError` where OUT cannot be written."""
    attributes = {key: conceal(value) if isinstance(value, str) else value for key, value in content.items()}
    try:
        run.group.require_group("driver").require_group(name).attrs.put(attributes)
    except DcfError:
        raise
    except Exception as error:
        raise RunError(f"OUT {run.url} cannot be written: {error}; the same command resumes.") from error


def is_fresh(beat: dict[str, Any]) -> bool:
    """Return whether a driver gave a sign of life of late, by this machine's clock and its own."""
    age = time.time() - float(beat.get("time", 0.0))
    return beat.get("state") == "running" and age < SILENT_BEATS * BEAT_SECONDS


def refuse_busy(out: str) -> None:
    """Raise `RunError` where another driver is alive on a run.

    One of this machine is known dead when the lock of a local folder is ours, or its process is gone. Another
    machine's is watched for a while: clocks may differ, but a new sign of life is one.
    """
    before = read(out, "beat")
    if before.get("state") != "running" or _known_dead(out, before):
        return
    start = time.monotonic()
    while time.monotonic() - start < SILENT_BEATS * BEAT_SECONDS:
        time.sleep(1.0)
        now = read(out, "beat")
        if now.get("state") != "running":
            return
        if (now.get("holder"), now.get("beat")) != (before.get("holder"), before.get("beat")):
            raise RunError(
                f"OUT {out} is locked by another run that is still going, on {now.get('host')}; wait for it"
                " or end it (dcf cancel), or choose another OUT."
            )
    _log.warning("The driver on %s gives no sign of life; its run is taken over.", before.get("host"))


def _known_dead(out: str, beat: dict[str, Any]) -> bool:
    if beat.get("host") != socket.gethostname():
        return False
    if is_local(out):
        return True
    try:
        os.kill(int(beat.get("pid", 0)), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError, ValueError):
        pass
    return False


class Lease:
    """One driver's hold on a run: a thread gives a sign of life, and looks whether the driver is to stop.

    run : the run group; host : what the driver runs in.
    """

    def __init__(self, run: RunGroup, host: Host) -> None:
        self.progress: dict[str, Any] = {}
        self.reason = ""
        self._run, self._host = run, host
        self._me = {
            "holder": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "where": host.where,
            "job": host.job,
            "since": time.time(),
        }
        self._beats = 0
        self._until: float | None = None
        self._ended = threading.Event()
        self._owner = threading.current_thread()
        self._thread = threading.Thread(target=self._live, daemon=True)

    def check(self) -> None:
        """Raise `Stopped` where the driver was asked to stop, its time is up, or another took over."""
        if self.reason:
            raise Stopped(self.reason)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Take the run, give signs of life, and let it go.

        Raises `RunError` where another driver took it at the same time, `Stopped` where this one was told to
        stop. A driver that nobody submitted leaves no document behind.
        """
        self._take()
        self._thread.start()
        state = "failed"
        try:
            yield
            state = "done"
        except KeyboardInterrupt:
            state = "stopped"
            left = self._host.left()
            if left is not None and left <= 0:
                self.reason = self.reason or OUT_OF_TIME
            self.check()
            raise
        except Stopped:
            state = "stopped"
            raise
        finally:
            self._ended.set()
            self._thread.join()
            with suppress(RunError):
                self._leave(state)

    def _take(self) -> None:
        if self._host.where == "here":
            self._run.drop("driver/cancel")
        self._beat("running")
        if is_local(self._run.url):
            return
        time.sleep(_SETTLE_SECONDS)
        if self._taken_over():
            raise RunError(f"OUT {self._run.url} was taken by another run that began at the same time.")

    def _taken_over(self) -> bool:
        """Return whether another driver says that the run is its own; no word, or a torn one, is none."""
        return read(self._run.url, "beat").get("holder") not in (None, self._me["holder"])

    def _leave(self, state: str) -> None:
        if self._host.where != "here" or read(self._run.url, "job"):
            self._beat(state)
        elif not self._taken_over():
            self._run.drop("driver")

    def _live(self) -> None:
        while not self._ended.wait(BEAT_SECONDS if self._beats > 1 else BEAT_SECONDS / 5):
            try:
                self.reason = self.reason or self._asked_to_stop()
                self._beat("running")
            except DcfError as error:  # the stages tell it, where OUT is gone
                _log.debug("No sign of life could be given: %s", error)
            if self.reason:
                return self._interrupt()

    def _asked_to_stop(self) -> str:
        if self._taken_over():
            return "another driver has taken this run over; this one lets it go."
        asked = read(self._run.url, "cancel")
        if asked and asked.get("time", 0.0) > read(self._run.url, "job").get("time", 0.0):
            return f"cancelled by dcf cancel on {asked.get('host')}; the same command resumes."
        left = self._host.left()
        self._until = None if left is None else time.time() + left
        return OUT_OF_TIME if left is not None and left <= 0 else ""

    def _beat(self, state: str) -> None:
        self._beats += 1
        content = {
            **self._me,
            "state": state,
            "beat": self._beats,
            "time": time.time(),
            "until": self._until,
            "reason": self.reason,
            "progress": dict(self.progress),
            "lines": list(self._host.lines),
        }
        write(self._run, "beat", content)

    def _interrupt(self) -> None:
        """Interrupt the driver where it is, if it is a program's main thread; else `check` has to do."""
        if self._owner is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            if callable(signal.getsignal(number)):  # a real signal, which wakes a thread that waits
                signal.pthread_kill(cast("int", self._owner.ident), number)
                return
