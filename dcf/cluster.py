"""Where the tasks run: the caller's Dask client, or an embedded local cluster."""

from __future__ import annotations

import logging
import os
import resource
import signal
import sys
import time
from asyncio import CancelledError as TaskCancelledError
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
from distributed import Client, LocalCluster, wait
from distributed.comm.core import CommClosedError
from distributed.scheduler import KilledWorker

from dcf.errors import BudgetError, DcfError, RunError
from dcf.sizes import MIB, mib

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Future

    from dcf.types import Workers

# glibc gives freed memory back, and faults it in anew, at every large chunk unless told otherwise.
_MALLOC = str(256 * 2**20)
_WORKER_ENVIRONMENT = {
    "MALLOC_TRIM_THRESHOLD_": _MALLOC,
    "MALLOC_MMAP_THRESHOLD_": _MALLOC,
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "ZARR_THREADING__MAX_WORKERS": "1",
}
CONFIG = {
    "distributed.nanny.pre-spawn-environ": _WORKER_ENVIRONMENT,
    # The plan keeps memory; pausing and spilling below it would only get in the way. Where the plan is wrong,
    # the nanny ends the worker before the system has to choose a victim.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 1.0,
    "distributed.deploy.lost-worker-timeout": "1 hour",
    "distributed.admin.tick.limit": "1 hour",
    "distributed.worker.preload": ["dcf.leave"],
}
WATCH_SECONDS = 1.0  # between two looks at whether there are workers still
LOST_SECONDS = 60.0  # without any worker, or any word of the scheduler, and they will not come back
_ENDED_FOR_MEMORY = "worker-restart-memory"  # what a nanny tells the scheduler of
_RESUMES = "finished blocks are kept, the same command resumes."
# Of code that the bases of the plan count as resident; how much of a library a process has mapped depends
# on how its file lies in the system's cache, 40 to 110 MB of libllvmlite being usual.
_COUNTED_CODE = 60 * MIB

_SCHEDULERS = {
    "threads": "threads",
    "threading": "threads",
    "sync": "synchronous",
    "synchronous": "synchronous",
    "single-threaded": "synchronous",
}


def peak_memory() -> int:
    """Return the peak resident bytes of this process."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@cache
def uncounted_code() -> int:
    """Return the resident bytes of LLVM's library in this process beyond those that the plan counts.

    Worker processes of this machine share its pages, and so their number.
    """
    maps, inside, kibibytes = Path("/proc/self/smaps"), False, 0
    for line in maps.read_text().splitlines() if maps.exists() else ():
        head, _, value = line.partition(" ")
        if not head.endswith(":"):
            inside = "libllvmlite" in value
        elif inside and head == "Rss:":
            kibibytes += int(value.split()[0])
    return max(0, 1024 * kibibytes - _COUNTED_CODE)


def _running_tasks(dask_worker: Any) -> int:
    """Return how many tasks a worker has in hand, cancelled ones too; Dask fills the parameter in."""
    return len(dask_worker.state.executing)


@dataclass(frozen=True)
class ClientWorkers:
    """The workers of a distributed cluster."""

    client: Client
    """connected"""
    count: int
    """threads of all workers"""
    memory: int = 0
    """bytes above which a worker is ended; 0 where that is not ours to say"""
    planned: int = 0
    """predicted peak of a worker"""

    def compute(self, graph: Any) -> Any:
        """Return the result of a Delayed.

        Exceptions of tasks pass through. Raises `BudgetError` where workers were ended for their memory,
        `RunError` where they or the scheduler are lost for good.
        """
        future = None
        try:
            if self.client.status != "running":
                raise CommClosedError("the client is closed")
            future = self.client.compute(graph)
            return self._watched(future)
        except KilledWorker as error:
            raise self._ended(
                "Workers died again and again: ended by the system for lack of memory (then lower --memory or"
                " --workers), or crashed"
            ) from error
        except (CancelledError, TaskCancelledError, CommClosedError) as error:
            raise RunError(
                f"The scheduler at {self._address} is lost or was restarted; {_RESUMES}"
            ) from error
        except BaseException as error:  # Ctrl-C, or one task's error: the others need not go on
            if future is not None and self.client.status == "running":
                future.cancel()
                if isinstance(error, DcfError):
                    self._settle()
            raise

    def _settle(self) -> None:
        """Wait for the tasks that cannot be cancelled, since they run: nobody is to write after the end."""
        start = time.monotonic()
        while time.monotonic() - start < LOST_SECONDS:
            try:
                running = self.client.run(_running_tasks, on_error="ignore")
            except (OSError, CancelledError, ValueError):
                return
            if not any(running.values()):
                return
            time.sleep(0.02)

    @property
    def _address(self) -> str:
        scheduler = self.client.scheduler
        return str(scheduler.address) if scheduler is not None else "an address no longer known"

    def _watched(self, future: Future[Any]) -> Any:
        """Wait for a result as long as there are workers to compute it."""
        seen = time.monotonic()
        while True:
            try:
                wait(future, timeout=WATCH_SECONDS)
                return future.result(timeout=LOST_SECONDS)
            except TimeoutError:
                if future.status == "error":  # the task's own
                    raise
            try:
                threads = self.client.sync(self._threads, callback_timeout=LOST_SECONDS)
            except TimeoutError as error:
                raise CommClosedError("the scheduler does not answer") from error
            if threads:
                seen = time.monotonic()
            elif time.monotonic() - seen > LOST_SECONDS:
                raise self._ended(
                    f"All workers of {self._address} are lost, and none came back in {LOST_SECONDS:.0f} s"
                )

    async def _threads(self) -> dict[str, int]:
        """Return the threads of each worker that the scheduler knows."""
        if self.client.scheduler is None:
            raise CommClosedError("the client is closed")
        return dict(await self.client.scheduler.ncores())

    def _ended(self, otherwise: str) -> Exception:
        """Return the error for workers that are no more: their memory, or `otherwise`.

        One whose limit is below what a process takes is ended before it has a task.
        """
        if not self.client.get_events(_ENDED_FOR_MEMORY):
            return RunError(f"{otherwise}; {_RESUMES}")
        limit = f"--memory {mib(self.memory)} (planned {mib(self.planned)})"
        limit = limit if self.memory else "the memory limit of their cluster"
        return BudgetError(f"Workers were ended for passing {limit}: raise it; {_RESUMES}")

    def peaks(self) -> dict[str, int]:
        """Return the peak resident bytes of each worker process so far, by address; not of dead ones."""
        try:
            return dict(self.client.run(peak_memory, on_error="ignore"))
        except (OSError, CancelledError, ValueError):  # what they took is then not known
            return {}

    def driver_peak(self) -> int:
        """Return the peak resident bytes of this process so far."""
        return peak_memory()


@dataclass(frozen=True)
class ThisProcess:
    """The scheduler that `dask.config` names, in this process."""

    scheduler: str
    """threads or synchronous"""
    count: int
    """threads"""

    def compute(self, graph: Any) -> Any:
        """Return the result of a Delayed; where one task fails, those that run are waited for."""
        with ThreadPoolExecutor(self.count) as pool:
            return graph.compute(scheduler=self.scheduler, num_workers=self.count, pool=pool)

    def peaks(self) -> dict[str, int]:
        """Return the peak resident bytes of this process."""
        return {"this process": peak_memory()}

    def driver_peak(self) -> int:
        """Return the peak resident bytes of this process so far."""
        return peak_memory()


def _present_client() -> Client | None:
    try:
        present: Client = Client.current()
    except ValueError:
        return None
    if present.status != "running":
        raise RunError(f"{present} has no connection to its scheduler; close it and connect a new one.")
    return present


def placement(asked: int | None, small: bool) -> tuple[int, int, bool]:
    """Return how many tasks run at once, how many of them in one process, and whether in this one.

    The present client's threads; else the workers asked for, or one a core: threads of this
    process where `dask.config` says so or the data are small, processes otherwise.
    """
    client = _present_client()
    if client is not None:
        each = [int(w["nthreads"]) for w in client.scheduler_info(n_workers=-1)["workers"].values()]
        return max(1, sum(each)), max([1, *each]), False
    if asked is None:
        asked = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    scheduler = _scheduler()
    threads = asked if scheduler == "threads" or (small and scheduler is None) else 1
    return asked, threads, small or scheduler is not None


def _scheduler() -> str | None:
    """Return the scheduler of this process that `dask.config` names, if any."""
    return _SCHEDULERS.get(dask.config.get("scheduler", None))


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Hold Ctrl-C back until the block ends.

    Threads and processes started inside inherit the mask: the workers never see the terminal's
    Ctrl-C, which the driver alone answers, by closing them.
    """
    # Started later, it would unblock the signal in its thread. Of a driver that is killed it would say that
    # semaphores were leaked, which helps nobody.
    sys.warnoptions.append("ignore::UserWarning:multiprocessing.resource_tracker")
    resource_tracker.ensure_running()
    sys.warnoptions.pop()
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def _local_cluster(count: int, memory: int) -> LocalCluster:
    try:
        return LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            processes=True,
            memory_limit=memory,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        )
    except RuntimeError as error:
        raise RunError(
            "The worker processes did not start. In a script of your own, call dcf below"
            ' `if __name__ == "__main__":`, so that they can import it; or stay in this process with'
            ' dask.config.set(scheduler="threads").'
        ) from error


@contextmanager
def connect(count: int, in_process: bool, memory: int = 0, planned: int = 0) -> Iterator[Workers]:
    """Yield what computes the graphs, and close it again if it was started here.

    A present `Client` is used; else the scheduler set in `dask.config` (threads or synchronous);
    else `count` threads of this process, for data too small to repay starting anything; else
    a local cluster of `count` processes with one thread each, on loopback, each of which is ended above
    `memory` bytes (0: none is; `planned` is what it was predicted to take).
    """
    client = _present_client()
    scheduler = _scheduler()
    if client is not None:
        yield ClientWorkers(client, count)
    elif scheduler is not None:
        yield ThisProcess(scheduler, count)
    elif in_process:
        yield ThisProcess("threads", count)
    else:
        with ExitStack() as stack:
            with _interrupts_wait():
                stack.enter_context(dask.config.set(CONFIG))
                cluster = stack.enter_context(_local_cluster(count, memory))
                started = stack.enter_context(Client(cluster))
            yield ClientWorkers(started, count, memory, planned)
