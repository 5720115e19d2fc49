"""What `test_bad_input` runs besides: other, changed and torn runs. For what a row is see `bad_input`."""

import json
import shutil

import numpy as np
import zarr
from bad_input import SKETCH, N, ran, then


def record(change):
    """Change the record of the run at OUT."""

    def spoil(at):
        file = at.out / "zarr.json"
        at.kept = file.read_bytes()
        document = json.loads(at.kept)
        document["attributes"]["dcf"] = change(document["attributes"]["dcf"])
        file.write_text(json.dumps(document))

    return spoil


def unrecord(at):
    (at.out / "zarr.json").write_bytes(at.kept)


def torn(at):
    at.kept = (at.out / "zarr.json").read_bytes()
    (at.out / "zarr.json").write_bytes(at.kept[: len(at.kept) // 2])


def without(*keys):
    return lambda found: {key: value for key, value in found.items() if key not in keys}


def another_source(**options):
    def spoil(at):
        at.source.rename(at.tmp / "away.zarr")
        data = zarr.open_array(at.tmp / "away.zarr", mode="r")[:]
        shape = options.pop("shape", data.shape)
        kind = {"chunks": (100, 10), "dtype": "f4", "fill_value": 0, **options}
        zarr.create_array(at.source, shape=shape, **kind)[:] = data[: shape[0], : shape[1]]

    return spoil


def away(at):
    at.source.rename(at.tmp / "away.zarr")


def back(at):
    shutil.rmtree(at.source, ignore_errors=True)
    (at.tmp / "away.zarr").rename(at.source)


def lost(before, name):
    """Lose a part of a run, and find it again."""

    def spoil(at):
        before(at)
        at.kept = at.out / "stages" / name
        at.kept.rename(at.tmp / "lost")

    return spoil, lambda at: (at.tmp / "lost").rename(at.kept)


READY = ran(SKETCH, "factorize OUT", "recover OUT")
BEGUN = ran(SKETCH)
ANOTHER = "holds another run: its "
HAND = "is damaged"

RUNS = {
    "other rank": ("nmf SOURCE OUT --rank 4", 2, ANOTHER + "rank is 3, now asked 4", ran(N)),
    "other seed": (SKETCH + " --seed 1", 2, ANOTHER + "seed is 0, now asked 1", BEGUN),
    "other decomposition": ("svd SOURCE OUT --rank 3", 2, ANOTHER + "decomposition is 'nmf'", ran(N)),
    "other shape": (
        N,
        2,
        "source's shape was [300, 20], now [200, 20]",
        then(BEGUN, another_source(shape=(200, 20))),
        back,
    ),
    "other fill value": (
        N,
        2,
        "source's fill_value was 0.0, now 1.0",
        then(BEGUN, another_source(fill_value=1)),
        back,
    ),
    "other version": (N, 2, "dcf 0 began it", then(BEGUN, record(lambda r: {**r, "version": "0"})), unrecord),
    "torn record": (N, 1, "cannot be opened (JSONDecodeError", then(BEGUN, torn), unrecord),
    "torn record, inspected": ("inspect OUT", 1, "restore its zarr.json", then(BEGUN, torn), unrecord),
    "torn record, overwritten": (N + "--overwrite", 1, "cannot be opened", then(BEGUN, torn)),
    "record a list": (N, 2, "no run of dcf", then(BEGUN, record(lambda r: [r])), unrecord),
    "record empty": (N, 1, HAND, then(BEGUN, record(lambda r: {})), unrecord),
    "record empty, inspected": ("inspect OUT", 1, HAND, then(BEGUN, record(lambda r: {})), unrecord),
    "record empty, staged": ("factorize OUT", 1, HAND, then(BEGUN, record(lambda r: {})), unrecord),
    **{
        f"record without its {key}": (N, 1, HAND, then(BEGUN, record(without(key))), unrecord)
        for key in ("settings", "source", "version", "run", "stage", "seconds", "evidence")
    },
    **{
        f"record without its {key}, staged": (
            "factorize OUT",
            1,
            HAND,
            then(BEGUN, record(without(key))),
            unrecord,
        )
        for key in ("settings", "source", "plan", "run", "stage")
    },
    "finished record without its error": (
        "inspect OUT",
        1,
        HAND,
        then(ran(N), record(without("relative_error", "components"))),
        unrecord,
    ),
    "unknown stage": (N, 1, HAND, then(BEGUN, record(lambda r: {**r, "stage": "dreaming"})), unrecord),
    "stage a number": ("recover OUT", 1, HAND, then(BEGUN, record(lambda r: {**r, "stage": 3}))),
    "unknown setting": (
        "factorize OUT",
        1,
        HAND,
        then(BEGUN, record(lambda r: {**r, "settings": {**r["settings"], "x": 1}})),
        unrecord,
    ),
    "settings a word": (
        "factorize OUT",
        1,
        HAND,
        then(BEGUN, record(lambda r: {**r, "settings": "few"})),
        unrecord,
    ),
    "rank of the record a word": (
        "factorize OUT",
        1,
        HAND,
        then(BEGUN, record(lambda r: {**r, "settings": {**r["settings"], "rank": "few"}})),
        unrecord,
    ),
    "source without a shape": (
        "factorize OUT",
        1,
        HAND,
        then(BEGUN, record(lambda r: {**r, "source": {}})),
        unrecord,
    ),
    "record no JSON object": (
        N,
        1,
        "cannot be opened",
        then(BEGUN, lambda at: (at.out / "zarr.json").write_text("[]")),
    ),
    "link in OUT": (
        N,
        2,
        "holds a symbolic link",
        then(BEGUN, lambda at: (at.out / "W").symlink_to(at.tmp)),
        lambda at: (at.out / "W").unlink(),
    ),
    "factorize on nothing": ("factorize OUT", 2, "holds no run of dcf"),
    "recover too early": ("recover OUT", 2, "has reached sketch; run dcf factorize first", BEGUN),
    "refine too early": ("refine OUT", 2, "has reached sketch; run dcf factorize first", BEGUN),
    "SOURCE gone": ("refine OUT", 2, "does not exist", then(READY, away), back),
    "SOURCE of another shape": (
        "refine OUT",
        2,
        "is not the array that this run began with",
        then(READY, another_source(shape=(200, 20))),
        back,
    ),
    "SOURCE of another dtype": (
        "refine OUT",
        2,
        "is not the array",
        then(READY, another_source(dtype="f8")),
        back,
    ),
    "SOURCE in other chunks": (
        "refine OUT",
        2,
        "is not the array",
        then(READY, another_source(chunks=(50, 20))),
        back,
    ),
    "SOURCE of another fill value": (
        "refine OUT",
        2,
        "is not the array",
        then(READY, another_source(fill_value=np.nan)),
        back,
    ),
    "sketch lost": ("factorize OUT", 1, "has lost its stages/sample; restore it", *lost(BEGUN, "sample")),
    "a chunk of the sketch lost": (
        "factorize OUT",
        1,
        "lost chunks of its stages/sample",
        *lost(BEGUN, "sample/c"),
    ),
    "H lost": ("refine OUT", 1, "has lost its stages/components_0", *lost(READY, "components_0")),
}
