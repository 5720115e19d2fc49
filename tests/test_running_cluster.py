"""A Dask cluster that is running already, with TLS: who is let in, and a driver that is left alone in it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import zarr
from slow_server import CHUNKS, SMALL, bits, dcf_process, words_of
from slurm_node import free_ports

from dcf.cluster.environment import CONFIG
from dcf.cluster.security import make_certificates

pytestmark = pytest.mark.slow


class Running:
    """A scheduler and two workers, as an administrator would start them."""

    def __init__(self, folder, scheme):
        self.folder, self.processes = folder, []
        self.certs = make_certificates(folder / "certs")
        authority, certificate, key = (self.certs / name for name in ("ca.pem", "cert.pem", "key.pem"))
        tls = (
            ["--tls-ca-file", authority, "--tls-cert", certificate, "--tls-key", key]
            if scheme == "tls"
            else []
        )
        self.address = f"{scheme}://127.0.0.1:{free_ports(1)[0]}"
        quiet = ["--dashboard-address", "127.0.0.1:0", *tls]
        self.start("scheduler", "--host", self.address, *quiet)
        for _ in range(2):
            self.start(
                "worker", self.address, "--host", "127.0.0.1", "--nthreads", 1, "--memory-limit", "1GiB",
                "--local-directory", folder, *quiet,
            )  # fmt: skip

    def start(self, *words):
        environment = {
            f"DASK_{k.upper().replace('.', '__')}": str(v) for k, v in CONFIG.items() if "worker" in k
        }
        environment["DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"] = str(self.address.startswith("tls"))
        self.processes.append(
            subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.dask_{words[0]}", *map(str, words[1:])],
                env={**os.environ, **environment},
                stderr=subprocess.DEVNULL,
                cwd=self.folder,
            )
        )

    def stop(self):
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    running = Running(tmp_path_factory.mktemp("running"), "tls")
    yield running
    running.stop()


def status(place):
    return json.loads(dcf_process("status", "o.zarr", "--json", cwd=place))


def until(holds, seconds=90):
    start = time.monotonic()
    while not (found := holds()):
        assert time.monotonic() - start < seconds
        time.sleep(0.2)
    return found


def on(cluster, scheduler=None, tls=None):
    return ("--scheduler", scheduler or cluster.address, "--tls", tls or cluster.certs, "--memory", "800MiB")


def test_a_client_with_the_certificates_is_let_in(tmp_path, cluster, server, conforms):
    dcf_process("nmf", f"{server.url}/s.zarr", "o.zarr", *SMALL, *on(cluster), cwd=tmp_path)
    conforms(tmp_path / "o.zarr")
    assert bits(tmp_path / "o.zarr") == server.bits
    file = tmp_path / "dask.yaml"
    file.write_text(f"kind: dask\nscheduler: {cluster.address}\ntls: {cluster.certs}\nmemory: 800MiB\n")
    said = dcf_process(
        "cluster", "check", file, "--source", f"{server.url}/s.zarr", "--out", "o.zarr", cwd=tmp_path
    )
    assert said.count("reads SOURCE, writes OUT") == 2
    assert "is in order" in said
    said = dcf_process("cluster", "check", file, "--memory", "2GiB", "--json", cwd=tmp_path, expect=1)


def test_workers_that_are_held_to_less_than_a_run_needs_are_refused(tmp_path, cluster):
    zarr.create_array(tmp_path / "s.zarr", shape=(50_000, 8000), chunks=(2000, 8000), dtype="f4")
    words = "s.zarr", "o.zarr", "--rank", 60, "--scheduler", cluster.address, "--tls", cluster.certs
    error = dcf_process("nmf", *words, "--memory", "8GiB", cwd=tmp_path, expect=4)
    assert "the cluster allows 1024MiB: start its workers with a --memory-limit of" in error


@pytest.mark.parametrize("who", ["without certificates", "with others", "plain TCP", "nobody there"])
def test_all_others_are_refused(tmp_path, cluster, source, who):
    place = cluster.address.partition("://")[2]
    port = free_ports(1)[0]
    words, says = {
        "without certificates": (("--scheduler", cluster.address), "give their folder with --tls DIR"),
        "with others": (on(cluster, tls=make_certificates(tmp_path / "others")), "of the same authority as"),
        "plain TCP": (("--scheduler", f"tcp://{place}"), "does it speak tls:// alone"),
        "nobody there": (on(cluster, scheduler=f"tls://127.0.0.1:{port}"), "is it there"),
    }[who]
    error = dcf_process("nmf", source, "o.zarr", "--rank", 3, *words, cwd=tmp_path, expect=1)
    assert says in error
    assert f"The scheduler {words[1]} cannot be reached" in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "o.zarr").exists()


def test_a_driver_goes_on_without_its_client(tmp_path, cluster, server, conforms):
    """The client is killed as soon as it has submitted; another shell finds status, logs and result."""
    server.delay = 1.0
    words = ("submit", "nmf", f"{server.url}/s.zarr", "o.zarr", *SMALL, *on(cluster))
    client = subprocess.Popen(words_of(*words), cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert "submitted    dask job dcf-" in client.stdout.readline()
    client.send_signal(signal.SIGKILL)
    client.wait()
    client.stdout.close()

    def in_pass():
        now = status(tmp_path)
        return now if now["blocks"] and now["finished"] >= 2 else None

    now = until(in_pass)
    assert (now["state"], now["where"], now["stage"]) == ("running", "dask", "sketch (pass 1)")
    assert now["rate"] > 0
    said = dcf_process("status", "o.zarr", cwd=tmp_path)
    assert "sketch (pass 1): " in said
    assert "of 8 blocks" in said
    server.delay = 0.1
    until(lambda: "state        done" in dcf_process("status", "o.zarr", cwd=tmp_path))
    assert "scale and store" in dcf_process("logs", "o.zarr", cwd=tmp_path)
    conforms(tmp_path / "o.zarr")
    assert bits(tmp_path / "o.zarr") == server.bits
    assert sum(server.asked.values()) == 2 * CHUNKS


def test_a_driver_on_a_cluster_is_cancelled_and_followed(tmp_path, cluster, server):
    server.delay = 1.0
    words = ("submit", "nmf", f"{server.url}/s.zarr", "o.zarr", *SMALL, *on(cluster))
    dcf_process(*words, cwd=tmp_path)
    until(lambda: status(tmp_path)["finished"] >= 1)
    assert "has a driver already, dask job" in dcf_process(*words, cwd=tmp_path, expect=1)
    assert "is locked by another run" in dcf_process(*words[1:], cwd=tmp_path, expect=1)
    assert "stopped; finished blocks are kept" in dcf_process("cancel", "o.zarr", cwd=tmp_path)
    assert "state        cancelled" in dcf_process("status", "o.zarr", cwd=tmp_path)
    server.delay = 0.0
    dcf_process(*words, cwd=tmp_path)
    until(lambda: "state        done" in dcf_process("status", "o.zarr", cwd=tmp_path))
    assert bits(tmp_path / "o.zarr") == server.bits


def test_a_driver_whose_worker_is_killed_begins_again_on_another(tmp_path, server):
    """Without TLS, on loopback, where that needs no flag."""
    running = Running(tmp_path, "tcp")
    try:
        server.delay = 1.0
        words = ("nmf", f"{server.url}/s.zarr", "o.zarr", *SMALL, "--scheduler", running.address)
        until(lambda: subprocess.run(
            words_of("cluster", "check", file_of(tmp_path, running)), cwd=tmp_path, check=False,
            capture_output=True).returncode in (0, 1))  # fmt: skip
        dcf_process("submit", *words, "--memory", "800MiB", cwd=tmp_path)
        now = until(lambda: (s := status(tmp_path))["finished"] and s)
        beat = json.loads((tmp_path / "o.zarr" / "driver" / "beat" / "zarr.json").read_text())["attributes"]
        os.kill(beat["pid"], signal.SIGKILL)  # the worker in which the driver is
        server.delay = 0.0
        until(lambda: "state        done" in dcf_process("status", "o.zarr", cwd=tmp_path))
        after = json.loads((tmp_path / "o.zarr" / "driver" / "beat" / "zarr.json").read_text())["attributes"]
        assert after["pid"] != beat["pid"]
        assert now["state"] == "running"
        assert bits(tmp_path / "o.zarr") == server.bits
    finally:
        running.stop()


def file_of(folder, running):
    file = folder / "dask.yaml"
    file.write_text(f"kind: dask\nscheduler: {running.address}\nmemory: 800MiB\n")
    return file
