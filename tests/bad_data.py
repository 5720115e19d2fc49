"""What `test_bad_input` runs besides: bad data. For what a row is see `bad_input`."""

import json
import os
import shutil

import numpy as np
import zarr
from bad_input import SKETCH, C, N, ran, then

SVD = "svd SOURCE OUT --rank 3 "
READY = ran(SKETCH, "factorize OUT", "recover OUT")


def entry(where, value, name="source", dtype=None):
    """Return what puts a bad entry into an array (of another dtype), and what takes it out again."""

    def spoil(at):
        path = getattr(at, name)
        array = zarr.open_array(path, mode="r+")
        if dtype is not None:
            values = (array[:] * 10).astype(dtype)
            array = zarr.create_array(
                path, shape=array.shape, chunks=array.chunks, dtype=dtype, overwrite=True
            )
            array[:] = values
        at.good = array[where]
        array[where] = value

    def mend(at):
        zarr.open_array(getattr(at, name), mode="r+")[where] = at.good

    return spoil, mend


LAST = (299, 19)
ENTRIES = {
    "NaN": (N, 3, "[150, 13] is nan", *entry((150, 13), np.nan)),
    "infinite": (N, 3, "[0, 0] is inf", *entry((0, 0), np.inf)),
    "minus infinite, svd": (SVD, 3, "[150, 13] is -inf", *entry((150, 13), -np.inf)),
    "negative": (N, 3, "[150, 13] is -2, below zero", *entry((150, 13), -2)),
    "negative, in the last chunk": (N, 3, "[299, 19] is -2, below zero", *entry(LAST, -2)),
    "negative, along axis 1": (N + "--axis 1", 3, "[150, 13] is -2", *entry((150, 13), -2)),
    "NaN, along axis 1": (SVD + "--axis 1", 3, "[299, 19] is nan", *entry(LAST, np.nan)),
    "NaN in float16": (N, 3, "[299, 19] is nan", *entry(LAST, np.nan, dtype="f2")),
    "infinite in float64": (N, 3, "[299, 19] is -inf", *entry(LAST, -np.inf, dtype="f8")),
    "NaN in float64, semi-nmf": (
        "semi-nmf SOURCE OUT --rank 3",
        3,
        "[7, 3] is nan",
        *entry((7, 3), np.nan, dtype="f8"),
    ),
    "NaN, spca": ("spca SOURCE OUT --rank 3", 3, "[7, 3] is nan", *entry((7, 3), np.nan)),
    "negative int8": (N, 3, "[299, 19] is -128, below", *entry(LAST, -128, dtype="i1")),
    "negative int64": (N, 3, "[299, 19] is -1, below", *entry(LAST, -1, dtype="i8")),
    "NaN, in memory": (N + "--method full", 3, "[150, 13] is nan", *entry((150, 13), np.nan)),
    "negative, in memory": (N + "--method full", 3, "[299, 19] is -2", *entry(LAST, -2)),
    "negative, sketched": (SKETCH, 3, "[299, 19] is -2", *entry(LAST, -2)),
    "NaN in a tensor": (C, 3, "[29, 7, 5] is nan", *entry((29, 7, 5), np.nan, "tensor")),
    "negative in a tensor": (C, 3, "[3, 4, 5] is -1, below", *entry((3, 4, 5), -1, "tensor")),
    "negative in a tensor, along axis 2": (
        C + "--axis 2",
        3,
        "[3, 4, 5] is -1",
        *entry((3, 4, 5), -1, "tensor"),
    ),
    "infinite in a tensor, along axis 1": (
        C + "--signed --axis 1",
        3,
        "[3, 4, 5] is inf",
        *entry((3, 4, 5), np.inf, "tensor"),
    ),
}


def scaled(at):
    at.array = zarr.open_array(at.source, mode="r+")
    at.good = at.array[:]
    at.array[:] = at.good * 3e37


def rescaled(at):
    at.array[:] = at.good


ENTRIES["too large"] = (
    N,
    3,
    "The norm of SOURCE, about 1e+39, is more than float32 can hold",
    scaled,
    rescaled,
)


def instead(name="source", **options):
    """Put an array of another kind in the place of a planted one."""

    def spoil(at):
        shutil.rmtree(getattr(at, name))
        zarr.create_array(getattr(at, name), **options)

    return spoil


def group(*names):
    def spoil(at):
        shutil.rmtree(at.source)
        made = zarr.open_group(at.source, mode="w")
        for name in names:
            made.create_array(name, shape=(3, 3), dtype="f4")

    return spoil


NO_REAL = "dcf needs real numbers"
KINDS = {
    "complex": (N, 3, "holds complex64; " + NO_REAL, instead(shape=(9, 5), dtype="c8")),
    "strings": (N, 3, NO_REAL, instead(shape=(9, 5), dtype=str, zarr_format=3)),
    "strings of one length": (
        N,
        3,
        "holds <U4; " + NO_REAL,
        instead(shape=(9, 5), dtype="U4", zarr_format=2),
    ),
    "bytes": (N, 3, NO_REAL, instead(shape=(9, 5), dtype="S4", zarr_format=2)),
    "dates": (N, 3, "holds datetime64[s]", instead(shape=(9, 5), dtype="M8[s]")),
    "dates, planned": (
        "plan SOURCE --rank 2",
        3,
        "holds datetime64[s]",
        instead(shape=(9, 5), dtype="M8[s]"),
    ),
    "objects": (N, 3, NO_REAL, instead(shape=(9, 5), dtype=str, zarr_format=2)),
    "records": (N, 3, NO_REAL, instead(shape=(9, 5), dtype=[("a", "f4"), ("b", "i4")], zarr_format=2)),
    "a number": (N, 2, "has shape (); this needs a matrix, two axes", instead(shape=(), dtype="f4")),
    "a vector": (N, 2, "has shape (9,); this needs a matrix", instead(shape=(9,), dtype="f4")),
    "a tensor": ("nmf TENSOR OUT --rank 2", 2, "for a tensor: dcf cp, or --as cp"),
    "a tensor, planned": ("plan TENSOR --rank 2", 2, "for a tensor: dcf cp, or --as cp"),
    "a matrix for cp": ("cp SOURCE OUT --rank 2", 2, "CP needs a tensor, three axes or more"),
    "an empty axis": (N, 3, "has shape (0, 5): an axis is empty", instead(shape=(0, 5), dtype="f4")),
    "an empty axis of a tensor": (C, 3, "an axis is empty", instead("tensor", shape=(3, 0, 4), dtype="f4")),
    "a group": (N, 2, "is a Zarr group, not an array; name one of its arrays, such as", group("x")),
    "a group of nothing": (N, 2, "is a Zarr group, not an array", group()),
    "nothing": (N, 2, "does not exist", lambda at: shutil.rmtree(at.source)),
}


def chunk(act, key="c/2/1"):
    """Return what spoils a stored chunk, and what restores it."""

    def spoil(at):
        file = at.source / key
        at.kept = file.read_bytes()
        act(file)

    def mend(at):
        file = at.source / key
        if file.is_dir() and not file.is_symlink():
            file.rmdir()
        file.unlink(missing_ok=True)
        file.write_bytes(at.kept)

    return spoil, mend


def later(what):
    """Spoil when a run has come to its exact pass."""
    spoil, mend = what
    return then(READY, spoil), mend


def replaced(make):
    def act(file):
        file.unlink()
        make(file)

    return act


def changed(at):
    array = zarr.open_array(at.source, mode="r+")
    at.good = array[:100]
    array[:100] = 5


def unchanged(at):
    zarr.open_array(at.source, mode="r+")[:100] = at.good


def cut(file):
    file.write_bytes(file.read_bytes()[:40])


THERE = "The chunk c/2/1 of SOURCE, from entry (200, 10) on, "
CHUNKS = {
    "cut": (N, 3, THERE + "cannot be decoded", *chunk(cut)),
    "empty": (N, 3, THERE + "is empty", *chunk(lambda file: file.write_bytes(b""))),
    "damaged": (N, 3, THERE + "cannot be decoded", *chunk(lambda file: file.write_bytes(b"x" * 900))),
    "huge": (N, 3, THERE + "takes 1099511627776 bytes", *chunk(lambda file: os.truncate(file, 1 << 40))),
    "a folder": (N, 3, THERE + "is no file", *chunk(replaced(os.mkdir))),
    "a pipe": (N, 3, THERE + "is no file", *chunk(replaced(os.mkfifo))),
    "a link out of the store": (
        N,
        3,
        THERE + "is a link that leads out",
        *chunk(replaced(lambda f: f.symlink_to("/etc/hostname"))),
    ),
    "a link to nothing": (
        N,
        3,
        THERE + "is a link to a file that",
        *chunk(replaced(lambda f: f.symlink_to(f.with_name("9")))),
    ),
    "cut, along axis 1": (N + "--axis 1", 3, THERE + "cannot be decoded", *chunk(cut)),
    "cut, in memory": (N + "--method full", 3, THERE + "cannot be decoded", *chunk(cut)),
    "absent": (N + "--missing-chunks error", 3, "lacks the chunk c/2/1", *chunk(os.unlink)),
    "cut before an exact pass": ("refine OUT", 3, THERE + "cannot be decoded", *later(chunk(cut))),
    "lost before an exact pass": (
        "refine OUT",
        3,
        "lacked 0 chunks in its first pass and 1 in pass 2",
        *later(chunk(os.unlink)),
    ),
    "all lost before an exact pass": (
        "refine OUT",
        3,
        "and 6 in pass 2",
        then(READY, lambda at: shutil.move(at.source / "c", at.tmp / "c")),
        lambda at: shutil.move(at.tmp / "c", at.source / "c"),
    ),
    "NaN before an exact pass": (
        "refine OUT",
        3,
        "its squared norm was 5801.612, is nan",
        *later(entry(LAST, np.nan)),
    ),
    "data changed before an exact pass": (
        "refine OUT",
        3,
        "has changed since its first pass",
        *later((changed, unchanged)),
    ),
}


def metadata(change, **options):
    """Change the metadata of SOURCE, and put them back."""

    def spoil(at):
        if options:
            values = zarr.open_array(at.source, mode="r")[:]
            shutil.rmtree(at.source)
            zarr.create_array(at.source, data=values, chunks=(100, 10), **options)
        file = at.metadata = at.source / (".zarray" if options else "zarr.json")
        at.kept = file.read_bytes()
        record = change(json.loads(at.kept))
        file.write_bytes(record if isinstance(record, bytes) else json.dumps(record).encode())

    return spoil, lambda at: at.metadata.write_bytes(at.kept)


def grid(*sides):
    return lambda m: {**m, "chunk_grid": {**m["chunk_grid"], "configuration": {"chunk_shape": sides}}}


METADATA = {
    "torn": (N, 2, "its metadata do not make sense", *metadata(lambda m: json.dumps(m)[:60].encode())),
    "empty": (N, 2, "its metadata do not make sense", *metadata(lambda m: b"")),
    "a list": (N, 2, "its metadata do not make sense", *metadata(lambda m: [m])),
    "no UTF-8": (N, 2, "its metadata do not make sense", *metadata(lambda m: b"\xff\xfe{")),
    "without a shape": (
        N,
        2,
        "its metadata do not make sense",
        *metadata(lambda m: {k: m[k] for k in m if k != "shape"}),
    ),
    "an unknown codec": (
        N,
        2,
        "imaginary",
        *metadata(lambda m: {**m, "codecs": [*m["codecs"][:1], {"name": "imaginary"}]}),
    ),
    "an unknown codec, v2": (
        N,
        2,
        "imaginary",
        *metadata(lambda m: {**m, "compressor": {"id": "imaginary"}}, zarr_format=2),
    ),
    "pickle, v2": (
        N,
        2,
        "pickle",
        *metadata(lambda m: {**m, "compressor": {"id": "pickle"}}, zarr_format=2),
    ),
    "an absurd shape": (N, 3, "claims", *metadata(lambda m: {**m, "shape": [2**62, 2**62]})),
    "a negative shape": (N, 2, "do not make sense", *metadata(lambda m: {**m, "shape": [-5, 20]})),
    "absurd chunks": (N, 3, "claims chunks of 4398046511104 bytes", *metadata(grid(2**20, 2**20))),
    "chunks of three axes": (N, 2, "its metadata do not make sense", *metadata(grid(10, 10, 10))),
    "an unknown dtype": (
        N,
        2,
        "its metadata do not make sense",
        *metadata(lambda m: {**m, "data_type": "float1024"}),
    ),
    "a fill value of another kind": (
        N,
        2,
        "its metadata do not make sense",
        *metadata(lambda m: {**m, "fill_value": "red"}),
    ),
    "huge": (
        N,
        3,
        "more than any array needs",
        *metadata(lambda m: json.dumps(m).encode() + b" " * (65 << 20)),
    ),
}
