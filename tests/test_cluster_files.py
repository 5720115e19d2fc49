"""Files that describe a cluster: what they may hold, and the job scripts that they lead to."""

import shutil
import subprocess
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml
from commandline import dcf
from distributed.security import Security

from dcf.cluster.batch import driver_script
from dcf.cluster.configuration import KEYS, QUEUES, ClusterConfig
from dcf.cluster.queues import job_options, jobqueue, listed, number
from dcf.cluster.security import FILES, make_certificates, refuse_plain, security_of
from dcf.errors import RunError, UsageError
from dcf.settings import parse_memory

ROOT = Path(__file__).parents[1]
SHIPPED = sorted((ROOT / "cluster_configs").glob("*.yaml"))
SCRIPTS = Path(__file__).parent / "job_scripts"
SLURM = {"kind": "slurm", "workers": 2}


def full(kind):
    """A configuration of this kind of queue that gives every key."""
    return ClusterConfig(
        kind=kind,
        file="cluster.yaml",
        workers=6,
        memory="2GiB",
        scratch="$TMPDIR",
        tls="/home/me/certs",
        workers_per_job=3,
        walltime="1-02:30:00",
        driver_walltime="2-00:00:00" if kind != "htcondor" else None,
        queue="long",
        account="project1",
        interface="ib0",
        logs="/home/me/logs",
        python="/opt/python/bin/python",
        prologue=("module load python/3.12",),
        directives=("+WantFlocking = True",) if kind == "htcondor" else ("--example=1",),
        disk="1GiB" if kind == "htcondor" else None,
    )


@pytest.mark.parametrize("file", SHIPPED, ids=lambda f: f.stem)
def test_the_shipped_files_are_of_the_schema(file):
    config = ClusterConfig.read(file)
    assert config.kind == file.stem
    text = file.read_text()
    for key in KEYS[config.kind].split():
        line = next(line for line in text.splitlines() if line.lstrip("# ").startswith(f"{key}:"))
        assert "#" in line.lstrip("# "), f"{key} is not explained"


def test_every_key_is_a_field_and_every_field_a_key():
    known = {"kind", "memory", *(key for keys in KEYS.values() for key in keys.split())}
    assert known == {field.name for field in fields(ClusterConfig)} - {"file"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kind: slurm\nworkers: 2\nwallclock: 5\n", "'wallclock' is no key of kind slurm; known are kind,"),
        ("kind: local\nqueue: debug\n", "'queue' is no key of kind local"),
        ("kind: cray\n", "kind is 'cray'; it must be one of local, dask, slurm"),
        ("workers: 2\n", "kind is missing"),
        ("- kind\n", "kind is missing"),
        ("", "kind is missing"),
        ("kind: [slurm]\n", "kind is missing"),
        ("kind: slurm\n", "workers is None; it must be given"),
        ("kind: slurm\nworkers: 0\n", "workers is 0; it must be a whole number"),
        ("kind: slurm\nworkers: true\n", "workers is True; it must be a whole number"),
        ("kind: slurm\nworkers: 2\nworkers_per_job: 1.5\n", "workers_per_job is 1.5"),
        ("kind: slurm\nworkers: 2\nmemory: lots\n", "memory is 'lots'; give a size such as"),
        ("kind: slurm\nworkers: 2\nmemory: [1]\n", "memory is [1]; it must be a size such as 2GiB"),
        ("kind: slurm\nworkers: 2\nwalltime: 3600\n", "walltime is 3600; it must be of the form HH:MM:SS"),
        ("kind: slurm\nworkers: 2\nwalltime: 1 hour\n", "walltime is '1 hour'; it must be of the form"),
        ("kind: slurm\nworkers: 2\nqueue: 'a; rm -rf ~'\n", "queue is 'a; rm -rf ~'; it must be a name of"),
        ("kind: slurm\nworkers: 2\naccount: \"a\\n#SBATCH -w x\"\n", "account is 'a\\n#SB"),
        ("kind: slurm\nworkers: 2\nlogs: '$(touch x)'\n", "logs is "),
        ("kind: slurm\nworkers: 2\npython: 'python; touch x'\n", "python is 'python; touch x'; it must"),
        ("kind: slurm\nworkers: 2\nscratch: '`touch x`'\n", "scratch is '`touch x`'; it must be a path"),
        ("kind: slurm\nworkers: 2\ndirectives: --x\n", "directives is '--x'; it must be a list of lines"),
        ("kind: slurm\nworkers: 2\ndirectives: [\"a\\nb\"]\n", "directives is ('a\\nb',); it must be a list"),
        ("kind: slurm\nworkers: 2\nprologue: [1]\n", "prologue is (1,); it must be a list of lines"),
        ("kind: slurm\nworkers: 2\ninsecure_plain_tcp: 'yes'\n", "insecure_plain_tcp is 'yes'; it must"),
        ("kind: dask\n", "scheduler is ''; it must be the address"),
        ("kind: dask\nscheduler: 8786\n", "scheduler is 8786; it must be the address"),
        ("kind: htcondor\nworkers: 2\n", "disk is None; it must be given"),
        ("kind: !!python/object/apply:os.system ['touch owned']\n", "not YAML that can be loaded safely"),
        ("kind: slurm\nworkers: {\n", "not YAML that can be loaded safely"),
        ("a: &a [x,x]\nb: &b [*a,*a]\nkind: slurm\n? *b\n: 1\n", "not YAML that can be loaded safely"),
        ("kind: slurm\nworkers: " + "[" * 2000 + "\n", "not YAML that can be loaded safely"),
        ("kind: \x00\n", "not YAML that can be loaded safely"),
    ],
)  # fmt: skip
def test_a_bad_file_is_one_sentence(tmp_path, monkeypatch, text, says):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "cluster.yaml"
    file.write_text(text)
    _, error = dcf("nmf", "s.zarr", "o.zarr", "--rank", 3, "--cluster", "cluster.yaml", expect=2)
    assert error.startswith("dcf: ")
    assert says in error
    assert len(error.splitlines()) == 1
    assert {place.name for place in tmp_path.iterdir()} == {"cluster.yaml"}


def test_a_bomb_of_aliases_is_refused_in_few_words(tmp_path):
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    file = tmp_path / "cluster.yaml"
    file.write_text("\n".join([*levels, "kind: slurm", "workers: *a11"]))
    with pytest.raises(UsageError, match="'a0' is no key of kind slurm"):
        ClusterConfig.read(file)
    with pytest.raises(UsageError) as refused:
        ClusterConfig(kind="slurm", workers=yaml.safe_load(file.read_text())["workers"])
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--cluster no.yaml", "--cluster no.yaml cannot be read: No such file"),
        ("--cluster .", "--cluster . cannot be read: Is a directory"),
        ("--cluster c.yaml --scheduler tls://h:1", "give one of them"),
        ("--tls certs", "belong to --scheduler or --cluster"),
        ("--scheduler host", "--scheduler is 'host'; give an address such as tls://host:8786"),
        ("--scheduler http://host:1", "give an address such as tls://host:8786"),
        ("--scheduler tcp://192.0.2.1:8786", "tcp://192.0.2.1:8786 is not encrypted"),
        ("--scheduler tcp://[2001:db8::1]:8786", "is not encrypted"),
        ("--scheduler tls://127.0.0.1:1 --tls nowhere", "--tls nowhere has no ca.pem that can be read"),
        ("--scheduler tls://127.0.0.1:1 --workers 2", "--workers is for workers that are started"),
    ],
)  # fmt: skip
def test_bad_words_about_a_cluster(tmp_path, monkeypatch, source, words, says):
    monkeypatch.chdir(tmp_path)
    _, error = dcf("nmf", source, "o.zarr", "--rank", 3, *words.split(), expect=2)
    assert says in error
    assert not (tmp_path / "o.zarr").exists()


def test_what_cannot_be_submitted(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    words = ("submit", "nmf", source, "o.zarr", "--rank", 3)
    assert "give --cluster FILE or --scheduler" in dcf(*words, expect=2)[1]
    for kind in ("htcondor", "local"):
        file = ROOT / "cluster_configs" / f"{kind}.yaml"
        assert f"a driver cannot be submitted to kind {kind}" in dcf(*words, "--cluster", file, expect=2)[1]
    if shutil.which("qsub") is None:
        pbs = ROOT / "cluster_configs" / "pbs.yaml"
        assert "qsub cannot be run here" in dcf(*words, "--cluster", pbs, expect=1)[1]
        assert "qsub of pbs is not on this machine" in dcf(*words[1:], "--cluster", pbs, expect=1)[1]
    secret = ("submit", "nmf", "https://me:secret@127.0.0.1:1/s.zarr", "o.zarr", "--rank", 3)
    error = dcf(*secret, "--cluster", ROOT / "cluster_configs" / "slurm.yaml", expect=2)[1]
    assert "give it by the environment" in error
    assert "secret@" not in error


@pytest.mark.parametrize("kind", QUEUES)
def test_job_scripts_are_as_expected(kind, monkeypatch):
    """Of a worker job and, where there is one, of a driver's: as they were when last looked at."""
    monkeypatch.chdir("/")
    config = full(kind)
    made = jobqueue(config).job_cls
    options = job_options(config, parse_memory("2GiB"))
    monkeypatch.setattr("os.path.exists", lambda path: True)  # the logs folder
    text = made("tls://scheduler:8786", name="dcf-0", security=security(), **options).job_script()
    if kind != "htcondor":
        words = ["nmf", "my data.zarr", "o'brien.zarr", "--rank", "3"]
        log, script = Path("/home/me/logs/o.log"), Path("/home/me/logs/o.sh")
        text += "\n-----\n" + driver_script(config, parse_memory("2GiB"), words, log, script)
    stored = SCRIPTS / f"{kind}.txt"
    assert text == stored.read_text()


def security():
    paths = {"tls_ca_file": "ca.pem", "tls_worker_cert": "cert.pem", "tls_worker_key": "key.pem"}
    return Security(require_encryption=True, **{k: f"/home/me/certs/{v}" for k, v in paths.items()})


def test_words_of_a_driver_reach_its_script_quoted(tmp_path, monkeypatch):
    """The script is run by a shell: no word of the command line means more than itself."""
    monkeypatch.chdir(tmp_path)
    odd = ["a b", "$(touch owned)", "`touch owned`", "it's", '"', "*", "\\", "; touch owned", "ü"]
    echo = tmp_path / "echo.sh"
    echo.write_text('#!/bin/sh\nshift 2\nfor word in "$@"; do printf "%s\\n" "$word"; done\n')
    echo.chmod(0o755)
    config = replace(full("slurm"), python=str(echo), prologue=())
    folder = tmp_path / "lo gs"
    folder.mkdir()
    text = driver_script(config, 2**30, odd, folder / "o.log", folder / "o.sh")
    (folder / "o.sh").write_text(text)
    subprocess.run(["bash", folder / "o.sh"], check=True)
    assert (folder / "o.log").read_text().splitlines() == odd
    assert not (tmp_path / "owned").exists()


def test_a_queue_that_is_not_here_is_told():
    if shutil.which("bjobs") is None:
        with pytest.raises(RunError, match="bjobs does not answer"):
            listed("lsf")


@pytest.mark.parametrize(
    ("job", "plain"), [("12", "12"), ("12.host", "12"), ("12.0", "12"), ("12[3].host", "12")]
)
def test_job_numbers(job, plain):
    assert number(job) == plain


def test_certificates_are_for_the_owner_alone(tmp_path):
    place = make_certificates(tmp_path / "certs")
    assert sorted(p.name for p in place.iterdir()) == sorted(FILES)
    assert all((place / name).stat().st_mode & 0o077 == 0 for name in FILES)
    assert security_of(place).require_encryption
    before = (place / "key.pem").read_bytes()
    assert "holds ca.pem already" in dcf("cluster", "certs", place, expect=2)[1]
    assert (place / "key.pem").read_bytes() == before
    (tmp_path / "file").write_text("")
    assert "cannot be written" in dcf("cluster", "certs", tmp_path / "file" / "x", expect=1)[1]


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:1", "tcp://127.9.9.9:1", "tcp://[::1]:1", "tcp://localhost:1"]
)
def test_plain_tcp_on_loopback_needs_no_flag(address):
    refuse_plain(address, allowed=False)


def test_plain_tcp_elsewhere_needs_the_flag():
    with pytest.raises(UsageError, match="--insecure-plain-tcp"):
        refuse_plain("tcp://10.0.0.1:1", allowed=False)
    refuse_plain("tcp://10.0.0.1:1", allowed=True)
    refuse_plain("tls://10.0.0.1:1", allowed=False)
