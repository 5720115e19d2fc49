"""Metadata that lie, or were torn, end in an array or in a sentence: no other error, no flood of memory."""

import json
import re
import tracemalloc

import numpy as np
import pytest
from conftest import store
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_integrity import STORED, M, store_v3_of_numcodecs

from dcf.api import plan_run
from dcf.errors import DcfError, SourceError
from dcf.settings import Settings
from dcf.storage.source import ArraySource, describe, layout_of, open_source


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"shape": [2**62, 2**62]}, "claims"),
        ({"shape": [2**30, 2**30]}, "claims"),
        ({"chunks": [2**20, 2**20]}, "claims chunks of 4398046511104 bytes"),
        ({"chunks": [-1, 32]}, "cannot be opened|which no array has"),
        ({"shape": [-5, 32]}, "cannot be opened|which no array has"),
    ],
    ids=str,
)
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_absurd_sizes_are_refused(tmp_path, zarr_format, change, says):
    path = tmp_path / "a.zarr"
    store(path, M, chunks=(64, 32), zarr_format=zarr_format)
    file = path / ("zarr.json" if zarr_format == 3 else ".zarray")
    record = json.loads(file.read_text())
    if zarr_format == 3 and "chunks" in change:
        record["chunk_grid"]["configuration"]["chunk_shape"] = change["chunks"]
    else:
        record.update(change)
    file.write_text(json.dumps(record))
    with pytest.raises(DcfError, match=says):
        open_source(path)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_chunk_has_entries(tmp_path, zarr_format):
    path = tmp_path / "a.zarr"
    store(path, M, chunks=(64, 32), zarr_format=zarr_format)
    file = path / ("zarr.json" if zarr_format == 3 else ".zarray")
    file.write_text(re.sub(r"\b64\b", "0", file.read_text()))
    try:
        chunks = open_source(path).chunks  # some versions of Zarr mend it
    except SourceError:
        return
    assert min(chunks) > 0


def places(record, path=()):
    """Every place in a JSON document, as the keys that lead there."""
    items = (
        record.items() if isinstance(record, dict) else enumerate(record) if isinstance(record, list) else ()
    )
    yield path
    for key, value in items:
        yield from places(value, (*path, key))


NUMBERS = st.integers(-(2**64), 2**64) | st.sampled_from([0, 1, -1, 2**31, 2**53, 2**62, 10**400])
WORDS = st.sampled_from(
    "zstd gzip blosc pickle numcodecs.zstd bytes sharding_indexed float64 <f8 |O NaN Infinity 0x7fc00000 big"
    " C F v2 default regular <U9999999 uint8 |b1".split()
)
SCALARS = st.none() | st.booleans() | NUMBERS | st.floats() | WORDS | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
) | st.just("DEEP")


@st.composite
def mutated(draw, text):
    """The text of a metadata document, changed in one to three places, or torn."""
    if draw(st.integers(0, 9)) == 0:
        where = draw(st.integers(0, len(text)))
        return text[:where] + draw(st.binary(max_size=20)) + text[where + draw(st.integers(0, 40)) :]
    record = json.loads(text)
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from([p for p in places(record) if p]))
        part = record
        for key in way:
            part = part[key]
        act = draw(st.sampled_from(["replace", "replace", "delete", "insert"]))
        if act == "delete":
            del part[last]
        elif act == "insert" and isinstance(part, list):
            part.insert(last, draw(VALUES))
        else:
            part[last if act == "replace" else draw(WORDS)] = draw(VALUES)
    depth = draw(st.sampled_from([10, 500, 100_000]))
    return json.dumps(record).replace('"DEEP"', "[" * depth + "]" * depth).encode()


BASES = [
    "blosc-lz4",
    "shards of blosc-lz4 + crc32c",
    "none",
    "v2 blosc-lz4",
    "v2 filters",
    "v2 filters alone",
]


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Small arrays of each kind, and the text of their metadata."""
    folder, found = tmp_path_factory.mktemp("fuzz"), {}
    for name in BASES:
        path = folder / f"{len(found)}.zarr"
        store(path, M, **STORED[name]) if name in STORED else store_v3_of_numcodecs(path)
        file = next(path / n for n in ("zarr.json", ".zarray") if (path / n).exists())
        found[name] = path, file, file.read_bytes()
    return found


@settings(max_examples=600, deadline=5000, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_hostile_metadata_end_in_an_array_or_a_sentence(bases, data):
    path, file, text = bases[data.draw(st.sampled_from(BASES))]
    file.write_bytes(data.draw(mutated(text)))
    tracemalloc.start()
    try:
        plan_run(path, Settings(rank=2))
    except DcfError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 64 << 20
    try:
        array = open_source(path)
    except DcfError:
        return
    layout = layout_of(array)
    json.dumps(describe(array, ""))
    grid = [-(-n // c) for n, c in zip(layout.shape, layout.chunks, strict=True)]
    if layout.nbytes < 10_000_000 and np.prod(grid, dtype=float) < 1000:
        tracemalloc.start()
        try:
            for _, tile in ArraySource(array, 0, layout.shape[0], 16, 2, layout.compute_dtype).tiles(
                0, layout.shape[0], set()
            ):
                assert tile.shape[1] == layout.shape[1]
        except DcfError:
            pass
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 64 << 20
