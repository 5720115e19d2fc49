"""Where the tasks run: the caller's Dask client, or an embedded local cluster."""

from __future__ import annotations

import logging
import os
import resource
import signal
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
from distributed import Client, LocalCluster

from dcf.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    # The plan keeps memory; pausing and spilling below it would only get in the way.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    "distributed.deploy.lost-worker-timeout": "1 hour",
    "distributed.admin.tick.limit": "1 hour",
    "distributed.worker.preload": ["dcf.leave"],
}


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


@dataclass(frozen=True)
class ClientWorkers:
    """The workers of a distributed cluster."""

    client: Client
    """connected"""
    count: int
    """threads of all workers"""

    def compute(self, graph: Any) -> Any:
        """Return the result of a Delayed."""
        return self.client.compute(graph, sync=True)

    def peaks(self) -> dict[str, int]:
        """Return the peak resident bytes of each worker process so far, by address."""
        return dict(self.client.run(peak_memory))

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
        """Return the result of a Delayed."""
        return graph.compute(scheduler=self.scheduler, num_workers=self.count)

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
    resource_tracker.ensure_running()  # started later, it would unblock the signal in its thread
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def _local_cluster(count: int) -> LocalCluster:
    try:
        return LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            processes=True,
            memory_limit=0,
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
def connect(count: int, in_process: bool) -> Iterator[Workers]:
    """Yield what computes the graphs, and close it again if it was started here.

    A present `Client` is used; else the scheduler set in `dask.config` (threads or synchronous);
    else `count` threads of this process, for data too small to repay starting anything; else
    a local cluster of `count` processes with one thread each, on loopback.
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
                cluster = stack.enter_context(_local_cluster(count))
                started = stack.enter_context(Client(cluster))
            yield ClientWorkers(started, count)
