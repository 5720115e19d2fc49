"""Whole runs from and to a real S3 server on loopback, which fails now and then."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid

import botocore.session
import numpy as np
import pytest
import zarr
from commandline import dcf as command
from conftest import plant, store
from s3_server import SECRET, Proxy, environment
from test_runs import bits

import dcf
from dcf.errors import RunError, SourceError
from dcf.storage import remote
from dcf.storage.remote import RemoteStore
from dcf.storage.run import RunGroup

CHUNKS = (64, 32)
KEYS = [(i, j) for i in range(19) for j in range(2)]
BUCKET = "bucket"


@pytest.fixture(scope="module")
def server(s3):
    """The URL of a server with a bucket, which the environment names."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in environment(s3).items():
            patch.setenv(name, value)
        client().create_bucket(Bucket=BUCKET)
        yield s3


def client():
    return botocore.session.get_session().create_client("s3")


@pytest.fixture
def place(server):
    """A prefix of its own: place.url("name") is a URL in it."""
    return Place(uuid.uuid4().hex[:8])


class Place:
    def __init__(self, prefix):
        self.prefix = prefix

    def url(self, name):
        return f"s3://{BUCKET}/{self.prefix}/{name}"

    def keys(self, name):
        pages = (
            client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{self.prefix}/{name}/")
        )
        return [found["Key"] for page in pages for found in page.get("Contents", ())]

    def put(self, name, body):
        client().put_object(Bucket=BUCKET, Key=f"{self.prefix}/{name}", Body=body)

    def store(self, name, matrix, **options):
        """Put a matrix there as an array; return its URL."""
        store(self.url(name), matrix, CHUNKS, **options)
        return self.url(name)

    def fetch(self, name, folder):
        """Copy what lies there to a folder; return it."""
        for key in self.keys(name):
            target = folder / key
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(client().get_object(Bucket=BUCKET, Key=key)["Body"].read())
        return folder / self.prefix / name


@contextlib.contextmanager
def through(server, monkeypatch, *words, **options):
    """Let everybody reach the server by a proxy; yield it."""
    with Proxy(server, *words, **options).running() as proxy, monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


@pytest.mark.parametrize("processes", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_answer_spoilt_is_asked_for_once_more_and_nothing_else(
    tmp_path, server, place, monkeypatch, small_blocks, conforms, processes
):
    m = plant()[0]
    store(tmp_path / "s.zarr", m, CHUNKS)
    expected = bits(dcf.nmf(tmp_path / "s.zarr", rank=4, workers=2))
    source, out = place.store("s.zarr", m), place.url("o.zarr")
    if processes:
        monkeypatch.setattr("dcf.api.SMALL_SOURCE_BYTES", 0)
    with through(server, monkeypatch, ("cut", "reset", "slow", 500, 503), rate=0.04) as proxy:
        result = dcf.nmf(source, rank=4, out=out, workers=2)
    record = result.attributes
    assert (record["passes"], record["bytes_read"], record["missing_chunks"]) == (2, 2 * m.nbytes, 0)
    assert sum(proxy.spoilt.values()) > 0
    for i, j in KEYS:
        get = "GET", f"/{BUCKET}/{place.prefix}/s.zarr/c/{i}/{j}"
        assert proxy.asked[get] == record["passes"] + proxy.spoilt[get], get
        assert proxy.asked["HEAD", get[1]] == 0
    for put, times in proxy.asked.items():
        if put[0] == "PUT" and "/c/" in put[1]:  # a block of a pass, a part of a factor
            assert times == 1 + proxy.spoilt[put], put
    here = place.fetch("o.zarr", tmp_path)
    conforms(here, tmp_path / "s.zarr")
    assert b"".join(zarr.open_array(here / name, mode="r")[:].tobytes() for name in "WH") == expected


def test_a_killed_driver_is_resumed_at_the_last_finished_block(
    tmp_path, server, place, monkeypatch, small_blocks
):
    m = plant()[0]
    store(tmp_path / "s.zarr", m, CHUNKS)
    expected = bits(dcf.nmf(tmp_path / "s.zarr", rank=4, workers=2))
    source, out = place.store("s.zarr", m), place.url("o.zarr")
    script = (
        "import dcf, dcf.plan as p; p.BLOCK_BYTES, p.READ_PER_JOURNAL_BYTE, p.MOST_BLOCKS = 1, 0, 16;"
        f"dcf.nmf({source!r}, rank=4, out={out!r}, workers=2)"
    )
    done = f"/{BUCKET}/{place.prefix}/o.zarr/stages/sketch/done/c/"
    with through(server, monkeypatch, ("slow",), rate=1.0, only="s.zarr/c/") as proxy:
        driver = subprocess.Popen([sys.executable, "-c", script])
        while sum(put == "PUT" and path.startswith(done) for put, path in [*proxy.asked]) < 4:
            assert driver.poll() is None
            time.sleep(0.02)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    marked = {int(key.rsplit("/", 1)[1]) for key in place.keys("o.zarr/stages/sketch/done/c")}
    text = command("inspect", out)[0]
    assert f"{len(marked)} of " in text
    assert "killed" in text
    rows = RunGroup.open(out, mode="r").record["plan"]["sketch_block_rows"]
    with through(server, monkeypatch) as proxy:
        result = dcf.nmf(source, rank=4, out=out, workers=2)
        assert bits(result) == expected
    assert result.attributes["resumed"] == 1
    for i, j in KEYS:
        again = i * CHUNKS[0] // rows not in marked
        assert proxy.asked["GET", f"/{BUCKET}/{place.prefix}/s.zarr/c/{i}/{j}"] == 1 + again


def test_an_out_is_staged_inspected_and_overwritten(tmp_path, place):
    source, out = place.store("s.zarr", plant()[0]), place.url("o.zarr")
    command("sketch", source, out, "--rank", 4)
    assert "next: dcf factorize s3://" in command("inspect", out)[0]
    for verb in ("factorize", "recover", "refine"):
        command(verb, out)
    w = zarr.open_array(place.fetch("o.zarr", tmp_path) / "W", mode="r")[:]
    assert np.array_equal(w, dcf.nmf(source, rank=4).W)
    assert "its rank is 4, now asked 3" in command("nmf", source, out, "--rank", 3, expect=2)[1]
    assert not place.keys("o.zarr/stages")
    place.put("o.zarr/stages/sketch/done/c/0", b"of a deletion that was killed")
    place.put("o.zarr/factor_0/c/0/0", b"the same")
    command("nmf", source, out, "--rank", 3, "--overwrite")
    assert not place.keys("o.zarr/stages") + place.keys("o.zarr/factor_0")
    assert "(3 x 60)" in command("inspect", out)[0]


def test_what_is_no_run_is_left_alone(place):
    source = place.store("s.zarr", plant()[0])
    place.put("mine/notes.txt", b"mine")
    zarr.create_group(place.url("group.zarr"))
    for name, says in [
        ("mine", "exists and is no run of dcf"),
        ("group.zarr", "exists and is no run of dcf"),
        ("s.zarr", "lie inside one another"),
        ("s.zarr/o.zarr", "lie inside one another"),
        (".", "lie inside one another"),
    ]:
        out = place.url(name).removesuffix("/.")
        assert says in command("sketch", source, out, "--rank", 4, "--overwrite", expect=2)[1], name
    assert place.keys("mine") == [f"{place.prefix}/mine/notes.txt"]
    assert "holds no run" in command("inspect", place.url("nothing"), expect=2)[1]


SOURCE, OUT = "nmf {source} {tmp}/o.zarr --rank 4", "nmf {tmp}/s.zarr {out} --rank 4"
WRONG = {"AWS_SECRET_ACCESS_KEY": "something else"}
NOBODY = {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}
NOWHERE = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
ELSEWHERE = {"AWS_PROFILE": "unheard-of"}


@pytest.mark.parametrize(
    ("words", "changes", "code", "says"),
    [
        (SOURCE, WRONG, 2, "cannot be opened: PermissionError"),
        (OUT, WRONG, 1, "cannot be read, at driver/beat/"),
        ("inspect {out}", WRONG, 1, "cannot be read, at zarr.json, (PermissionError"),
        (SOURCE, NOBODY, 2, "cannot be opened: NoCredentialsError"),
        (OUT, NOBODY, 1, "NoCredentialsError"),
        (SOURCE, ELSEWHERE, 2, "cannot be opened: ProfileNotFound"),
        (SOURCE, NOWHERE, 2, "cannot be opened: EndpointConnectionError"),
        (OUT, NOWHERE, 1, "after 2 tries (EndpointConnectionError"),
        ("nmf s3://no-such-bucket/s.zarr {tmp}/o.zarr --rank 4", {}, 2, "is not a Zarr array"),
        (
            f"nmf s3://me:{SECRET}@bucket/s.zarr {{tmp}}/o.zarr --rank 4",
            {},
            2,
            "s3://***@bucket/s.zarr holds a",
        ),
        ("nmf {tmp}/s.zarr http://127.0.0.1:1/o.zarr --rank 4", {}, 2, "cannot be written by HTTP"),
    ],
)
def test_what_does_not_pass_ends_soon_in_a_sentence(tmp_path, place, monkeypatch, words, changes, code, says):
    monkeypatch.setattr(remote, "_SECONDS_BETWEEN_TRIES", (0.0,))
    monkeypatch.setenv("HOME", str(tmp_path))
    matrix = plant(200)[0]
    store(tmp_path / "s.zarr", matrix)
    words = words.format(source=place.store("s.zarr", matrix), out=place.url("o.zarr"), tmp=tmp_path)
    for name, value in changes.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    error = command(*words.split(), expect=code)[1]
    assert says in error
    assert SECRET not in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("verb", ["inspect s3://bucket/o.zarr", "plan s3://bucket/s.zarr --rank 4"])
def test_without_the_extra_its_name_is_told(verb):
    script = f"import sys; sys.modules['s3fs'] = None; sys.argv = {['dcf', *verb.split()]}"
    script += "; from dcf.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "needs the extra: pip install '.[cloud]' in dcf's source" in done.stderr


def test_an_out_that_goes_on_failing_is_told_and_resumed(server, place, monkeypatch):
    source, out = place.store("s.zarr", plant()[0]), place.url("o.zarr")
    monkeypatch.setattr(remote, "_SECONDS_BETWEEN_TRIES", (0.0,) * 5)
    with (
        through(server, monkeypatch, (503,), rate=1.0, only="o.zarr/stages/refine_1/gram/c") as proxy,
        pytest.raises(RunError, match=r"cannot be written, at .*, after 6 tries .* the same command resumes"),
    ):
        dcf.nmf(source, rank=4, out=out)
    assert set(proxy.spoilt.values()) == {6}
    assert dcf.nmf(source, rank=4, out=out).attributes["passes"] == 2


def test_a_server_that_falls_silent_is_not_waited_for(server, place, monkeypatch):
    source = place.store("s.zarr", plant()[0])
    monkeypatch.setattr(remote, "_SECONDS_BETWEEN_TRIES", (0.0,))
    monkeypatch.setattr(remote, "_SILENT_SECONDS", 0.5)
    with (
        through(server, monkeypatch, ("silent",), rate=1.0, only="s.zarr/c/3/1"),
        pytest.raises(
            SourceError, match=r"chunk c/3/1 .* could not be read after 2 tries \(ReadTimeoutError"
        ),
    ):
        dcf.nmf(source, rank=4)


def test_a_chunk_that_may_not_be_read_is_asked_for_once(server, place, monkeypatch):
    source = place.store("s.zarr", plant()[0])
    with (
        through(server, monkeypatch, (403,), rate=1.0, only="s.zarr/c/3/1") as proxy,
        pytest.raises(RunError, match=r"chunk c/3/1 .* could not be read \(PermissionError: .* resumes"),
    ):
        dcf.nmf(source, rank=4)
    assert list(proxy.spoilt.values()) == [1]


def test_a_deletion_that_is_only_said_is_no_deletion(server, place, monkeypatch):
    monkeypatch.setattr(remote, "_SECONDS_BETWEEN_TRIES", (0.0,))
    place.put("o.zarr/stages/a", b"1")
    place.put("o.zarr/stages2", b"1")
    kept = RemoteStore(place.url("o.zarr"), "OUT")
    with (
        through(server, monkeypatch, (200,), rate=1.0, only=f"POST /{BUCKET}"),
        pytest.raises(RunError, match="1 objects below were not deleted"),
    ):
        _emptied(RemoteStore(place.url("o.zarr"), "OUT"), "stages")
    _emptied(kept, "stages")
    assert place.keys("o.zarr") == [f"{place.prefix}/o.zarr/stages2"]


def _emptied(store, prefix):
    remote.sync(store.delete_dir(prefix))


def test_what_another_process_writes_is_seen_at_once(place):
    seen = RemoteStore(place.url("o.zarr"), "OUT")
    assert list(seen.names()) == []
    place.put("o.zarr/a", b"1")
    assert list(seen.names()) == ["a"]
    place.put("o.zarr/b/c", b"1")
    assert list(seen.names()) == ["a", "b"]
    client().delete_object(Bucket=BUCKET, Key=f"{place.prefix}/o.zarr/a")
    assert list(seen.names()) == ["b"]


def test_an_object_larger_than_makes_sense_is_not_read(place):
    source = place.store("s.zarr", plant()[0], compressors=None)
    place.put("s.zarr/c/3/1", bytes(3 << 20))
    with pytest.raises(SourceError, match=r"chunk c/3/1 of SOURCE, from entry \(192, 32\) on, takes 3145728"):
        dcf.nmf(source, rank=4)
