"""Progress on a terminal (bars with rate and time left) or in a log (plain lines)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from dcf.cli.text import gigabytes, rate

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Task

    from dcf.types import Reporter

_SECONDS_BETWEEN_LINES = 10.0
_DESCRIPTIONS = {
    "sketch": "sketch (pass 1)",
    "factorize": "factorize",
    "recover": "recover columns",
    "recover rows": "recover rows",
    "scale": "scale and store",
}


def describe(stage: str) -> str:
    """Return the stage in words; a refine stage names its pass."""
    if stage.startswith("refine"):
        return f"refine (pass {int(stage.split()[1]) + 1})"
    return _DESCRIPTIONS[stage]


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        size = task.fields["size"]
        if not size or not task.completed or not task.elapsed:
            return Text("")
        return Text(rate(size * (task.completed - task.fields["resumed"]) / (task.total or 1), task.elapsed))


class Bars:
    """A bar a stage, for terminals."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description:<18}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )
        self._first = True

    def begin(self, stage: str, blocks: int, size: int) -> None:
        """Open a bar."""
        self._progress.start()
        self._total = blocks or 1
        self._first = True
        self._task = self._progress.add_task(describe(stage), total=self._total, size=size, resumed=0)

    def advance(self, finished: int) -> None:
        """Move the bar."""
        if self._first:  # blocks of an earlier try count as done, not as read at this rate
            self._progress.update(self._task, resumed=finished)
            self._first = False
        self._progress.update(self._task, completed=finished)

    def end(self, seconds: float) -> None:
        """Close the bar."""
        done = self._progress.tasks[self._task]
        if done.fields["size"] == 0 and done.completed == 0:
            self._progress.update(self._task, completed=self._total)
        self._progress.stop()


class Lines:
    """A line when a stage begins and ends, and every ten seconds between, for logs."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def begin(self, stage: str, blocks: int, size: int) -> None:
        """Say what begins."""
        self._stage, self._blocks, self._size = describe(stage), blocks, size
        self._start = self._last = time.monotonic()
        self._resumed: int | None = None
        self._finished = 0
        reading = f", {gigabytes(size)} to decode" if size else ""
        count = f": {blocks} block{'s' if blocks != 1 else ''}{reading}" if blocks else ""
        self._say(f"{self._stage}{count}")

    def advance(self, finished: int) -> None:
        """Say how far it is, at most every ten seconds."""
        now = time.monotonic()
        self._finished = finished
        if self._resumed is None:
            self._resumed = finished
            if finished and self._blocks:
                self._say(f"{self._stage}: {finished} of {self._blocks} blocks were finished before")
        elif now - self._last >= _SECONDS_BETWEEN_LINES and self._blocks:
            self._last = now
            new = finished - self._resumed
            left = (now - self._start) * (self._blocks - finished) / new if new else float("nan")
            part = self._size * new / self._blocks
            speed = f", {rate(part, now - self._start)}" if self._size else ""
            self._say(f"{self._stage}: {finished} of {self._blocks} blocks{speed}, {left:.0f} s left")

    def end(self, seconds: float) -> None:
        """Say how long it took."""
        new = self._finished - (self._resumed or 0)
        part = self._size * new / max(self._blocks, 1)
        speed = f", {rate(part, seconds)}" if part else ""
        self._say(f"{self._stage}: {seconds:.1f} s{speed}")

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def reporter_for(console: Console) -> Reporter:
    """Return bars for a terminal, lines for anything else."""
    return Bars(console) if console.is_terminal else Lines(console)
