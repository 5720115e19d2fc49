"""The law of resuming, over random layouts: stopped anywhere, resumed with any resources, the same bits."""

import shutil
from collections import Counter
from pathlib import Path

import dask
import numpy as np
import pytest
import zarr
from conftest import plant, plant_tensor
from counting import open_counted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_runs import Stop

import dcf
from dcf.storage.journal import BlockJournal
from dcf.storage.run import RunGroup

VERBS = {"nmf": dcf.nmf, "cp": dcf.cp, "svd": dcf.svd, "semi-nmf": dcf.semi_nmf}


@st.composite
def runs(draw):
    """Data in some layout, a decomposition of it, and where it is to be stopped, twice."""
    verb = draw(st.sampled_from(sorted(VERBS)))
    shape = (draw(st.integers(60, 400)), draw(st.integers(5, 20)))
    if verb == "cp":
        shape = (*shape, draw(st.integers(3, 8)))
    order = draw(st.permutations(range(len(shape))))
    chunks = [draw(st.integers(1 if k else 8, n + 3)) for k, n in enumerate(shape)]
    shards = [c * draw(st.integers(1, 3)) for c in chunks] if draw(st.booleans()) else None
    data = plant_tensor(shape, 2)[0] if verb == "cp" else plant(*shape, 2)[0]
    dtype = draw(st.sampled_from(["f4", "f8", "f2", "u1", "i4", "?"]))
    data = data > 0.3 if dtype == "?" else (data * (1 if dtype[0] == "f" else 20)).clip(0, 250).astype(dtype)
    options = {"rank": 2, "refine": draw(st.integers(0, 2)), "max_iter": 30, "axis": str(order.index(0))}
    if verb == "nmf" and draw(st.booleans()):
        options |= {"method": "factorize-recover", "sketch_size": 40}
    layout = {
        "chunks": tuple(chunks[i] for i in order),
        "shards": tuple(shards[i] for i in order) if shards else None,
        "compressors": draw(st.sampled_from(["auto", None])),
    }
    stops = draw(st.lists(st.integers(0, 12), min_size=1, max_size=2))
    return verb, np.ascontiguousarray(data.transpose(order)), layout, options, stops, draw(st.booleans())


def bits(out):
    return {name: array[:].tobytes() for name, array in zarr.open_group(out, mode="r").arrays()}


@pytest.mark.slow
@given(runs())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_stopped_anywhere_and_resumed(tmp_path, small_blocks, run):
    verb, data, layout, options, stops, torn = run
    place = tmp_path / "example"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    zarr.create_array(place / "s.zarr", data=data, **layout)
    act, axis = VERBS[verb], int(options["axis"])
    with dask.config.set(scheduler="synchronous"):
        act(place / "s.zarr", out=place / "whole", workers=1, **options)
    source, save = open_counted(place / "s.zarr", place / "log"), BlockJournal.save
    saved, limit = [], [0]  # (pass, block) in the order of their saving, and how many may be

    def recording(self, block, arrays, rows=None):
        if torn and len(saved) == limit[0]:  # all but the mark
            save(self, block, arrays, rows)
            shutil.rmtree(Path(place / "out" / self.group.path / "done" / "c" / str(block.index)), True)
            (place / "out" / self.group.path / "done" / "c" / str(block.index)).unlink(missing_ok=True)
            raise Stop
        if len(saved) == limit[0]:
            raise Stop
        save(self, block, arrays, rows)
        saved.append((self.group.path, block.index))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BlockJournal, "save", recording)
        for turn, stop in enumerate([*stops, 10_000]):
            limit[0] = stop
            scheduler = "synchronous" if turn < len(stops) else "threads"
            with dask.config.set(scheduler=scheduler):
                try:
                    act(source, out=place / "out", workers=1 + turn, memory=f"{2 + turn}GiB", **options)
                except Stop:
                    continue
    assert bits(place / "out") == bits(place / "whole")
    assert len(saved) == len(set(saved))  # no block of a pass was done twice
    record = RunGroup.open(str(place / "out"), mode="r").record
    assert record["stage"] == "done"
    reads = Counter((place / "log").read_text().split())
    sides = [-(-n // c) for n, c in zip(data.shape, layout["shards"] or layout["chunks"], strict=True)]
    stored = (layout["shards"] or layout["chunks"])[axis]
    layers = max(record["plan"][f"{kind}_block_rows"] for kind in ("sketch", "refine")) // stored
    blocks = 1 + record["plan"]["saves_behind"]  # one is being saved, one being read
    in_hand = len(stops) * blocks * layers * np.prod(sides) / sides[axis]
    if layout["shards"] is None:  # of a shard, parts are read one by one
        assert sum(reads.values()) <= (1 + options["refine"]) * np.prod(sides) + in_hand
