"""A process that has everything imported and bears one run after the other, each a fork to be killed.

Requests are lines of JSON on stdin, answered on stdout: {"job": …} with {"pid": …} of a run just born,
{"wait": pid} with its {"code": …} once it ended (−9: killed).
"""

import json
import os
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import dask
from counting import open_counted

import dcf
import dcf.estimators
import dcf.plan


def run(job):
    """Run one decomposition in small blocks, its reads written down."""
    dcf.plan.BLOCK_BYTES, dcf.plan.READ_PER_JOURNAL_BYTE, dcf.plan.MOST_BLOCKS = 1, 0, 16
    if job["processes"]:
        dcf.api.SMALL_SOURCE_BYTES = 0
    source = open_counted(job["source"], job["log"])
    with dask.config.set({} if job["processes"] else {"scheduler": "threads"}):
        getattr(dcf, job["verb"])(source, out=job["out"], workers=2, **job["options"])


def bear(job):
    """Run a job in a fork of this process, which has no thread yet; return its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        run(job)
        code = 0
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(code)


def main():
    """Answer requests until there are no more."""
    for line in sys.stdin:
        asked = json.loads(line)
        if "wait" in asked:
            answer = {"code": os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1])}
        else:
            answer = {"pid": bear(asked["job"])}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
