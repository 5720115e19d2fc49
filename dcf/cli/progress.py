"""Progress on a terminal (bars with rate and time left) or in a log (plain lines)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

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

from dcf.lines import Lines, describe
from dcf.sizes import rate

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Task

    from dcf.types import Reporter


_PLAINLY: dict[str, Any] = {"highlight": False, "markup": False, "soft_wrap": True}


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


def reporter_for(console: Console) -> Reporter:
    """Return bars for a terminal, lines for anything else."""
    return Bars(console) if console.is_terminal else Lines(partial(console.print, **_PLAINLY))
