"""The image and compose.yaml: what they say always, what they do where podman can be had."""

import functools
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import dask.utils
import numpy as np
import pytest
import yaml
import zarr
from conftest import plant, store
from packaging.requirements import Requirement

from dcf.cluster.environment import CONFIG

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
ENVIRONMENT = "distributed.nanny.pre-spawn-environ"
# The process that watches over a worker, and Python asking for its health.
BESIDE_A_WORKER = 384 * 2**20
UID = 1000
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture
def tmp_path():
    """A folder on a disk: containers have a /dev/shm of their own, where other tests may work."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        yield Path(folder)


def check(verb, *words, timeout=600):
    """Run docker/check.sh; return what it printed."""
    done = subprocess.run(
        [DOCKER / "check.sh", verb, *map(str, words)],
        env={**os.environ, "PATH": PATH},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def needs(*programs, root=False):
    """Skip where a program is missing; on a machine that is to have all of them, fail."""
    missing = [name for name in programs if shutil.which(name, path=PATH) is None]
    if root and os.geteuid() != 0:
        missing.append("root")
    if missing:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"needs {', '.join(missing)}")


def canonical(name):
    return name.lower().replace("_", "-").replace(".", "-")


def services():
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]


def default(text):
    """What compose.yaml says where the shell says nothing."""
    return re.sub(r"\$\{\w+:-(.*?)\}", r"\1", text)


def after(words, option):
    return default(words[words.index(option) + 1])


def test_linters_find_nothing():
    needs("hadolint", "docker-compose")
    check("lint")


def test_workers_of_the_image_are_told_what_those_of_dcf_are():
    said = dict(re.findall(r"^ +(\w+)=(\S+)", (DOCKER / "Dockerfile").read_text(), re.MULTILINE))
    assert CONFIG[ENVIRONMENT].items() <= said.items()

    def flat(tree, prefix=""):
        for key, value in tree.items():
            yield from flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]

    told = dict(flat(yaml.safe_load((DOCKER / "dask.yaml").read_text())))
    assert told == {key: value for key, value in CONFIG.items() if key != ENVIRONMENT}


def test_the_version_is_that_of_the_package():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for name in ("Dockerfile", "compose.yaml", "README.md"):
        assert set(re.findall(r"dcf:(\d[\w.]*)", (DOCKER / name).read_text())) == {version}, name


def test_one_budget_holds_for_dcf_dask_and_the_container():
    worker, job = services()["worker"], services()["job"]
    budget = dask.utils.parse_bytes(after(worker["command"], "--memory-limit"))
    assert after(job["command"], "--memory") == after(worker["command"], "--memory-limit")
    for service in (worker, job):
        assert dask.utils.parse_bytes(default(service["mem_limit"])) >= budget + BESIDE_A_WORKER
        assert service["memswap_limit"] == service["mem_limit"]


@pytest.mark.parametrize("name", services())
def test_a_service_may_do_no_more_than_it_has_to(name):
    service = services()[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"ports", "privileged", "user", "cap_add"} & set(service)
    assert "tcp://" not in json.dumps(service)
    assert name == "certs" or "certs:/certs:ro" in service["volumes"]


@functools.cache
def built():
    """Build the image, once."""
    needs("podman", "runc", "mmdebstrap", "ip", "unshare", "docker-compose", root=True)
    check("build")


@pytest.fixture
def data(tmp_path):
    """A folder of the image's user with a planted source; the image is built."""
    built()
    store(tmp_path / "source.zarr", plant()[0])
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, UID, UID)
    return tmp_path


@pytest.mark.slow
def test_all_that_is_in_the_image_is_pinned(data):
    ask = "import importlib.metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions()))"
    words = (word.split("==") for word in check("run", data, "python", "-c", ask).split())
    there = {canonical(name): version for name, version in words}
    lines = (ROOT / "tests" / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    expected = {
        canonical(pin.name): str(pin.specifier).removeprefix("==")
        for pin in pins
        if pin.marker is None or pin.marker.evaluate({"python_version": "3.13"})
    }
    assert there.pop("dcf") == importlib.metadata.version("dcf")
    assert {"zarr", "fsspec"} <= set(there)
    assert there == {name: expected.get(name) for name in there}


@pytest.mark.slow
def test_a_container_and_a_cluster_of_them_end_in_the_same_bits(data, conforms):
    words = ["nmf", "source.zarr", "one.zarr", "--rank", 4, "--workers", 2]
    check("run", data, *words)
    check("compose", data)
    for name in ("one.zarr", "factors.zarr"):
        conforms(data / name, data / "source.zarr")
        assert (data / name).stat().st_uid == UID
    one, cluster = (zarr.open_group(data / name, mode="r") for name in ("one.zarr", "factors.zarr"))
    for factor in "WH":
        np.testing.assert_array_equal(one[factor][:], cluster[factor][:])
