"""Whatever a user may get wrong ends in one sentence, its exit code, and an OUT that nothing was lost of."""

import os
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import bad_data
import bad_input
import bad_runs
import pytest
from commandline import dcf
from conftest import plant, plant_tensor, store

from dcf import api as dcf_api
from dcf.storage import remote
from dcf.storage.run import RunGroup

ROWS = {
    f"{table.lower()}: {name}": row
    for tables, names in (
        (bad_input, ("OPTIONS", "MEMORY", "SOURCES", "OUTS")),
        (bad_runs, ("RUNS",)),
        (bad_data, ("ENTRIES", "KINDS", "CHUNKS", "METADATA")),
    )
    for table in names
    for name, row in getattr(tables, table).items()
}
MATRIX, TENSOR = plant(300, 20, 3)[0], plant_tensor((30, 8, 6), 2)[0]


@pytest.fixture
def at(tmp_path, monkeypatch):
    """A planted matrix, a planted tensor, a place for OUT, and `dcf` on words that name them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(remote, "_SECONDS_BETWEEN_TRIES", (0.0,))
    # How much of shared libraries is resident differs between machines, and the rows on memory would with it.
    monkeypatch.setattr(dcf_api, "uncounted_code", lambda: 0)
    at = SimpleNamespace(tmp=tmp_path, source=tmp_path / "s.zarr", tensor=tmp_path / "t.zarr")
    at.out = tmp_path / "out.zarr"
    store(at.source, MATRIX, (100, 10))
    store(at.tensor, TENSOR, (10, 4, 3))

    def run(words, expect=0):
        words = words.split() if isinstance(words, str) else words
        for name in ("SOURCE", "TENSOR", "OUT"):
            words = [word.replace(name, str(getattr(at, name.lower()))) for word in words]
        return dcf(*words, expect=expect)

    at.dcf = run
    with ExitStack() as at.stack:
        yield at


def content(path):
    """What lies in a folder: every file, link and folder."""
    found = {}
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            place = os.path.join(folder, name)
            plain = os.path.isfile(place) and not os.path.islink(place)
            found[place] = Path(place).read_bytes() if plain else os.lstat(place).st_mode
    return found


@pytest.mark.parametrize("name", ROWS)
def test_a_bad_input_is_one_sentence(at, conforms, name):
    words, code, says, spoil, mend = (*ROWS[name], None, None)[:5]
    if spoil:
        spoil(at)
    before = content(at.tmp) if mend is None else None
    printed, error = at.dcf(words, expect=code)
    sentences = [line for line in error.splitlines() if line.startswith(("dcf: ", "Error: "))]
    assert len(sentences) == 1, error
    assert error.splitlines()[-1] == sentences[0]
    assert says in sentences[0]
    assert not printed
    if mend is None:
        assert content(at.tmp) == before
        return
    mend(at)
    at.dcf(words)
    if RunGroup.open(str(at.out)).record["stage"] == "done":
        conforms(at.out, at.tensor if words[:2] == "cp" else at.source)
