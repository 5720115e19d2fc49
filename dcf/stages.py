"""The order of a run's stages, what each leaves behind, and the clock beside them."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from dcf.errors import RunError
from dcf.types import STAGES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dcf.storage.run import RunGroup
    from dcf.types import Journal, Reporter

POLL_SECONDS = 0.5
# What the record says of a run that goes on, for it is true as soon as nobody can write there any more.
KILLED = "without a word: killed, or its machine died"


class Told:
    """A reporter that also notes how far a run is, for whoever asks from outside.

    `progress` gets the stage, its blocks and the bytes that they decode to, how many of them are finished,
    how many were before, and since when it goes.
    """

    def __init__(self, reporter: Reporter, progress: dict[str, Any]) -> None:
        self._reporter, self._progress = reporter, progress

    def begin(self, stage: str, blocks: int, size: int) -> None:
        """Note what begins."""
        self._progress.clear()
        self._progress.update(stage=stage, blocks=blocks, bytes=size, since=time.time())
        self._reporter.begin(stage, blocks, size)

    def advance(self, finished: int) -> None:
        """Note how many blocks are finished; the first number are those of an earlier try."""
        self._progress.setdefault("before", finished)
        self._progress["finished"] = finished
        self._reporter.advance(finished)

    def end(self, seconds: float) -> None:
        """Pass it on."""
        self._reporter.end(seconds)


def tidy(run: RunGroup) -> None:
    """Delete what the stage that a run has reached no longer needs."""
    stage, refined = run.record["stage"], run.record.get("refined", 0)
    if stage == STAGES[-1]:
        run.drop("stages")
    elif stage != STAGES[0]:
        for name in ("sketch", *(f"refine_{number}" for number in range(1, refined + 1))):
            run.drop(f"stages/{name}")


@contextmanager
def timed(
    run: RunGroup, reporter: Reporter, name: str, journal: Journal | None, blocks: int, size: int
) -> Iterator[None]:
    """Time a stage of so many blocks that decode `size` bytes; tell the reporter how many are finished."""
    reporter.begin(name, blocks, size)
    start, stop = time.perf_counter(), threading.Event()

    def poll() -> None:
        while journal is not None and not stop.wait(POLL_SECONDS):
            with suppress(RunError):  # the tasks tell it, where OUT is gone
                reporter.advance(journal.count())

    before = journal.count() if journal is not None else 0
    if before:
        run.update(resumed=run.record["resumed"] + 1)
    reporter.advance(before)
    watcher = threading.Thread(target=poll, daemon=True)
    watcher.start()

    def end() -> None:
        stop.set()
        watcher.join()
        elapsed = time.perf_counter() - start
        seconds = run.record["seconds"]
        reporter.end(elapsed)
        run.update(seconds={**seconds, name: seconds.get(name, 0.0) + elapsed})

    try:
        yield
    except BaseException:
        with suppress(RunError):  # what it was is to be told, not that the clock could not be written
            end()
        raise
    reporter.advance(blocks)
    end()
