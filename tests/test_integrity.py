"""A damaged, lost or hostile source ends in its own data or in a sentence, never in other data."""

import bz2
import gzip
import json
import lzma
import os
import pickle
import shutil
import tracemalloc
import warnings
import zlib

import numcodecs
import numpy as np
import pytest
import zarr
from conftest import plant, store
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ShardingCodec, ZstdCodec
from zarr.codecs import numcodecs as v3
from zarr.storage import LocalStore, WrapperStore

import dcf
from dcf.errors import DcfError, RunError, SourceError
from dcf.storage import remote
from dcf.storage.source import ArraySource, open_source

M = plant(128, 32)[0]
LZ4 = BloscCodec(cname="lz4", shuffle="shuffle")
SHARDS = {"chunks": (32, 16), "shards": (64, 32)}


def sharding(codecs, index_codecs, location):
    shards = ShardingCodec(
        chunk_shape=(32, 16), codecs=codecs, index_codecs=index_codecs, index_location=location
    )
    return {"chunks": (64, 32), "compressors": None, "serializer": shards}


def v2(compressor, filters=None):
    return {"chunks": (64, 32), "zarr_format": 2, "compressors": compressor, "filters": filters}


STORED = {
    "none": {"chunks": (64, 32), "compressors": None},
    "none + crc32c": {"chunks": (64, 32), "compressors": [Crc32cCodec()]},
    "blosc-lz4": {"chunks": (64, 32), "compressors": [LZ4]},
    "blosc-zstd": {"chunks": (64, 32), "compressors": [BloscCodec(cname="zstd")]},
    "blosc-lz4 + crc32c": {"chunks": (64, 32), "compressors": [LZ4, Crc32cCodec()]},
    "zstd": {"chunks": (64, 32), "compressors": [ZstdCodec()]},
    "gzip": {"chunks": (64, 32), "compressors": [GzipCodec()]},
    "shards of blosc-lz4": {**SHARDS, "compressors": [LZ4]},
    "shards of blosc-lz4 + crc32c": {**SHARDS, "compressors": [LZ4, Crc32cCodec()]},
    "shards of none": {**SHARDS, "compressors": None},
    "shards, index first, without checksum": sharding([BytesCodec(), LZ4], [BytesCodec()], "start"),
    "shards, index last, without checksum": sharding([BytesCodec(), LZ4], [BytesCodec()], "end"),
    "v2 none": v2(None),
    "v2 blosc-lz4": v2(numcodecs.Blosc("lz4")),
    "v2 zlib": v2(numcodecs.Zlib()),
    "v2 zstd": v2(numcodecs.Zstd()),
    "v2 gzip": v2(numcodecs.GZip()),
    "v2 bz2": v2(numcodecs.BZ2()),
    "v2 lzma": v2(numcodecs.LZMA()),
    "v2 lz4": v2(numcodecs.LZ4()),
    "v2 filters": v2(
        numcodecs.Blosc("lz4"), [numcodecs.Shuffle(4), numcodecs.Fletcher32(), numcodecs.CRC32()]
    ),
    "v2 filters alone": v2(None, [numcodecs.BitRound(20), numcodecs.AsType("f8", "f4")]),
}
DAMAGES = {
    "missing": lambda chunk: None,
    "empty": lambda chunk: b"",
    "cut in half": lambda chunk: chunk[: len(chunk) // 2],
    "cut by one byte": lambda chunk: chunk[:-1],
    "7 bytes appended": lambda chunk: chunk + b"1234567",
    "garbage": lambda chunk: np.random.default_rng(0).bytes(len(chunk)),
}
# Bytes of the right number without any checksum may be any numbers: there is no telling. (Nor is there
# of single bits in what LZ4, Blosc or bare filters hold; a checksum such as crc32c tells them.)
UNKNOWABLE = {("none", "garbage"), ("v2 none", "garbage"), ("v2 filters alone", "garbage")}
# The index of this shard is taken at its word; what it calls a chunk is checked all the same.
NOWHERE = {("shards, index first, without checksum", "7 bytes appended")}


def chunk_of(path):
    """The key of the second chunk down, and its file."""
    return next((key, path / key) for key in ("c/1/0", "1.0") if (path / key).exists())


def read(path, stripe=64, absent=None):
    array = open_source(path)
    source = ArraySource(array, 0, stripe, 10, 2, "float32")
    tiles = source.tiles(0, array.shape[0], set() if absent is None else absent)
    return np.vstack([tile.copy() for _, tile in tiles])


@pytest.mark.parametrize("stripe", [64, 32])
@pytest.mark.parametrize("stored", STORED)
def test_damage_is_refused_and_never_read(tmp_path, stored, stripe):
    path = tmp_path / "a.zarr"
    array = store(path, M, **STORED[stored])
    whole = array[:]
    np.testing.assert_array_equal(read(path, stripe), whole)
    key, file = chunk_of(path)
    chunk = file.read_bytes()
    for damage, change in DAMAGES.items():
        damaged = change(chunk)
        file.unlink() if damaged is None else file.write_bytes(damaged)
        absent = set()
        if damaged is None:
            filled = whole.copy()
            filled[64:] = 0
            np.testing.assert_array_equal(read(path, stripe, absent), filled)
            assert absent == {key}
        elif (stored, damage) in NOWHERE:
            np.testing.assert_array_equal(read(path, stripe), whole)
        elif (stored, damage) not in UNKNOWABLE:
            with pytest.raises(SourceError, match=rf"chunk {key} of SOURCE, from entry \(64, 0\) on") as e:
                read(path, stripe, absent)
            assert not absent
            assert str(pickle.loads(pickle.dumps(e.value))) == str(e.value)


def zstd_without_size(blocks):
    """A Zstandard frame that tells no size, of blocks of 2^17 zeros."""
    block = [
        ((1 << 17 << 3) | (1 << 1) | (i == blocks - 1)).to_bytes(3, "little") + b"\0" for i in range(blocks)
    ]
    return b"\x28\xb5\x2f\xfd\x00\x58" + b"".join(block)


BOMB = bytes(1 << 26)
BOMBS = {
    "blosc-lz4": lambda: numcodecs.Blosc("lz4").encode(BOMB),
    "zstd": lambda: numcodecs.Zstd().encode(BOMB),
    "zstd, no size": lambda: zstd_without_size(1 << 9),
    "gzip": lambda: gzip.compress(BOMB),
    "v2 zlib": lambda: zlib.compress(BOMB),
    "v2 bz2": lambda: bz2.compress(BOMB),
    "v2 lzma": lambda: lzma.compress(BOMB),
    "v2 lz4": lambda: numcodecs.LZ4().encode(BOMB),
    "v2 filters": lambda: numcodecs.Blosc("lz4").encode(BOMB),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, bomb):
    path = tmp_path / "a.zarr"
    store(path, M, **STORED[bomb.split(",")[0]])
    key, file = chunk_of(path)
    file.write_bytes(BOMBS[bomb]())
    tracemalloc.start()
    try:
        with pytest.raises(SourceError, match=f"chunk {key} .*(decode|takes)"):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 24 << 20  # the dictionary of LZMA takes 8 MiB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("stripe", [64, 32])
def test_a_bomb_in_a_shard_is_refused(tmp_path, stripe):
    path = tmp_path / "a.zarr"
    store(path, M, **sharding([BytesCodec(), ZstdCodec()], [BytesCodec()], "start"))
    bomb = numcodecs.Zstd().encode(bytes(1 << 24))
    index = np.array([[64, len(bomb)]] * 4, "<u8")
    (path / "c" / "1" / "0").write_bytes(index.tobytes() + bomb)
    with pytest.raises(
        SourceError, match=r"c/1/0 .*claims to decode to 16777216 bytes, its shape takes 2048"
    ):
        read(path, stripe)


def test_frames_that_tell_no_size_are_read(tmp_path):
    path = tmp_path / "a.zarr"
    zarr.create_array(path, shape=(256, 1024), chunks=(256, 1024), dtype="u1", compressors=[ZstdCodec()])
    (path / "c" / "0").mkdir(parents=True)
    (path / "c" / "0" / "0").write_bytes(zstd_without_size(2))
    assert not read(path).any()
    (path / "c" / "0" / "0").write_bytes(zstd_without_size(3))
    with pytest.raises(SourceError, match="c/0/0"):
        read(path)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("place", ["compressor", "filters"])
@pytest.mark.filterwarnings("ignore")
def test_no_code_of_a_store_is_run(tmp_path, place):
    path = tmp_path / "a.zarr"
    store(path, M, **v2(None))
    record = json.loads((path / ".zarray").read_text())
    record[place] = {"id": "pickle"} if place == "compressor" else [{"id": "pickle"}]
    (path / ".zarray").write_text(json.dumps(record))
    (path / "0.0").write_bytes(pickle.dumps(Evil(str(tmp_path / "proof"))))
    for attempt in (lambda: open_source(path), lambda: dcf.nmf(path, rank=2)):
        with pytest.raises(DcfError, match="pickle"):
            attempt()
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"chunks": (64, 32), "compressors": [ZstdCodec(), GzipCodec()]}, "'gzip' around other"),
        (v2(numcodecs.Zlib(), [numcodecs.Zstd()]), "codec 'zstd'"),
        (v2(numcodecs.Zlib(), [numcodecs.Base64()]), "codec 'base64'"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_other_chains_of_codecs_are_refused(tmp_path, options, says):
    store(tmp_path / "a.zarr", M, **options)
    with pytest.raises(SourceError, match=says):
        open_source(tmp_path / "a.zarr")


def store_v3_of_numcodecs(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        codecs = {"filters": [v3.Delta(dtype="<f4")], "compressors": [v3.LZMA(), v3.Adler32()]}
        return store(path, M, chunks=(64, 32), **codecs)


def test_codecs_of_numcodecs_in_v3_are_read(tmp_path):
    array = store_v3_of_numcodecs(tmp_path / "a.zarr")
    np.testing.assert_array_equal(read(tmp_path / "a.zarr"), array[:])


class Flaky(WrapperStore):
    """A store of which a chunk fails a number of times, in this process."""

    def __init__(self, store, key, failures, error):
        super().__init__(store)
        self.key, self.failures, self.error = key, failures, error

    async def get(self, key, prototype, byte_range=None):
        if key == self.key and self.failures:
            self.failures -= 1
            raise self.error
        return await super().get(key, prototype, byte_range)


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(remote, "_SECONDS_BETWEEN_TRIES", (0.0,) * 5)


@pytest.mark.parametrize("error", [OSError("reset by peer"), TimeoutError(), RuntimeError("client")], ids=str)
@pytest.mark.parametrize("failures", [5, 6])
def test_a_failed_read_is_tried_again_and_never_taken_for_zeros(tmp_path, caplog, at_once, failures, error):
    path = tmp_path / "a.zarr"
    store(path, M, chunks=(64, 32))
    array = zarr.open_array(Flaky(LocalStore(path, read_only=True), "c/1/0", failures, error), mode="r")
    absent = set()
    if failures == 5:
        np.testing.assert_array_equal(read(array), M)
        assert len([r for r in caplog.records if "c/1/0" in r.message and r.levelname == "WARNING"]) == 5
    else:
        says = rf"c/1/0 .*\(64, 0\) on, could not be read after 6 tries \({type(error).__name__}.*run again"
        with pytest.raises(SourceError, match=says):
            read(array, absent=absent)
    assert not absent


def test_want_of_memory_is_not_tried_again(tmp_path):
    path = tmp_path / "a.zarr"
    store(path, M, chunks=(64, 32))
    flaky = Flaky(LocalStore(path, read_only=True), "c/1/0", 1, MemoryError())
    with pytest.raises(MemoryError):
        read(zarr.open_array(flaky, mode="r"))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_store_that_vanishes_does_not_read_as_zeros(tmp_path, zarr_format):
    path = tmp_path / "a.zarr"
    store(path, M, chunks=(64, 32), zarr_format=zarr_format)
    tiles = ArraySource(open_source(path), 0, 64, 64, 2, "float32").tiles(0, 128, set())
    np.testing.assert_array_equal(next(tiles)[1], M[:64])
    shutil.move(path, tmp_path / "elsewhere")
    path.mkdir()
    with pytest.raises(RunError, match=r"a.zarr has vanished .* the same command resumes"):
        next(tiles)
    assert RunError.exit_code == 1


def test_what_is_no_file_inside_the_store_is_refused(tmp_path, at_once):
    path = tmp_path / "a.zarr"
    store(path, M, chunks=(64, 32))
    (tmp_path / "link.zarr").symlink_to(path)
    np.testing.assert_array_equal(read(tmp_path / "link.zarr"), M)
    file, secret = path / "c" / "1" / "0", tmp_path / "secret"
    file.rename(secret)

    def refused(says):
        with pytest.raises(SourceError, match=rf"c/1/0 .*\(64, 0\) on, {says}"):
            read(path)

    file.symlink_to(secret)
    refused("is a link that leads out of the store")
    file.unlink()
    file.symlink_to(path / "nothing")
    refused("is a link to a file that is not there")
    file.unlink()
    file.mkdir()
    refused("is no file")
    file.rmdir()
    os.mkfifo(file)
    refused("is no file")
    file.unlink()
    file.write_bytes(b"x")
    os.truncate(file, 1 << 40)
    refused("takes 1099511627776 bytes")
    shutil.rmtree(path / "c" / "1")
    (path / "c" / "1").write_text("")
    refused("could not be read after 6 tries .NotADirectoryError")
    (path / "zarr.json").rename(secret)
    (path / "zarr.json").symlink_to(secret)
    with pytest.raises(SourceError, match=r"metadata zarr.json of SOURCE .* leads out of the store"):
        open_source(path)
    (path / "zarr.json").unlink()
    os.mkfifo(path / "zarr.json")
    with pytest.raises(SourceError, match=r"metadata zarr.json of SOURCE .* is no file"):
        open_source(path)
