"""Who carries a run: one driver at a time, wherever it is, and told to stop from anywhere."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from commandline import dcf as command
from conftest import plant, store

import dcf
from dcf.errors import RunError, Stopped
from dcf.storage import lease
from dcf.storage.lease import Host, Lease, is_fresh, read, refuse_busy, write
from dcf.storage.run import RunGroup


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(lease, "_SETTLE_SECONDS", 0.3)


@pytest.fixture
def run(tmp_path, nmf, source):
    nmf(source, out=tmp_path / "o.zarr")
    return RunGroup.open(str(tmp_path / "o.zarr"))


def hold(run, host, act=lambda: None):
    """Be a driver that does something and then works on until it is interrupted, as the command line is."""

    def terminate(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        work(run, host, act)
    finally:
        signal.signal(signal.SIGTERM, before)


def work(run, host, act):
    with Lease(run, host).held():
        act()
        time.sleep(5)
        pytest.fail("it was not interrupted")


def elsewhere(monkeypatch):
    """From here on, this is another machine."""
    monkeypatch.setattr(socket, "gethostname", lambda: "another")


def test_a_run_of_ones_own_leaves_no_trace(run):
    assert not Path(run.url, "driver").exists()
    with Lease(run, Host()).held():
        assert is_fresh(read(run.url, "beat"))
    assert not Path(run.url, "driver").exists()


def test_a_driver_on_another_machine_is_refused_while_the_first_lives(run, monkeypatch):
    with Lease(run, Host()).held():
        elsewhere(monkeypatch)
        with pytest.raises(RunError, match=r"is locked by another run that is still going, on .*dcf cancel"):
            refuse_busy(run.url)


def test_a_silent_driver_of_another_machine_is_taken_over(run, monkeypatch, caplog):
    write(run, "beat", {"state": "running", "holder": "x", "host": "gone", "beat": 7, "time": time.time()})
    refuse_busy(run.url)
    assert "gives no sign of life" in caplog.text
    with Lease(run, Host()).held():
        assert read(run.url, "beat")["holder"] != "x"


def test_a_driver_that_was_taken_over_lets_go(run):
    with pytest.raises(Stopped, match="another driver has taken this run over"):
        hold(run, Host("dask", "key"), lambda: write(run, "beat", {"state": "running", "holder": "x"}))


def test_a_driver_whose_sign_of_life_cannot_be_found_goes_on(run):
    with (held := Lease(run, Host("dask", "key"))).held():
        run.drop("driver/beat")
        end = time.monotonic() + 4 * lease.BEAT_SECONDS
        while not read(run.url, "beat") and time.monotonic() < end:
            time.sleep(0.05)
        assert read(run.url, "beat")["state"] == "running"
        held.check()


def test_a_dead_driver_of_this_machine_is_no_obstacle(run):
    """Its process is gone, or, for a folder, the lock is ours."""
    code = "import os; print(os.getpid())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    beat = {"state": "running", "host": socket.gethostname(), "pid": int(child.stdout), "beat": 1}
    start = time.monotonic()
    for out in (run.url, "memory://o.zarr"):
        assert lease._known_dead(out, beat)
    assert not lease._known_dead("memory://o.zarr", {**beat, "pid": os.getpid()})
    assert not lease._known_dead("memory://o.zarr", {**beat, "host": "another"})
    write(run, "beat", beat)
    refuse_busy(run.url)
    assert time.monotonic() - start < 4 * lease.BEAT_SECONDS


def test_what_is_asked_to_stop_stops_with_its_reason(run):
    host = Host("dask", "key")
    with pytest.raises(Stopped, match="cancelled by dcf cancel on laptop; the same command resumes"):
        hold(run, host, lambda: write(run, "cancel", {"time": time.time(), "host": "laptop"}))
    assert read(run.url, "beat")["state"] == "stopped"


def test_a_cancelled_submission_is_not_a_cancelled_next_one(run):
    write(run, "cancel", {"time": time.time(), "host": "laptop"})
    write(run, "job", {"time": time.time() + 1, "where": "dask", "jobs": ["key"]})
    with Lease(run, Host("dask", "key")).held():
        time.sleep(3 * lease.BEAT_SECONDS)
    assert read(run.url, "beat")["state"] == "done"


def test_a_driver_stops_before_its_time_is_up(run):
    end = time.monotonic() + 0.5
    host = Host("slurm", "12", left=lambda: end - time.monotonic())
    with pytest.raises(Stopped, match="the time of its job is nearly up"):
        hold(run, host)
    beat = read(run.url, "beat")
    assert (beat["where"], beat["job"], beat["state"]) == ("slurm", "12", "stopped")
    assert beat["until"] < time.time()


def test_in_a_thread_the_driver_asks_itself(run):
    """Nothing interrupts a thread; whoever waits for workers looks once a second."""
    told = []

    def drive():
        try:
            kept = Lease(run, Host("dask", "key"))
            with kept.held():
                write(run, "cancel", {"time": time.time(), "host": "laptop"})
                while True:
                    time.sleep(0.02)
                    kept.check()
        except Stopped as stop:
            told.append(str(stop))

    thread = threading.Thread(target=drive)
    thread.start()
    thread.join(20)
    assert told[0].startswith("cancelled")


def test_torn_documents_count_as_none(run):
    with Lease(run, Host()).held():
        place = Path(run.url, "driver", "beat", "zarr.json")
    write(run, "beat", {"state": "running", "holder": "x", "host": "gone"})
    place.write_text(place.read_text()[:40])
    assert read(run.url, "beat") == {}
    refuse_busy(run.url)
    assert json.loads(command("status", run.url, "--json")[0])["state"] == "done"


def test_status_of_a_run_that_was_stopped(tmp_path, monkeypatch, small_blocks):
    """Nothing is known but what the run group says: how far it is, why it stopped, how to go on."""
    monkeypatch.chdir(tmp_path)
    matrix = plant(400, 20, 3)[0]
    matrix[390, 7] = -1
    store("s.zarr", matrix, (25, 20))
    command("nmf", "s.zarr", "o.zarr", "--rank", "3", expect=3)
    said = command("status", "o.zarr")[0]
    assert "state        stopped" in said
    assert "last error   The entry at [390, 7] is -1" in said
    assert "resume with  dcf nmf s.zarr o.zarr --rank 3" in said
    monkeypatch.chdir("/")
    there = command("status", str(tmp_path / "o.zarr"))[0]
    assert f"resume with  cd {tmp_path} && dcf nmf s.zarr o.zarr --rank 3" in there
    monkeypatch.chdir(tmp_path)
    assert "was not submitted" in command("logs", "o.zarr", expect=2)[1]
    assert "nothing to cancel: the run is stopped" in command("cancel", "o.zarr")[0]
    assert "holds no run of dcf" in command("status", "s.zarr", expect=2)[1]
    assert "holds no run of dcf" in command("cancel", "nowhere.zarr", expect=2)[1]
    matrix[390, 7] = 1
    store("s.zarr", matrix, (25, 20), overwrite=True)
    command("nmf", "s.zarr", "o.zarr", "--rank", "3")
    assert "state        done" in command("status", "o.zarr")[0]
    assert dcf.nmf("s.zarr", rank=3, out="o.zarr").relative_error.value > 0
