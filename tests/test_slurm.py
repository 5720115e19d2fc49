"""A real Slurm of one node: the same bits, lost jobs replaced, drivers that follow one another."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import slurm_node
from conftest import plant, store
from slow_server import CHUNKS, SMALL, bits, dcf_process
from test_examples import shell

import dcf.cluster.queues
from dcf.api import run_source
from dcf.cluster.configuration import ClusterConfig
from dcf.settings import Settings

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    why = slurm_node.missing()
    if why:
        assert not os.environ.get("CI"), why
        pytest.skip(why)
    with slurm_node.Slurm(tmp_path_factory.mktemp("slurm")) as slurm:
        yield slurm


@pytest.fixture
def place(tmp_path, slurm):
    """A folder with a cluster file in it, and nothing in the queue."""
    slurm.until(lambda: not slurm.jobs())
    (tmp_path / "slurm.yaml").write_text(
        'kind: slurm\nworkers: 2\nmemory: 600MiB\nwalltime: "00:10:00"\nqueue: debug\ninterface: lo\n'
        f"logs: {tmp_path}/logs\n"
    )
    return tmp_path


def status(place):
    return json.loads(dcf_process("status", "o.zarr", "--json", cwd=place))


def nmf(server):
    return ("nmf", f"{server.url}/s.zarr", "o.zarr", *SMALL, "--cluster", "slurm.yaml")


def in_pass(place, finished):
    """Return the status once so many blocks of a pass are finished, or None."""
    if not (place / "o.zarr" / "zarr.json").exists():
        return None
    now = status(place)
    return now if now["state"] == "running" and now["blocks"] and now["finished"] >= finished else None


def test_a_cluster_file_is_checked_by_a_job(slurm, place, server):
    said = dcf_process(
        "cluster", "check", "slurm.yaml", "--source", f"{server.url}/s.zarr", "--out", "o.zarr", cwd=place
    )
    assert "tls://127.0.0.1" in said
    assert "reads SOURCE, writes OUT" in said
    assert "slurm.yaml is in order." in said
    assert not (place / "o.zarr").exists()
    said = dcf_process("cluster", "check", "slurm.yaml", "--source", place / "no.zarr", cwd=place, expect=1)
    assert "it cannot read SOURCE" in said
    slurm.until(lambda: not slurm.jobs())


def test_what_the_queue_refuses_is_told(place, server):
    file = place / "slurm.yaml"
    file.write_text(file.read_text().replace("queue: debug", "queue: nosuch"))
    error = dcf_process(*nmf(server), cwd=place, expect=1)
    assert "slurm takes no job: sbatch: error: invalid partition specified: nosuch" in error
    assert "sbatch did not take the job" in dcf_process("submit", *nmf(server), cwd=place, expect=1)
    said = dcf_process("status", "o.zarr", cwd=place)  # who waits for the run learns that it will not come
    assert "state        failed" in said
    assert "last error   sbatch did not take the job" in said
    assert "resume with  dcf submit nmf " in said


def test_lost_jobs_are_replaced(slurm, place, server, conforms):
    """One worker job is cancelled in the middle of a pass, one while it waits in the queue."""
    file = place / "slurm.yaml"
    # Each asks for two of the four CPUs, so that the third one has to wait.
    file.write_text(file.read_text().replace("workers: 2", 'workers: 3\ndirectives: ["--cpus-per-task=2"]'))
    server.delay = 1.0
    driver = subprocess.Popen([sys.executable, "-m", "dcf", *map(str, nmf(server))], cwd=place)
    try:
        slurm.until(lambda: in_pass(place, 1))
        running, waiting = slurm.jobs("RUNNING"), slurm.jobs("PENDING")
        assert (len(running), len(waiting)) == (2, 1)
        victims = {next(iter(running)), next(iter(waiting))}
        slurm.say("scancel", *victims)
        slurm.until(lambda: len(set(slurm.jobs()) - victims) == 3)
        server.delay = 0.0
        assert driver.wait(120) == 0
    finally:
        driver.kill()
    conforms(place / "o.zarr")
    assert bits(place / "o.zarr") == server.bits
    # A chunk was read again only where a worker had its block in hand when it was cancelled.
    assert sum(server.asked.values()) <= 2 * CHUNKS + 2 * 4
    slurm.until(lambda: not slurm.jobs())


def test_jobs_whose_lifetime_ends_hand_over(slurm, place, server, monkeypatch):
    monkeypatch.setattr(dcf.cluster.queues, "lifetime_of", lambda walltime: 6)
    monkeypatch.setattr(dcf.cluster.queues, "KEEP_SECONDS", 1.0)
    monkeypatch.chdir(place)
    server.delay = 1.2
    config = ClusterConfig.read("slurm.yaml")
    seen = set()

    class Watch:
        def begin(self, stage, blocks, size):
            pass

        def advance(self, finished):
            seen.update(slurm.jobs())
            if len(seen) > 3:
                server.delay = 0.0

        def end(self, seconds):
            pass

    run_source(
        f"{server.url}/s.zarr", "o.zarr", Settings(rank=4, sketch_size=100), cluster=config, reporter=Watch()
    )
    assert len(seen) > 3
    assert bits(place / "o.zarr") == server.bits


def test_a_driver_whose_time_is_up_is_followed(slurm, place, server, conforms):
    """Submitted, looked at, out of time in the middle of the first pass, chained, resumed, finished."""
    server.delay = 1.0
    said = dcf_process("submit", *nmf(server), cwd=place)
    first = said.split("job ")[1].split()[0]
    assert "dcf status o.zarr" in said
    assert status(place)["state"] in ("queued", "running")
    now = slurm.until(lambda: in_pass(place, 2))
    assert now["stage"] == "sketch (pass 1)"
    assert (now["where"], now["jobs"], now["blocks"]) == ("slurm", [first], 8)
    assert now["left"] > 0
    assert 500 < now["until"] - time.time() < 600  # ten minutes, less a margin
    slurm.say("scontrol", "update", f"jobid={first}", "EndTime=now+30")
    now = slurm.until(lambda: (s := status(place)) and len(s["jobs"]) == 2 and s)
    assert now["state"] in ("queued", "running")
    before = sum(server.asked.values())
    server.delay = 0.2
    finished = []

    def done():
        now = status(place)
        assert now["state"] in ("queued", "running", "done")
        finished.append((now["stage"], now["finished"]))
        return now["state"] == "done"

    slurm.until(done, 120)
    passes = [count for stage, count in finished if stage == "sketch (pass 1)"]
    assert passes == sorted(passes)
    assert "finished before" in dcf_process("logs", "o.zarr", cwd=place)
    assert "It goes on as job" in dcf_process("logs", "o.zarr", cwd=place)
    conforms(place / "o.zarr")
    assert bits(place / "o.zarr") == server.bits
    assert sum(server.asked.values()) - before < 2 * CHUNKS  # finished blocks were not read again
    assert "done already" in dcf_process("submit", *nmf(server), cwd=place)
    slurm.until(lambda: not slurm.jobs())


def test_a_cancelled_run_is_gone_on_with(slurm, place, server):
    server.delay = 1.0
    dcf_process("submit", *nmf(server), cwd=place)
    slurm.until(lambda: in_pass(place, 2))
    assert "has a driver already, slurm job" in dcf_process("submit", *nmf(server), cwd=place, expect=1)
    assert "stopped; finished blocks are kept" in dcf_process("cancel", "o.zarr", cwd=place)
    now = status(place)
    assert now["state"] == "cancelled"
    assert now["passes"][0][1] >= 2
    slurm.until(lambda: not slurm.jobs())
    assert "nothing to cancel" in dcf_process("cancel", "o.zarr", cwd=place)
    server.delay = 0.0
    server.asked.clear()
    dcf_process(*nmf(server), cwd=place)
    assert bits(place / "o.zarr") == server.bits
    assert sum(server.asked.values()) < 2 * CHUNKS


def test_what_a_driver_failed_of_is_told(slurm, place):
    matrix = plant(400, 20, 3)[0]
    matrix[390, 7] = np.nan
    store(place / "bad.zarr", matrix, (100, 20))
    dcf_process("submit", "nmf", "bad.zarr", "o.zarr", "--rank", 3, "--cluster", "slurm.yaml", cwd=place)
    now = slurm.until(lambda: (s := status(place))["state"] not in ("queued", "running") and s)
    assert now["state"] == "failed"
    assert "The entry at [390, 7] is nan" in now["error"]
    assert "The entry at [390, 7] is nan" in dcf_process("logs", "o.zarr", cwd=place)
    slurm.until(lambda: not slurm.jobs())
    file = place / "slurm.yaml"
    file.write_text(file.read_text() + "prologue: [exit 3]\n")  # as where a module is not there
    dcf_process("submit", "nmf", "bad.zarr", "p.zarr", "--rank", 3, "--cluster", "slurm.yaml", cwd=place)
    slurm.until(lambda: "state        failed" in dcf_process("status", "p.zarr", cwd=place))


def test_a_killed_driver_is_told_and_resubmitted(slurm, place, server):
    server.delay = 1.0
    dcf_process("submit", *nmf(server), cwd=place)
    now = slurm.until(lambda: in_pass(place, 1))
    slurm.say("scancel", "--signal=KILL", "--batch", now["jobs"][-1])
    slurm.until(lambda: status(place)["state"] == "lost")
    slurm.until(lambda: not slurm.jobs(), 120)  # its workers found themselves without a scheduler
    server.delay = 0.0
    dcf_process("submit", *nmf(server), cwd=place)
    slurm.until(lambda: status(place)["state"] == "done")
    assert bits(place / "o.zarr") == server.bits


def test_the_example(place):
    printed = shell("slurm/run.sh", place / "try", place / "slurm.yaml")
    assert "slurm.yaml is in order." in printed
    assert "submitted    slurm job" in printed
    assert "trusted" in printed
