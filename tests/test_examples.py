"""The examples do what they say."""

import os
import subprocess
import sys
from pathlib import Path

import botocore.session
import pytest
from s3_server import environment

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(script, *words):
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / script), *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def shell(script, *words):
    """Run a script whose `dcf`, `dask` and `python` are those of the tests."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", EXAMPLES / script, *map(str, words)],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_s3(s3, monkeypatch):
    for name, value in environment(s3).items():
        monkeypatch.setenv(name, value)
    botocore.session.get_session().create_client("s3").create_bucket(Bucket="example")
    printed = run("s3/s3.py", "s3://example/prefix")
    assert "s3://example/prefix/counts.zarr: 2 passes, relative error 0.0" in printed
    assert float(printed.rsplit(":", 1)[1]) >= 0.99


def test_gene_expression():
    printed = run("gene_expression/gene_expression.py")
    assert float(printed.rsplit(":", 1)[1]) >= 0.85
    assert "8 T-cell" in printed


@pytest.mark.slow
def test_larger_than_memory():
    printed = run("larger_than_memory/larger_than_memory.py", "0.6")
    assert "0.6 GB, budget 448MiB" in printed
    peaks = printed.split("peak memory of the workers:")[1].splitlines()[0]
    assert all(int(peak.split()[0]) <= 448 for peak in peaks.split(","))
    assert float(printed.split("the planted one:")[1].split()[0]) >= 0.99


@pytest.mark.slow
def test_which_method(tmp_path):
    printed = run("which_method/which_method.py", str(tmp_path))
    for name in ("methods", "sparsity", "certificate", "stability"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
    assert "10 of them doubtful; 1 of the other 10 doubtful" in printed
    worst = printed.split("largest ratio, passes 2:")[1].split("auto ")[1].split()[0]
    assert float(worst) <= 1.01
    held = int(printed.split("exact error in ")[1].split()[0])
    assert held >= 34


@pytest.mark.slow
def test_dask_cluster(tmp_path):
    printed = shell("dask_cluster/run.sh", tmp_path / "try")
    assert printed.count("reads SOURCE, writes OUT") == 2
    assert "submitted    dask job dcf-" in printed
    assert "trusted" in printed
