"""Workers and schedulers that die, in real processes: the same bits, or one sentence."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import dask
import numpy as np
import psutil
import pytest
from conftest import plant, store
from dask.delayed import delayed
from distributed import Client

import dcf
import dcf.cluster.workers
import dcf.plan
from dcf.cluster.connect import connect
from dcf.cluster.environment import CONFIG
from dcf.cluster.workers import ClientWorkers
from dcf.errors import BudgetError, RunError

pytestmark = pytest.mark.slow
LOOPBACK = ("127.0.0.1", "::1")


@pytest.fixture
def slow_source(tmp_path, monkeypatch):
    """A matrix of many blocks, read by worker processes."""
    monkeypatch.setattr(dcf.plan, "BLOCK_BYTES", 1)
    monkeypatch.setattr(dcf.plan, "READ_PER_JOURNAL_BYTE", 0)
    monkeypatch.setattr("dcf.api.SMALL_SOURCE_BYTES", 0)
    store(tmp_path / "s.zarr", plant(20_000, 60)[0], chunks=(256, 60))
    return tmp_path / "s.zarr"


def bits(result):
    return np.asarray(result.W[:]).tobytes() + np.asarray(result.H[:]).tobytes()


def reference(source):
    with dask.config.set(scheduler="synchronous"):
        return bits(dcf.nmf(source, rank=4, workers=1))


@contextlib.contextmanager
def once_the_journal_has(out, blocks, act):
    """Do `act` in a thread as soon as so many blocks of the first pass are finished."""
    stop = threading.Event()

    def watch():
        done = out / "stages" / "sketch" / "done" / "c"
        while not stop.wait(0.005):
            if done.exists() and len(list(done.iterdir())) >= blocks:
                return act()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def worker_processes(parent=None):
    """The worker processes below a process: those with dask's nanny, or spawned by a local cluster."""
    below = psutil.Process(parent).children(recursive=True)
    return [p for p in below if "spawn_main" in " ".join(p.cmdline())]


class External:
    """A scheduler and a worker with its nanny, as processes of their own, on loopback."""

    def __init__(self, folder):
        self.file = folder / "scheduler.json"
        loopback = ["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"]
        self.scheduler = self._start("dask_scheduler", *loopback, "--port", "0")
        self.worker = self._start("dask_worker", *loopback, "--nthreads", "1", "--memory-limit", "0")

    def _start(self, name, *words):
        command = [
            sys.executable,
            "-m",
            f"distributed.cli.{name}",
            "--scheduler-file",
            str(self.file),
            *words,
        ]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(dcf.__file__).parents[1])])}
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def kill_worker(self):
        """The nanny first, which would start another."""
        below = psutil.Process(self.worker.pid).children(recursive=True)
        for process in (self.worker, *below):
            process.kill()

    def kill_scheduler(self):
        self.scheduler.kill()

    def close(self):
        for process in (self.worker, self.scheduler):
            with contextlib.suppress(psutil.NoSuchProcess):
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
            process.kill()
            process.wait()


@pytest.fixture
def external(tmp_path):
    made = External(tmp_path)
    try:
        yield made
    finally:
        made.close()


def test_a_killed_worker_changes_no_bit(tmp_path, slow_source):
    expected, out = reference(slow_source), tmp_path / "o.zarr"
    killed = []

    def kill():
        killed.append(worker_processes()[0])
        killed[0].kill()

    with once_the_journal_has(out, 3, kill):
        result = dcf.nmf(slow_source, rank=4, out=out, workers=2)
    assert killed
    assert bits(result) == expected


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(
    ("victim", "sentence"),
    [
        ("kill_worker", "All workers of tcp://127.0.0.1:.* are lost.*the same command resumes"),
        ("kill_scheduler", "The scheduler at tcp://127.0.0.1:.* is lost.*the same command resumes"),
    ],
)
def test_a_lost_cluster_is_one_sentence(tmp_path, slow_source, external, monkeypatch, victim, sentence):
    monkeypatch.setattr(dcf.cluster.workers, "LOST_SECONDS", 2.0)
    out = tmp_path / "o.zarr"
    with Client(scheduler_file=str(external.file), timeout=3) as client:
        client.wait_for_workers(1, timeout=30)
        with once_the_journal_has(out, 3, getattr(external, victim)):
            with pytest.raises(RunError, match=sentence):
                dcf.nmf(slow_source, rank=4, out=out)
        if victim == "kill_scheduler":
            with pytest.raises(RunError, match="no connection to its scheduler; close it"):
                dcf.nmf(slow_source, rank=4, out=out)
    result = dcf.nmf(slow_source, rank=4, out=out, workers=1)
    assert result.attributes["resumed"] == 1
    assert bits(result) == reference(slow_source)


def hog(size):
    held = np.ones(size // 8)
    time.sleep(2)
    return held.sum()


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def fail(error):
    raise error


def test_too_much_memory_is_told_from_other_deaths(monkeypatch):
    limit = 400 * 2**20
    with connect(1, in_process=False, memory=limit, planned=300 * 2**20) as workers:
        assert workers.compute(delayed(sum)([1, 2])) == 3
        with pytest.raises(RunError, match="Workers died again and again"):
            workers.compute(delayed(die)())
        # Exceptions of tasks pass through as they are, timeouts of theirs too.
        for error in (dcf.SourceError("a"), OSError("b"), TimeoutError("c")):
            with pytest.raises(type(error), match=str(error)):
                workers.compute(delayed(fail)(error))
        with pytest.raises(BudgetError, match=r"passing --memory 400MiB \(planned 300MiB\): raise it"):
            workers.compute(delayed(hog)(2 * limit))
        assert workers.compute(delayed(sum)([1, 2])) == 3


def test_a_plan_that_is_too_low_ends_in_a_sentence(tmp_path, slow_source, monkeypatch):
    """The worker takes more than foreseen: the run is refused, not the machine brought down."""
    monkeypatch.setattr(dcf.plan, "WORKER_BASE", 2**20)
    monkeypatch.setattr(dcf.plan, "DRIVER_BASE", 2**20)
    monkeypatch.setattr(dcf.cluster.workers, "LOST_SECONDS", 10.0)
    with pytest.raises(BudgetError, match="Workers were ended for passing --memory 180MiB") as refusal:
        dcf.nmf(slow_source, rank=4, out=tmp_path / "o.zarr", workers=1, memory="180MiB")
    assert refusal.value.exit_code == 4
    monkeypatch.undo()


def test_peaks_of_the_dead_are_unknown():
    with connect(2, in_process=False) as workers:
        worker_processes()[0].kill()
        assert len(workers.peaks()) <= 2
        assert workers.compute(delayed(sum)([1, 2])) == 3


def test_ctrl_c_cancels_the_work():
    # A shell starts what it runs in the background with the signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        interrupt_and_look()
    finally:
        signal.signal(signal.SIGINT, before)


def interrupt_and_look():
    with connect(1, in_process=False) as workers:
        timer = threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            workers.compute(delayed(time.sleep)(300))
        timer.join()
        deadline = time.monotonic() + 10
        while workers.client.processing() and any(workers.client.processing().values()):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_every_port_listens_on_loopback_alone():
    with connect(2, in_process=False) as workers:
        assert isinstance(workers, ClientWorkers)
        me = psutil.Process()
        listening = [
            connection.laddr.ip
            for process in (me, *me.children(recursive=True))
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        ]
    assert len(listening) >= 3  # the scheduler and two workers at the least
    assert set(listening) <= set(LOOPBACK)


def test_the_limit_is_that_of_the_plan():
    with connect(1, in_process=False, memory=2**30) as workers:
        (worker,) = workers.client.scheduler_info(n_workers=-1)["workers"].values()
        assert worker["memory_limit"] == 2**30
    assert CONFIG["distributed.worker.memory.terminate"] == 1.0
