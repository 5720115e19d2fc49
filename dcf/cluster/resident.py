"""What a process has resident, which the plan is compared with."""

from __future__ import annotations

import resource
import sys
from functools import cache
from pathlib import Path

from dcf.sizes import MIB

# Of code that the bases of the plan count as resident; how much of a library a process has mapped depends
# on how its file lies in the system's cache, 40 to 110 MB of libllvmlite being usual.
_COUNTED_CODE = 60 * MIB


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
