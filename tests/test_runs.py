"""Whole runs: methods, bits, passes, resume, clients."""

import gc
import shutil

import dask
import numpy as np
import pytest
import zarr
from conftest import plant, store
from counting import open_counted, reads
from distributed import Client, LocalCluster

import dcf
import dcf.plan
from dcf.metrics import match

LOCAL = {"dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0"}


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"refine": 2},
        {"refine": 3, "sketch_size": 100},
        {"method": "full"},
        {"method": "full", "refine": 1},
        {"method": "factorize-recover", "sketch_size": 600, "max_iter": 200},
        {"method": "factorize-recover", "sketch_size": 600, "max_iter": 200, "refine": 0},
        {"axis": "1"},
        {"axis": 0},
        {"method": "rows", "sketch_size": 200},
        {"method": "range", "sketch_size": 200},
        {"method": "range", "refine": 0},
        {"refine": 0, "max_iter": 200},
        {"sketch_size": 8, "resketch": True},
    ],
    ids=str,
)
def test_every_method_keeps_the_contract(tmp_path, nmf, options, transposed, small_blocks):
    m, _, h = plant()
    store(tmp_path / "s.zarr", np.ascontiguousarray(m.T) if transposed else m)
    result = nmf(tmp_path / "s.zarr", **options)
    record = result.attributes
    assert record["passes"] == 1 + record["settings"]["refine"] + bool(record.get("resketched"))
    assert record["bytes_read"] == record["passes"] * m.nbytes
    assert record["method"] in ("rows", "range", "factorize-recover", "full")
    if options.get("refine") != 0 and options.get("method") != "factorize-recover":
        assert result.relative_error.kind == "exact"
        assert result.relative_error.value < 0.0105
        found = np.asarray(result.W[:]) if transposed else np.asarray(result.H[:]).T
        assert match(found, h.T)[1].min() > 0.98


def test_the_error_is_near_that_of_scikit_learn(source, nmf):
    from sklearn.decomposition import NMF

    m = zarr.open_array(source)[:]
    theirs = NMF(4, init="nndsvda", tol=1e-6, max_iter=1000).fit(m).reconstruction_err_ / np.linalg.norm(m)
    assert nmf(source).relative_error.value <= 1.005 * theirs
    assert nmf(source, refine=2).relative_error.value <= 1.005 * theirs
    assert nmf(source, method="full").relative_error.value <= 1.005 * theirs


OPTIONS = [
    {"sketch_size": 300},
    {"method": "range", "sketch_size": 100},
    {"method": "factorize-recover", "sketch_size": 200, "max_iter": 50},
    {"refine": 0, "sketch_size": 200, "max_iter": 50},
    {"sketch_size": 8, "resketch": True},
]


def passes_of(options):
    return 1 + options.get("refine", 1) + ("resketch" in options)


def bits(result):
    return np.asarray(result.W[:]).tobytes() + np.asarray(result.H[:]).tobytes()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_same_bits_whoever_computes(source, nmf, small_blocks, remembered, options):
    expected = remembered(str(options), lambda: bits(nmf(source, workers=1, **options)))
    assert bits(nmf(source, workers=2, **options)) == expected
    assert bits(nmf(source, workers=4, memory="4GiB", **options)) == expected
    with dask.config.set(scheduler="synchronous"):
        assert bits(nmf(source, workers=3, **options)) == expected
    for shape in ({"n_workers": 1, "threads_per_worker": 3}, {"n_workers": 4, "threads_per_worker": 1}):
        with LocalCluster(processes=False, **shape, **LOCAL) as cluster, Client(cluster):
            assert bits(nmf(source, **options)) == expected


@pytest.mark.slow
def test_the_same_bits_in_processes(source, nmf, small_blocks, monkeypatch):
    expected = bits(nmf(source, workers=1, sketch_size=300))
    monkeypatch.setattr("dcf.api.SMALL_SOURCE_BYTES", 0)
    for workers in (1, 2, 4):
        result = nmf(source, workers=workers, sketch_size=300)
        assert bits(result) == expected
        assert len(result.attributes["peak_memory"]["workers"]) == workers


def test_a_present_client_is_used_and_left_alone(source, nmf):
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, processes=False, **LOCAL) as cluster,
        Client(cluster) as client,
    ):
        ran = []
        client.subscribe_topic("all", ran.append)
        result = nmf(source)
        assert result.attributes["plan"]["workers"] == 2
        assert list(result.attributes["peak_memory"]["workers"]) == list(client.scheduler_info()["workers"])
        assert client.submit(lambda: 7).result() == 7


@pytest.mark.parametrize("refine", [1, 3])
def test_one_pass_means_one_pass(tmp_path, nmf, refine, small_blocks):
    m = plant()[0]
    store(tmp_path / "s.zarr", m)
    array = open_counted(tmp_path / "s.zarr", tmp_path / "log")
    result = nmf(array, refine=refine, workers=2)
    seen = reads(tmp_path / "log")
    assert result.attributes["passes"] == 1 + refine
    assert len(set(seen)) == 5 * 2
    assert all(seen.count(key) == 1 + refine for key in set(seen))


def test_shards_are_read_once_a_pass(tmp_path, nmf, small_blocks):
    store(tmp_path / "s.zarr", plant()[0], chunks=(64, 20), shards=(256, 60))
    result = nmf(tmp_path / "s.zarr", workers=2)
    assert result.attributes["bytes_read"] == 2 * plant()[0].nbytes
    array = open_counted(tmp_path / "s.zarr", tmp_path / "log")
    nmf(array, workers=2)
    assert set(reads(tmp_path / "log")) == {f"c/{i}/0" for i in range(5)}


class Stop(Exception):
    """An interruption at a chosen moment."""


# Five blocks a pass: the first, the last and some between of every pass that a run makes.
STOPS = [
    (options, after) for options in OPTIONS for after in (0, 4, 5, 8, 12) if after < 5 * passes_of(options)
]


@pytest.mark.parametrize(("options", "after"), STOPS, ids=str)
def test_resumed_is_uninterrupted_and_reads_no_finished_block_again(
    tmp_path, nmf, small_blocks, monkeypatch, remembered, options, after
):
    store(tmp_path / "s.zarr", plant()[0])
    expected = remembered(str(options), lambda: bits(nmf(tmp_path / "s.zarr", workers=1, **options)))
    array = open_counted(tmp_path / "s.zarr", tmp_path / "log")
    saves, save = [0], dcf.storage.journal.BlockJournal.save

    def failing(self, block, arrays, rows=None):
        if saves[0] == after:
            raise Stop
        saves[0] += 1
        save(self, block, arrays, rows)

    out = tmp_path / "interrupted.zarr"
    monkeypatch.setattr(dcf.storage.journal.BlockJournal, "save", failing)
    with dask.config.set(scheduler="synchronous"):
        with pytest.raises(Stop):
            dcf.nmf(array, rank=4, out=out, **options)
        monkeypatch.setattr(dcf.storage.journal.BlockJournal, "save", save)
        finished = reads(tmp_path / "log")
        result = nmf(array, out=out, **options)
    assert bits(result) == expected
    # So many passes over every chunk, and once more the block that was in hand when it stopped.
    again = reads(tmp_path / "log")
    assert len(again) <= passes_of(options) * 10 + 2
    assert len(again) >= len(finished)
    assert result.attributes["resumed"] <= 1
    assert result.attributes["passes"] == passes_of(options)


def test_a_finished_run_is_not_run_again(tmp_path, nmf):
    store(tmp_path / "s.zarr", plant()[0])
    array = open_counted(tmp_path / "s.zarr", tmp_path / "log")
    first = bits(nmf(array, out=tmp_path / "o.zarr"))
    count = len(reads(tmp_path / "log"))
    assert bits(nmf(array, out=tmp_path / "o.zarr", workers=1, memory="3GiB")) == first
    assert len(reads(tmp_path / "log")) == count
    with pytest.raises(dcf.UsageError, match="its rank is 4, now asked 5"):
        dcf.nmf(array, rank=5, out=tmp_path / "o.zarr")
    assert nmf(array, rank=5, out=tmp_path / "o.zarr", overwrite=True).W.shape[1] == 5


def test_without_out_the_factors_come_as_numpy(source):
    result = dcf.nmf(source, rank=3)
    assert isinstance(result.W, np.ndarray)
    assert result.W.shape == (1200, 3)
    assert result.H.shape == (3, 60)


def test_negatives(tmp_path, nmf):
    m = plant()[0]
    m[77, 7] = -0.25
    store(tmp_path / "s.zarr", m)
    with pytest.raises(dcf.SourceError, match=r"\[77, 7\] is -0.25, below zero"):
        dcf.nmf(tmp_path / "s.zarr", rank=4)
    result = nmf(tmp_path / "s.zarr", negatives="allow")
    assert result.relative_error.value < 0.02


def test_recovery_from_a_dense_factor_is_doubted(source, nmf):
    result = nmf(source, method="factorize-recover", refine=0, sketch_size=300, max_iter=100)
    assert result.attributes["trust"]["verdict"] == "doubtful"
    assert "--method rows" in result.attributes["trust"]["why"]
    assert result.relative_error.kind == "estimated"


@pytest.mark.parametrize("stage", ["sketch", "done"])
def test_killed_while_tidying_up(tmp_path, source, nmf, small_blocks, monkeypatch, stage):
    """What is half deleted is never read again."""
    expected = bits(nmf(source))
    drop = dcf.storage.run.RunGroup.drop

    def torn(self, name):
        if self.record["stage"] == stage:
            for chunk in (tmp_path / "torn.zarr" / "stages").rglob("c"):
                shutil.rmtree(chunk)
            raise Stop
        drop(self, name)

    monkeypatch.setattr(dcf.storage.run.RunGroup, "drop", torn)
    with pytest.raises(Stop):
        dcf.nmf(source, rank=4, out=tmp_path / "torn.zarr")
    monkeypatch.setattr(dcf.storage.run.RunGroup, "drop", drop)
    if stage == "done":
        assert bits(nmf(source, out=tmp_path / "torn.zarr")) == expected
        assert not (tmp_path / "torn.zarr" / "stages").exists()
    else:  # the sketch itself was torn by hand here: the run must say so, not go on with zeros
        with pytest.raises(dcf.DcfError, match="stages/sample"):
            dcf.nmf(source, rank=4, out=tmp_path / "torn.zarr")


def test_mended_data_are_read_anew(tmp_path, nmf, small_blocks):
    m = plant()[0]
    m[1100, 3] = -1
    array = store(tmp_path / "s.zarr", m)
    with dask.config.set(scheduler="synchronous"), pytest.raises(dcf.SourceError):
        dcf.nmf(tmp_path / "s.zarr", rank=4, out=tmp_path / "o.zarr")
    array[:] = m + 1
    nmf(tmp_path / "s.zarr", out=tmp_path / "o.zarr")  # the contract compares with the data as they are


def test_restored_chunks_are_accepted(tmp_path, nmf, small_blocks):
    store(tmp_path / "s.zarr", plant()[0])
    chunk = tmp_path / "s.zarr" / "c" / "3" / "1"
    kept = chunk.read_bytes()
    chunk.unlink()
    with pytest.raises(dcf.SourceError, match="lacks the chunk c/3/1"):
        dcf.nmf(tmp_path / "s.zarr", rank=4, out=tmp_path / "o.zarr", missing_chunks="error")
    chunk.write_bytes(kept)
    assert nmf(tmp_path / "s.zarr", out=tmp_path / "o.zarr", missing_chunks="error").attributes["passes"] == 2


def test_source_and_out_inside_one_another(source, tmp_path, nmf):
    nmf(source, out=tmp_path / "o.zarr")
    for place, out in ((tmp_path / "o.zarr" / "W", tmp_path / "o.zarr"), (source, source / "out")):
        with pytest.raises(dcf.UsageError, match="inside one another"):
            dcf.nmf(place, rank=2, out=out, overwrite=True)
    assert zarr.open_array(tmp_path / "o.zarr" / "W")[:].any()


def test_places_are_paths_or_urls(source, tmp_path, nmf, conforms):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("keep")
    with pytest.raises(dcf.UsageError, match="no run of dcf"):
        dcf.nmf(source, rank=4, out=f"file://{tmp_path}/mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "keep"
    dcf.nmf(f"file://{source}", rank=4, out=f"file://{tmp_path}/o.zarr")
    conforms(tmp_path / "o.zarr", source)
    with pytest.raises(dcf.UsageError, match="not list"):
        dcf.nmf([[1.0, 2.0]], rank=1)
    with pytest.raises(dcf.UsageError, match=r"--rank is 2\.5"):
        dcf.nmf(source, rank=2.5)
    assert nmf(source, rank=np.int64(3)).W.shape == (1200, 3)


def test_a_symbolic_link_as_out(source, tmp_path, nmf):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    nmf(source, out=tmp_path / "link")
    nmf(source, rank=3, out=tmp_path / "link", overwrite=True)
    assert (tmp_path / "real" / "W").exists()


def test_large_factors_without_out_outlive_the_decomposition(source, monkeypatch):
    monkeypatch.setattr("dcf.decompositions.SMALL_FACTOR_BYTES", 0)
    w = dcf.nmf(source, rank=3).W
    gc.collect()
    assert w[:].any()


def test_the_zarr_configuration_is_left_as_it_was(source, nmf, small_blocks):
    before = zarr.config.get("async.concurrency")
    for _ in range(3):
        nmf(source, workers=4)
    assert zarr.config.get("async.concurrency") == before


@pytest.mark.parametrize("shape", [(400, 20), (300, 30)])
def test_rank_deficient_data_give_the_same_bits(tmp_path, nmf, shape):
    m = np.zeros(shape, "f4")
    m[:, :5] = np.random.default_rng(0).random((shape[0], 5)) if shape[1] == 30 else 1
    m[::2] *= 2
    store(tmp_path / "s.zarr", m, chunks=(100, 20))
    assert len({bits(nmf(tmp_path / "s.zarr", rank=8)) for _ in range(4)}) == 1


def test_threads_of_one_process_are_all_planned_for(source):
    alone, together = (dcf.api.plan_run(source, dcf.api.Settings.of(rank=4), workers=n) for n in (1, 4))
    assert together.worker_bytes > alone.worker_bytes
