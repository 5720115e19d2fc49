"""The command line: exit codes, sentences, staged verbs, signals."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import zarr
from commandline import dcf
from conftest import store

from dcf.cli import main as cli
from dcf.datasets import planted_nmf
from dcf.metrics import support_f1
from dcf.storage.run import RunGroup


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.zarr"


def test_nmf_prints_a_summary_and_conforms(source, out, conforms):
    printed, progress = dcf("nmf", source, out, "--rank", 4, "--workers", 2)
    for word in ("error", "(exact)", "passes       2", "peak memory", "trusted", "0 absent chunks", str(out)):
        assert word in printed
    for stage in ("sketch (pass 1)", "factorize", "refine (pass 2)", "scale and store"):
        assert stage in progress
    conforms(out, source)
    assert "component" in dcf("inspect", out)[0]
    assert json.loads(dcf("inspect", out, "--json")[0])["stage"] == "done"
    assert json.loads(dcf("nmf", source, out, "--rank", 4, "--json")[0])["passes"] == 2


def test_plan_reads_no_chunk(source):
    shutil.rmtree(source / "c")
    printed, _ = dcf("plan", source, "--rank", 4)
    for word in ("method       auto", "range sketch", "passes       2", "tasks", "memory"):
        assert word in printed
    assert json.loads(dcf("plan", source, "--rank", 4, "--json")[0])["rank"] == 4


@pytest.mark.parametrize(
    "options",
    [["--sketch-size", 300], ["--method", "factorize-recover", "--sketch-size", 400, "--max-iter", 50]],
)
def test_the_staged_verbs_do_what_nmf_does(source, out, tmp_path, conforms, options):
    dcf("nmf", source, tmp_path / "whole.zarr", "--rank", 4, *options)
    printed = dcf("sketch", source, out, "--rank", 4, *options)[0]
    assert "next: dcf factorize" in printed
    assert "stopped" not in printed + dcf("inspect", out)[0]  # it waits, as it should
    assert f"next         dcf factorize {out}" in dcf("status", out)[0]
    assert "has reached sketch; run dcf factorize first" in dcf("refine", out, expect=2)[1]
    away = source.rename(source.with_name("away.zarr"))
    assert "next: dcf recover" in dcf("factorize", out)[0]
    assert "next: dcf refine" in dcf("recover", out)[0]
    assert "does not exist" in dcf("refine", out, expect=2)[1]
    away.rename(source)
    assert "(exact)" in dcf("refine", out)[0]
    conforms(out, source)
    for name in ("W", "H"):
        a, b = (zarr.open_group(run)[name][:] for run in (out, tmp_path / "whole.zarr"))
        np.testing.assert_array_equal(a, b)


def test_recovery_from_the_sketch_alone(tmp_path, out, conforms):
    generator = np.random.default_rng(0)
    n, k = 20_000, 40
    w = np.zeros((n, 4))
    for column in w.T:
        column[generator.choice(n, k, replace=False)] = 0.2 + generator.exponential(size=k)
    source = tmp_path / "s.zarr"
    store(source, w @ (0.1 + generator.random((4, 50))), chunks=(4096, 50))
    dcf(
        "sketch",
        source,
        out,
        "--rank",
        4,
        "--method",
        "factorize-recover",
        "--refine",
        0,
        "--sketch-size",
        1000,
    )
    away = source.rename(tmp_path / "away.zarr")
    dcf("factorize", out)
    printed, _ = dcf("recover", out)
    assert "estimated, 95 % within" in printed
    conforms(out, away)
    assert support_f1(zarr.open_group(out)["W"][:], w).min() >= 0.99


def test_the_unforeseen_is_one_sentence(source, out, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("the disk melted")

    monkeypatch.setattr(cli, "run_source", fail)
    _, error = dcf("nmf", source, out, "--rank", 4, expect=1)
    assert "RuntimeError: the disk melted" in error


def command_of(source, out):
    """A run of many passes in worker processes."""
    words = ["nmf", source, out, "--rank", "4", "--workers", "2", "--refine", "6"]
    return [sys.executable, "-m", "dcf", *map(str, words)]


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A matrix large enough for worker processes, and what a run that nobody interrupts makes of it."""
    folder = tmp_path_factory.mktemp("large")
    planted_nmf(folder / "s.zarr", (240_000, 300), 4, chunks=(5000, 300))
    subprocess.run(command_of(folder / "s.zarr", folder / "whole.zarr"), capture_output=True, check=True)
    return folder / "s.zarr", folder / "whole.zarr"


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_by_a_signal_and_resumed(large, out, conforms, number, code):
    source, whole = large
    command = command_of(source, out)
    # What a shell starts in the background, these tests perhaps, ignores the signal, and so do its children.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    run = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True, text=True)
    signal.signal(signal.SIGINT, before)
    while not (out / "stages" / "refine_2").exists():
        assert run.poll() is None
        time.sleep(0.02)
    children = psutil.Process(run.pid).children(recursive=True)
    os.killpg(run.pid, number) if number is signal.SIGINT else os.kill(run.pid, number)
    _, error = run.communicate(timeout=60)
    assert run.returncode == code
    assert "Traceback" not in error
    assert "the same command resumes" in error
    psutil.wait_procs(children, timeout=10)
    assert not [child for child in children if child.is_running()]
    assert RunGroup.open(str(out)).record["stage"] == "recover"
    resumed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert resumed.returncode == 0, resumed.stderr
    assert "sketch (pass 1)" not in resumed.stderr
    conforms(out, source)
    for name in ("W", "H"):
        assert (zarr.open_group(out)[name][:] == zarr.open_group(whole)[name][:]).all()


@pytest.mark.slow
def test_demo(tmp_path):
    words = ["demo", "--size", "600MB", "--memory", "512MiB", "--directory", tmp_path / "demo"]
    done = subprocess.run(
        [sys.executable, "-m", "dcf", *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok    ") == 4
    assert Path(tmp_path / "demo" / "factors.zarr").exists()


def test_inspect_of_a_run_that_is_not_finished(source, out):
    zarr.open_array(source, mode="r+")[700, 33] = np.nan
    dcf("nmf", source, out, "--rank", 4, expect=3)
    assert f"dcf nmf {source} {out} --rank 4" in dcf("inspect", out)[0]


def test_stages_from_another_directory_and_within_their_budget(source, out, tmp_path, monkeypatch, conforms):
    monkeypatch.chdir(tmp_path)
    dcf("sketch", source.name, out.name, "--rank", 4)
    monkeypatch.chdir("/")
    dcf("factorize", out)
    dcf("recover", out)
    assert "--memory allows 10MiB" in dcf("refine", out, "--memory", "10MiB", expect=4)[1]
    dcf("refine", out)
    conforms(out, source)
