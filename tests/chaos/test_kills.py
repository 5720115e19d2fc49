"""Random SIGKILLs of driver and workers: every run ends, resumed, in the bits of one left in peace.

DCF_CHAOS_KILLS says how many (make chaos: 240); a short form runs with the other tests.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
import zarr
from conftest import plant, plant_tensor, store

from dcf.storage.run import RunGroup

KILLS = int(os.environ.get("DCF_CHAOS_KILLS", "16"))
CHUNK_ROWS = 64
JOBS = {
    "nmf": ("nmf", {"rank": 4, "refine": 2}),
    "nmf from the sketches": ("nmf", {"rank": 4, "refine": 0, "sketch_size": 300, "max_iter": 60}),
    "nmf recovered": ("nmf", {"rank": 4, "method": "factorize-recover", "sketch_size": 300, "max_iter": 60}),
    "cp": ("cp", {"rank": 3, "refine": 2}),
}

pytestmark = pytest.mark.slow


class Nursery:
    """The process that bears the runs."""

    def __init__(self, folder):
        words = [sys.executable, str(Path(__file__).with_name("nursery.py"))]
        self.process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # A run that is killed leaves its temporary folder behind.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)},
        )

    def ask(self, **what):
        """Return the answer to a request."""
        print(json.dumps(what), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def close(self):
        """Let it end."""
        with self.process:  # closes its pipes and waits
            pass


@pytest.fixture(scope="module")
def nursery(tmp_path_factory):
    made = Nursery(tmp_path_factory.mktemp("nursery"))
    yield made
    made.close()


def finished(out):
    """Return the pass that a run is in, from 0, its finished blocks, and the rows of a block."""
    try:
        record = RunGroup.open(str(out), mode="r").record
    except (ValueError, RuntimeError):  # killed before there was a record
        return 0, set(), 1
    number = 0 if record["stage"] == "created" else 1 + record.get("refined", 0)
    marks = out / "stages" / (f"refine_{number}" if number else "sketch") / "done" / "c"
    rows = record["plan"]["refine_block_rows" if number else "sketch_block_rows"]
    return number, {int(mark.name) for mark in marks.glob("*") if mark.name.isdecimal()}, rows


def bits(out):
    group = zarr.open_group(out, mode="r")
    record = dict(group.attrs)["dcf"]
    same = {
        key: record[key]
        for key in ("relative_error", "trust", "components", "method", "passes", "bytes_read")
    }
    return {name: array[:].tobytes() for name, array in group.arrays()}, same


@pytest.mark.parametrize("job", JOBS)
def test_killed_at_any_moment(tmp_path, nursery, conforms, job):
    """The driver dies, again and again, until a run is through; then the next run."""
    verb, options = JOBS[job]
    data = plant_tensor((1200, 12, 8))[0] if verb == "cp" else plant()[0]
    store(tmp_path / "s.zarr", data, chunks=(CHUNK_ROWS, *data.shape[1:]))
    passes, chance = 1 + options.get("refine", 1), random.Random(job)

    def begin(out, log):
        job = {"verb": verb, "source": str(tmp_path / "s.zarr"), "out": str(out), "log": str(log)}
        return nursery.ask(job={**job, "options": options, "processes": False})["pid"]

    for _ in range(2):  # the first one compiles
        start, whole = time.monotonic(), tmp_path / f"whole{_}.zarr"
        assert nursery.ask(wait=begin(whole, tmp_path / "log"))["code"] == 0
        length = time.monotonic() - start
    expected = bits(whole)
    kills, stages, run = 0, Counter(), 0
    while kills < -(-KILLS // len(JOBS)):
        run += 1
        out, lives = tmp_path / f"out{run}.zarr", 0
        while True:
            number, done, rows = finished(out)
            log = tmp_path / f"log{run}-{lives}"
            pid, lives = begin(out, log), lives + 1
            # A life may be too short to finish a block; they get longer, so that every run ends.
            time.sleep(chance.uniform(0.05, length * (0.8 + 0.1 * lives)))
            os.kill(pid, signal.SIGKILL)
            code = nursery.ask(wait=pid)["code"]
            for key, count in Counter(Path(log).read_text().split() if log.exists() else []).items():
                block = int(key.split("/")[1]) * CHUNK_ROWS // rows
                assert count <= passes - number - (block in done), (key, number, done)
            if code == 0:
                break
            assert code == -signal.SIGKILL
            kills += 1
            stages[finished(out)[0]] += 1
        assert bits(out) == expected
        conforms(out, tmp_path / "s.zarr")
    print(f"{job}: {kills} kills, {run} runs, passes begun when killed {dict(stages)}")


def workers_of(driver):
    """Return the worker processes of a driver; none where it is dead."""
    try:
        return [child for child in driver.children() if "spawn_main" in " ".join(child.cmdline())]
    except psutil.Error:  # one died while it was looked at
        return []


def test_workers_killed_at_any_moment(tmp_path, nursery, conforms):
    """Worker processes die, or their driver; the run goes on, or stops and is resumed at once."""
    chance = random.Random(0)
    store(tmp_path / "s.zarr", plant()[0], chunks=(CHUNK_ROWS, 60))
    job = {"verb": "nmf", "source": str(tmp_path / "s.zarr"), "options": JOBS["nmf"][1], "processes": True}

    def begin(name):
        return nursery.ask(job={**job, "out": str(tmp_path / name), "log": str(tmp_path / f"{name}.log")})[
            "pid"
        ]

    start = time.monotonic()
    assert nursery.ask(wait=begin("whole.zarr"))["code"] == 0
    length, expected = time.monotonic() - start, bits(tmp_path / "whole.zarr")
    wanted, kills, run = max(3, KILLS // 6), 0, 0
    while kills < wanted:
        run += 1
        name, before = f"out{run}.zarr", kills
        for _ in range(20):
            driver = psutil.Process(begin(name))
            for _ in range(3):
                time.sleep(chance.uniform(0.3, 0.6) * length)
                workers = workers_of(driver)
                if workers and driver.status() != psutil.STATUS_ZOMBIE:
                    chance.choice([*workers, driver]).kill()
                    kills += 1
            if nursery.ask(wait=driver.pid)["code"] == 0:
                break
        assert bits(tmp_path / name) == expected
        conforms(tmp_path / name, tmp_path / "s.zarr")
        reads = Counter((tmp_path / f"{name}.log").read_text().split())
        # A block in hand is begun again; of those that were finished none is.
        assert sum(reads.values()) <= 3 * len(reads) + 2 * (kills - before) * (1200 // CHUNK_ROWS // 8)
