"""What computes the graphs, and tells a lost worker or scheduler in a sentence."""

from __future__ import annotations

import time
from asyncio import CancelledError as TaskCancelledError
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distributed import wait
from distributed.comm.core import CommClosedError
from distributed.scheduler import KilledWorker

from dcf.cluster.resident import peak_memory
from dcf.errors import BudgetError, DcfError, RunError
from dcf.sizes import mib

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Client, Future

WATCH_SECONDS = 1.0  # between two looks at whether there are workers still
LOST_SECONDS = 60.0  # without any worker, or any word of the scheduler, and they will not come back
_ENDED_FOR_MEMORY = "worker-restart-memory"  # what a nanny tells the scheduler of
_RESUMES = "finished blocks are kept, the same command resumes."


def _nothing() -> None:
    """Let the run go on."""


def _nobody() -> bool:
    """Expect no worker."""
    return False


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
    check: Callable[[], None] = _nothing
    """raises where the run is to stop; called about once a second"""
    may_come: Callable[[], bool] = _nobody
    """whether there are workers to wait for where none is there; raises where that is hopeless"""

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
            with suppress(TimeoutError):
                wait(future, timeout=WATCH_SECONDS)
            if future.done():
                try:
                    return future.result(timeout=LOST_SECONDS)
                except TimeoutError:
                    if future.status == "error":  # the task's own
                        raise
            self.check()
            try:
                threads = self.client.sync(self._threads, callback_timeout=LOST_SECONDS)
            except TimeoutError as error:
                raise CommClosedError("the scheduler does not answer") from error
            if threads or self.may_come():
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
