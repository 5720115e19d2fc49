"""Every way in which a matrix may lie in Zarr, and every way in which it may not."""

import json
import pickle
import shutil

import numpy as np
import pytest
import zarr
from conftest import plant, store
from counting import open_counted, reads

import dcf
from dcf.errors import RunError, SourceError, UsageError
from dcf.plan import blocks_of
from dcf.storage.durable import held
from dcf.storage.run import RunGroup
from dcf.storage.source import ArraySource, describe, layout_of, open_source

RECORD = {
    "plan": {"out_bytes": 1000},
    "settings": {"rank": 3},
    "source": {"shape": [4, 4], "dtype": "float32", "fingerprint": "a", "metadata": {"fill_value": 0}},
    "version": "0",
    "stage": "created",
}


def read_all(array, axis, stripe=50, tile=7):
    dtype = "float64" if array.dtype == np.float64 else "float32"
    source = ArraySource(array, axis, stripe, tile, 2, dtype)
    whole = np.vstack([t.copy() for _, t in source.tiles(0, array.shape[axis], set())])
    np.testing.assert_array_equal(by_panels(source, array.shape[axis]), whole)
    return whole


def by_panels(source, rows):
    """Put the panels of a source together, each where it says it belongs."""
    whole = np.full((rows, source.width), np.nan)
    for start, panels in source.panels(0, rows, set()):
        for first, panel in panels:
            assert panel.flags.c_contiguous
            assert panel.dtype == source.dtype
            part = whole[start : start + len(panel), first : first + panel.shape[1]]
            assert np.isnan(part).all()  # every entry once
            part[:] = panel
    return whole


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(
    "options",
    [
        {"chunks": (50, 13)},
        {"chunks": (25, 10), "shards": (50, 20)},
        {"chunks": (50, 13), "zarr_format": 2},
        {"chunks": (50, 13), "zarr_format": 2, "order": "F"},
        {"chunks": (50, 13), "compressors": None},
        {"chunks": (120, 31)},
        {"chunks": (1, 31)},
    ],
    ids=str,
)
def test_formats_chunks_shards_and_orientations(tmp_path, axis, options):
    m = plant(120, 31)[0]
    array = store(tmp_path / "a.zarr", m, **options)
    got = read_all(open_source(tmp_path / "a.zarr"), axis, array.chunks[axis])
    np.testing.assert_array_equal(got, m if axis == 0 else m.T)


@pytest.mark.parametrize(
    "dtype", ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", ">f4", ">i2"]
)
def test_every_real_dtype(tmp_path, dtype):
    m = (plant(120, 31)[0] * 3).astype(dtype)
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=m.shape, chunks=(50, 13), dtype=dtype, zarr_format=2 if ">" in dtype else 3
    )
    array[:] = m
    np.testing.assert_array_equal(read_all(array, 0), m.astype("f8" if dtype == "f8" else "f4"))
    result = dcf.nmf(tmp_path / "a.zarr", rank=2)
    assert result.W.dtype == ("f8" if dtype == "f8" else "f4")


@pytest.mark.parametrize("chunks", [(1, 31), (5, 13), (50, 13), (120, 31)])
def test_rows_come_no_fewer_at_once_than_in_tiles(tmp_path, chunks):
    """What a pass does for each piece would else be done for each of many low chunks."""
    source = ArraySource(
        store(tmp_path / "a.zarr", plant(120, 31)[0], chunks=chunks), 0, 100, 20, 2, "float32"
    )
    pieces = [sum(1 for _ in way(0, 120, set())) for way in (source.panels, source.tiles)]
    assert pieces[0] <= pieces[1]


def test_each_chunk_is_decoded_once(tmp_path):
    store(tmp_path / "a.zarr", plant(120, 31)[0], chunks=(50, 13))
    array = open_counted(tmp_path / "a.zarr", tmp_path / "log")
    read_all(array, 0)
    seen = reads(tmp_path / "log")
    assert sorted(seen) == sorted(2 * list(set(seen)))  # by tiles and by panels
    assert len(set(seen)) == 3 * 3


def test_a_source_pickles_small(tmp_path):
    array = store(tmp_path / "a.zarr", plant(120, 31)[0])
    assert len(pickle.dumps(ArraySource(array, 0, 50, 7, 2, "float32"))) < 5000


def test_the_layout_comes_from_metadata_alone(tmp_path):
    store(tmp_path / "a.zarr", plant(120, 31)[0], chunks=(25, 10), shards=(50, 20))
    array = open_counted(tmp_path / "a.zarr", tmp_path / "log")
    layout = layout_of(open_source(array))
    assert (layout.shape, layout.chunks, layout.shards, layout.dtype) == (
        (120, 31),
        (25, 10),
        (50, 20),
        "float32",
    )
    assert reads(tmp_path / "log") == []


def test_the_fingerprint_follows_the_metadata(tmp_path):
    a = store(tmp_path / "a.zarr", plant(120, 31)[0])
    b = store(tmp_path / "b.zarr", plant(120, 31, seed=1)[0])
    c = store(tmp_path / "c.zarr", plant(120, 31)[0], chunks=(60, 31))
    prints = [describe(x, "")["fingerprint"] for x in (a, b, c)]
    assert prints[0] == prints[1] != prints[2]


def test_absent_chunks_are_counted(tmp_path, nmf):
    m = plant(600, 60)[0]
    m[256:512, 32:] = 0
    store(tmp_path / "a.zarr", m)  # Zarr does not store a chunk of zeros
    result = nmf(tmp_path / "a.zarr")
    assert result.attributes["missing_chunks"] == 1
    with pytest.raises(SourceError, match="lacks the chunk c/1/1"):
        dcf.nmf(tmp_path / "a.zarr", rank=3, missing_chunks="error")


@pytest.mark.parametrize("axis", [0, 1])
def test_a_damaged_chunk_is_named(tmp_path, axis):
    store(tmp_path / "a.zarr", plant(600, 60)[0] if axis == 0 else plant(600, 60)[0].T.copy())
    chunk = tmp_path / "a.zarr" / "c" / "0" / "1"
    chunk.write_bytes(chunk.read_bytes()[:40])
    with pytest.raises(SourceError, match=r"chunk c/0/1 .* cannot be decoded"):
        dcf.nmf(tmp_path / "a.zarr", rank=3, out=tmp_path / "out.zarr")
    assert RunGroup.open(str(tmp_path / "out.zarr")).record["stage"] == "created"


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda p: None, UsageError, "does not exist"),
        (lambda p: p.mkdir(), UsageError, "not a Zarr array"),
        (lambda p: p.write_text("x"), UsageError, "is no folder"),
        (lambda p: zarr.open_group(p).create_array("x", shape=(3, 3), dtype="f4"), UsageError, "group.*/x"),
        (lambda p: zarr.open_group(p, mode="w"), UsageError, "is a Zarr group"),
        (lambda p: zarr.create_array(p, shape=(9,), dtype="f4"), UsageError, "two axes"),
        (lambda p: zarr.create_array(p, shape=(3, 3, 3), dtype="f4"), UsageError, "two axes"),
        (lambda p: zarr.create_array(p, shape=(0, 3), dtype="f4"), SourceError, "an axis is empty"),
        (lambda p: zarr.create_array(p, shape=(3, 3), dtype="c8"), SourceError, "complex64"),
        (lambda p: zarr.create_array(p, shape=(3, 3), dtype="M8[s]"), SourceError, "datetime64"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::zarr.errors.UnstableSpecificationWarning")
def test_what_is_no_matrix_is_refused(tmp_path, make, error, says):
    make(tmp_path / "a.zarr")
    with pytest.raises(error, match=says):
        open_source(tmp_path / "a.zarr")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_strings_are_refused(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", shape=(3, 3), dtype=str, zarr_format=2)
    with pytest.raises(SourceError, match="real numbers"):
        open_source(tmp_path / "a.zarr")


def test_a_torn_metadata_file_is_a_sentence(tmp_path):
    store(tmp_path / "a.zarr", plant(120, 31)[0])
    (tmp_path / "a.zarr" / "zarr.json").write_text('{"zarr_format": 3, "node_')
    with pytest.raises(UsageError, match=r"cannot be opened|not a Zarr array"):
        open_source(tmp_path / "a.zarr")


class TestRunGroup:
    def test_the_same_identity_resumes_and_another_is_refused(self, tmp_path):
        out = str(tmp_path / "o.zarr")
        RunGroup.create(out, RECORD, False).update(stage="sketch")
        assert RunGroup.create(out, RECORD, False).record["stage"] == "sketch"
        for change, says in (
            ({"settings": {"rank": 4}}, "its rank is 3, now asked 4"),
            ({"source": {**RECORD["source"], "fingerprint": "b"}}, "fingerprint was a, now b"),
            (
                {"source": {**RECORD["source"], "fingerprint": "b", "metadata": {"fill_value": 1}}},
                "its source's fill_value was 0, now 1",
            ),
            ({"version": "1"}, "dcf 0 began it, this is 1"),
        ):
            with pytest.raises(UsageError, match=says):
                RunGroup.create(out, {**RECORD, **change}, False)
            assert RunGroup.open(out).record["stage"] == "sketch"
        assert RunGroup.create(out, {**RECORD, "version": "1"}, True).record["stage"] == "created"

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_what_is_no_run_is_never_touched(self, tmp_path, overwrite):
        mine = store(tmp_path / "mine.zarr", plant(120, 31)[0])
        (tmp_path / "notes").mkdir()
        (tmp_path / "notes" / "a.txt").write_text("keep")
        (tmp_path / "file").write_text("keep")
        zarr.open_group(tmp_path / "group.zarr").create_array("x", data=np.ones(3))
        for name in ("mine.zarr", "notes", "file", "group.zarr"):
            with pytest.raises((UsageError, RunError), match=r"is no run of dcf|cannot be"):
                RunGroup.create(str(tmp_path / name), RECORD, overwrite)
        assert mine[0, 0] == plant(120, 31)[0][0, 0]
        assert (tmp_path / "notes" / "a.txt").read_text() == (tmp_path / "file").read_text() == "keep"
        assert zarr.open_group(tmp_path / "group.zarr")["x"][0] == 1

    @pytest.mark.parametrize("place", ["/proc/dcf.zarr", "{tmp}/file/o.zarr"])
    def test_where_it_cannot_write_it_says_so(self, tmp_path, place):
        (tmp_path / "file").write_text("")
        with pytest.raises(RunError, match="cannot be"):
            RunGroup.create(place.format(tmp=tmp_path), RECORD, False)

    def test_a_journal_keeps_what_was_saved(self, tmp_path):
        run, blocks = RunGroup.create(str(tmp_path / "o.zarr"), RECORD, False), blocks_of(10, 2)
        like = {"a": np.zeros((2, 3)), "none": np.zeros((0, 3)), "n": np.zeros(2, "i8")}
        rows = run.allocate("stages/rows", (10, 4), (1, 4), "f4")
        journal = pickle.loads(pickle.dumps(run.journal("sketch", 5, like, rows=rows, rows_at_once=1)))
        assert all(journal.load(block) is None for block in blocks)
        entry = {"a": np.full((2, 3), 0.1), "none": np.zeros((0, 3)), "n": np.array([7, 8])}
        journal.save(blocks[3], entry, np.ones((2, 4), "f4"))
        journal.save(blocks[0], {**entry, "n": np.array([0, 0])}, np.zeros((2, 4), "f4"))
        opened = RunGroup.open(str(tmp_path / "o.zarr"))
        again = opened.journal("sketch", 5, like, rows=opened.get("stages/rows"), rows_at_once=1)
        assert [block.index for block in blocks if again.load(block) is not None] == [0, 3]
        assert again.count() == 2
        for name, values in entry.items():
            np.testing.assert_array_equal(again.load(blocks[3])[name], values)
        done = json.loads((tmp_path / "o.zarr" / "stages" / "sketch" / "a" / "zarr.json").read_text())
        assert "crc32c" in str(done["codecs"])

    def test_the_padding_of_a_sample_is_not_written_and_the_rest_is_missed(self, tmp_path):
        """Chunks of zeros are no loss; one that held rows is, though it then reads as padding."""
        run, blocks = RunGroup.create(str(tmp_path / "o.zarr"), RECORD, False), blocks_of(6, 2)
        like = {"sample": np.zeros((8, 3)), "sums": np.zeros((8, 3))}
        journal = run.journal("sketch", 3, like, chunks={"sample": (2, 3)}, padded=("sample",))
        sample = np.zeros((8, 3))
        sample[:3] = 1.0
        chunks = tmp_path / "o.zarr" / "stages" / "sketch"
        for kept in (sample, np.zeros((8, 3)), sample):  # saved anew, its chunks are those of the last time
            journal.save(blocks[1], {"sample": kept, "sums": np.zeros((8, 3))})
            np.testing.assert_array_equal(journal.load(blocks[1])["sample"], kept)
        assert sorted(p.name for p in (chunks / "sample/c/1").iterdir()) == ["0", "1"]
        assert (chunks / "sums/c/1/0/0").exists()
        (chunks / "sample/c/1/1/0").unlink()
        assert journal.load(blocks[1]) is None

    @pytest.mark.parametrize("part", ["a", "done", "rows"])
    @pytest.mark.parametrize("how", ["cut", "empty", "gone", "garbage", "of another block", "of another run"])
    def test_what_is_torn_or_foreign_is_done_again(self, tmp_path, part, how):
        blocks, entry = blocks_of(10, 2), {"a": np.full((2, 3), 0.1)}

        def journal(name, values):
            run = RunGroup.create(str(tmp_path / name), RECORD, False)
            rows = run.get("stages/rows") if run.has("stages/rows") else None
            rows = run.allocate("stages/rows", (10, 4), (2, 4), "f4") if rows is None else rows
            made = run.journal("sketch", 5, entry, rows=rows)
            if values is not None:
                for k in (1, 2):
                    made.save(blocks[k], {"a": values + k}, np.full((2, 4), k, "f4"))
            return made

        journal("mine", entry["a"])
        journal("other", entry["a"] * 2)
        where = {"a": "sketch/a/c/{}/0/0", "done": "sketch/done/c/{}", "rows": "rows/c/{}/0"}[part]
        torn = tmp_path / "mine" / "stages" / where.format(1)
        kept = torn.read_bytes()
        if how == "gone":
            torn.unlink()
        elif how == "of another block":
            torn.write_bytes((tmp_path / "mine" / "stages" / where.format(2)).read_bytes())
        elif how == "of another run":
            torn.write_bytes((tmp_path / "other" / "stages" / where.format(1)).read_bytes())
        else:
            torn.write_bytes({"cut": kept[:-1], "empty": b"", "garbage": b"x" * len(kept)}[how])
        again = journal("mine", None)
        same = how == "of another run" and part == "rows"  # where the numbers are the same
        assert (again.load(blocks[1]) is None) == (not same)
        assert again.load(blocks[2]) is not None
        again.save(blocks[1], entry, np.ones((2, 4), "f4"))
        assert again.load(blocks[1]) is not None

    def test_killed_in_its_first_write(self, tmp_path):
        out = tmp_path / "o.zarr"
        out.mkdir()
        (out / f"zarr.json.{'0a' * 16}.partial").write_text("{")
        RunGroup.create(str(out), RECORD, False)
        assert [p.name for p in RunGroup.open(str(out)).group.store.root.iterdir()] == ["zarr.json"]
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "film.partial").write_text("keep")
        with pytest.raises(UsageError, match="is no run of dcf"):
            RunGroup.create(str(tmp_path / "mine"), RECORD, False)
        assert (tmp_path / "mine" / "film.partial").read_text() == "keep"

    @pytest.mark.parametrize("lost", ["a", "done", "b"])
    def test_a_journal_that_was_half_deleted_is_made_anew(self, tmp_path, lost):
        run, block = RunGroup.create(str(tmp_path / "o.zarr"), RECORD, False), blocks_of(4, 2)[1]
        entry = {"a": np.ones(3), "b": np.ones((2, 2))}
        run.journal("sketch", 2, entry).save(block, entry)
        shutil.rmtree(tmp_path / "o.zarr" / "stages" / "sketch" / lost)
        again = RunGroup.open(str(tmp_path / "o.zarr")).journal("sketch", 2, entry)
        assert again.load(block) is None
        again.save(block, entry)
        assert again.load(block) is not None

    def test_killed_while_it_is_emptied(self, tmp_path, monkeypatch):
        out, drop = str(tmp_path / "o.zarr"), RunGroup.drop
        run = RunGroup.create(out, RECORD, False)
        for name in ("W", "H"):
            run.put(name, np.ones((3, 3)))
        run.update(stage="done")

        def torn(run, name):
            drop(run, name)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(RunGroup, "drop", torn)
            with pytest.raises(KeyboardInterrupt):
                RunGroup.create(out, RECORD, True)
        for name in ("W", "stages/sketch"):  # half deleted: no member of the group any more
            (tmp_path / "o.zarr" / name / "c").mkdir(parents=True, exist_ok=True)
            (tmp_path / "o.zarr" / name / "zarr.json").unlink(missing_ok=True)
        (tmp_path / "o.zarr" / "notes").mkdir()
        again = RunGroup.create(out, RECORD, False)
        assert again.record["stage"] == "created"
        assert sorted(p.name for p in (tmp_path / "o.zarr").iterdir()) == ["notes", "zarr.json"]


class TestDurable:
    def test_one_run_at_a_time(self, tmp_path):
        out = str(tmp_path / "o.zarr")
        with held(out):
            with pytest.raises(RunError, match="locked by another run"), held(out):
                pass
        with held(out):
            pass

    def test_what_is_gone_is_not_made_anew(self, tmp_path):
        run = RunGroup.create(str(tmp_path / "o.zarr"), RECORD, False)
        (tmp_path / "o.zarr").rename(tmp_path / "away.zarr")
        with pytest.raises(RunError, match="has vanished"):
            run.update(stage="sketch")
        assert not (tmp_path / "o.zarr").exists()
        (tmp_path / "away.zarr").rename(tmp_path / "o.zarr")
        run.update(stage="sketch")
        assert RunGroup.open(str(tmp_path / "o.zarr")).record["stage"] == "sketch"

    @pytest.mark.parametrize("link", ["W", "stages/sketch", "stages/rows/c/0"])
    def test_links_are_not_written_through(self, tmp_path, link):
        out = str(tmp_path / "o.zarr")
        RunGroup.create(out, RECORD, False)
        (tmp_path / "precious").mkdir()
        (tmp_path / "precious" / "thesis.txt").write_text("keep")
        place = tmp_path / "o.zarr" / link
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(tmp_path / "precious")
        for overwrite in (False, True):
            with pytest.raises(UsageError, match="symbolic link"):
                RunGroup.create(out, RECORD, overwrite)
        with pytest.raises(UsageError, match="symbolic link"):
            RunGroup.open(out)
        assert (tmp_path / "precious" / "thesis.txt").read_text() == "keep"

    def test_a_damaged_array_of_a_run_is_a_sentence(self, tmp_path):
        run = RunGroup.create(str(tmp_path / "o.zarr"), RECORD, False)
        run.put("stages/probe", np.ones((3, 4)))
        chunk = tmp_path / "o.zarr" / "stages" / "probe" / "c" / "0" / "0"
        chunk.write_bytes(chunk.read_bytes()[:-1])
        with pytest.raises(RunError, match=r"stages/probe of OUT .* is damaged .* --overwrite"):
            run.complete("stages/probe")[:]
