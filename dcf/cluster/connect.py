"""Where the tasks run: the caller's Dask client, a cluster that a file describes, or an embedded one."""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

import dask
from distributed import Client, LocalCluster, fire_and_forget, get_worker, worker_client

from dcf.cluster.environment import CONFIG, OF_QUEUES
from dcf.cluster.queues import worker_jobs
from dcf.cluster.security import refuse_plain, security_of
from dcf.cluster.workers import ClientWorkers, ThisProcess
from dcf.errors import BudgetError, RunError
from dcf.sizes import mib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dcf.cluster.configuration import ClusterConfig
    from dcf.types import Workers

_CONNECT_SECONDS = 10.0
_SCHEDULERS = {
    "threads": "threads",
    "threading": "threads",
    "sync": "synchronous",
    "synchronous": "synchronous",
    "single-threaded": "synchronous",
}


def _present_client() -> Client | None:
    try:
        present: Client = Client.current()
    except ValueError:
        return None
    if present.status != "running":
        raise RunError(f"{present} has no connection to its scheduler; close it and connect a new one.")
    return present


@contextmanager
def attached(config: ClusterConfig | None) -> Iterator[None]:
    """Be the client of the running cluster that a configuration names; do nothing for any other kind.

    Raises `UsageError` for an address that is none, or not to be used unencrypted unasked; `RunError` where
    its scheduler cannot be reached, refuses this client, or has no worker.
    """
    if config is None or config.kind != "dask" or _present_client() is not None:
        yield
        return
    refuse_plain(config.scheduler, config.insecure_plain_tcp)
    with ExitStack() as stack:
        stack.enter_context(dask.config.set({"distributed.comm.timeouts.connect": _CONNECT_SECONDS}))
        client = stack.enter_context(_client(config))
        if not client.scheduler_info(n_workers=-1)["workers"]:
            raise RunError(f"{config.scheduler} has no worker; start some, then run again.")
        stack.enter_context(client.as_current())
        yield


def _client(config: ClusterConfig) -> Client:
    """Connect to a scheduler, with the certificates named, or those of Dask's own configuration."""
    security = None if config.tls is None else security_of(config.tls)
    try:
        return Client(config.scheduler, security=security, timeout=_CONNECT_SECONDS)
    except (OSError, TimeoutError, ValueError, TypeError, RuntimeError, ImportError) as error:
        chain = [error, error.__cause__, error.__context__]
        cause = "; ".join(dict.fromkeys(" ".join(str(e).split()) for e in chain if e is not None and str(e)))
        encrypted = config.scheduler.startswith("tls:")
        if encrypted and config.tls is None:
            advice = "it takes certificates: give their folder with --tls DIR."
        elif encrypted:
            advice = f"is it there, and are its certificates of the same authority as those in {config.tls}?"
        else:
            advice = "is it there, or does it speak tls:// alone?"
        raise RunError(
            f"The scheduler {config.scheduler} cannot be reached ({cause:.300}): {advice}"
        ) from error


def start_task(function: Callable[..., Any], *arguments: Any, key: str) -> None:
    """Start a function of the running cluster's own, which goes on when this client is gone.

    It is called with the client of its worker as the present one; a worker that dies is replaced by
    another, on which it begins again.
    """
    client = _present_client()
    if client is None:
        raise RunError("There is no running cluster to start a driver on.")
    fire_and_forget(client.submit(_with_client, function, *arguments, key=key, pure=False))


def _with_client(function: Callable[..., Any], *arguments: Any) -> Any:
    # The thread it takes is given back, or a cluster of one thread would wait for itself.
    with worker_client() as client, client.as_current():
        return function(*arguments)


def placement(config: ClusterConfig | None, asked: int | None, small: bool) -> tuple[int, int, bool]:
    """Return how many tasks run at once, how many of them in one process, and whether in this one.

    The present client's threads; else the worker jobs that a configuration asks for; else the workers
    asked for, or one a core: threads of this process where `dask.config` says so or the data are small,
    processes otherwise.
    """
    client = _present_client()
    if client is not None:
        each = [int(w["nthreads"]) for w in client.scheduler_info(n_workers=-1)["workers"].values()]
        return max(1, sum(each)), max([1, *each]), in_worker()
    if config is not None and config.is_queue:
        return config.workers or 1, 1, False
    if asked is None:
        asked = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    scheduler = _scheduler()
    threads = asked if scheduler == "threads" or (small and scheduler is None) else 1
    return asked, threads, small or scheduler is not None


def in_worker() -> bool:
    """Return whether this is a task on a worker of a Dask cluster, and the driver so is in its process."""
    try:
        get_worker()
    except ValueError:
        return False
    return True


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


def _local_cluster(count: int, memory: int, scratch: str | None) -> LocalCluster:
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
            **({} if scratch is None else {"local_directory": os.path.expandvars(scratch)}),
        )
    except RuntimeError as error:
        raise RunError(
            "The worker processes did not start. In a script of your own, call dcf below"
            ' `if __name__ == "__main__":`, so that they can import it; or stay in this process with'
            ' dask.config.set(scheduler="threads").'
        ) from error


def _refuse_small_workers(client: Client, planned: int) -> None:
    """Raise `BudgetError` where a worker of a running cluster is held to less than was planned for it."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    least = min((limit for worker in workers if (limit := worker.get("memory_limit"))), default=planned)
    if least < planned:
        raise BudgetError(
            f"A worker is to take {mib(planned)}, the cluster allows {mib(least)}: start its workers with"
            f" a --memory-limit of {mib(planned)} or more, or give --memory {mib(least)}."
        )


@contextmanager
def connect(
    count: int,
    in_process: bool,
    memory: int = 0,
    planned: int = 0,
    config: ClusterConfig | None = None,
    check: Callable[[], None] = lambda: None,
) -> Iterator[Workers]:
    """Yield what computes the graphs, and close it again if it was started here.

    A present `Client` is used; else the scheduler set in `dask.config` (threads or synchronous); else the
    batch queue that `config` describes; else `count` threads of this process, for data too small to repay
    starting anything; else a local cluster of `count` processes with one thread each, on loopback, each of
    which is ended above `memory` bytes (0: none is; `planned` is what it was predicted to take). `check`
    is called about once a second while workers compute, and may raise.
    """
    client = _present_client()
    scheduler = _scheduler()
    if client is not None:
        _refuse_small_workers(client, planned)
        yield ClientWorkers(client, count, check=check)
    elif scheduler is not None:
        yield ThisProcess(scheduler, count)
    elif in_process:
        yield ThisProcess("threads", count)
    elif config is not None and config.is_queue:
        with ExitStack() as stack:
            with _interrupts_wait():
                stack.enter_context(dask.config.set({**CONFIG, **OF_QUEUES}))
                cluster, keeper = stack.enter_context(worker_jobs(config, memory))
                started = stack.enter_context(Client(cluster))
            yield ClientWorkers(started, count, memory, planned, check, keeper.may_come)
    else:
        with ExitStack() as stack:
            with _interrupts_wait():
                stack.enter_context(dask.config.set(CONFIG))
                scratch = None if config is None else config.scratch
                cluster = stack.enter_context(_local_cluster(count, memory, scratch))
                started = stack.enter_context(Client(cluster))
            yield ClientWorkers(started, count, memory, planned, check)
