"""Progress in plain lines, for logs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from dcf.sizes import gigabytes, rate

if TYPE_CHECKING:
    from collections.abc import Callable

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


class Lines:
    """A line when a stage begins and ends, and every ten seconds between, for logs."""

    def __init__(self, say: Callable[[str], Any]) -> None:
        self._say = say

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
        """Say how long it took, if it came to its end."""
        new = self._finished - (self._resumed or 0)
        part = self._size * new / max(self._blocks, 1)
        speed = f", {rate(part, seconds)}" if part else ""
        whole = self._finished == self._blocks
        ended = "" if whole else f"stopped at {self._finished} of {self._blocks} blocks, "
        self._say(f"{self._stage}: {ended}{seconds:.1f} s{speed}")
