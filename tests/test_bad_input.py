"""Whatever a user may get wrong ends in one sentence, its exit code, and an OUT that nothing was lost of."""

import os
import shutil
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


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """The planted data, a place where all tests work in turn, and the runs that they left to the others."""
    folder = tmp_path_factory.mktemp("bad")
    store(folder / "planted" / "s.zarr", MATRIX, (100, 10))
    store(folder / "planted" / "t.zarr", TENSOR, (10, 4, 3))
    return SimpleNamespace(planted=folder / "planted", place=folder / "place", runs=folder / "runs", of=[])


@pytest.fixture
def at(kept, monkeypatch):
    """A planted matrix, a planted tensor, a place for OUT, and `dcf` on words that name them."""
    shutil.rmtree(kept.place, ignore_errors=True)
    shutil.copytree(kept.planted, kept.place)
    monkeypatch.chdir(kept.place)
    monkeypatch.setattr(remote, "_SECONDS_BETWEEN_TRIES", (0.0,))
    # How much of shared libraries is resident differs between machines; rows on memory do not count on it.
    monkeypatch.setattr(dcf_api, "uncounted_code", lambda: 0)
    at = SimpleNamespace(tmp=kept.place, source=kept.place / "s.zarr", tensor=kept.place / "t.zarr")
    at.out = kept.place / "out.zarr"

    def run(words, expect=0):
        words = words.split() if isinstance(words, str) else words
        for name in ("SOURCE", "TENSOR", "OUT"):
            words = [word.replace(name, str(getattr(at, name.lower()))) for word in words]
        return dcf(*words, expect=expect)

    def ran(commands):
        """Put the run at OUT that these commands leave, which are carried out once."""
        if commands not in kept.of:
            for words in commands:
                run(words)
            shutil.copytree(at.out, kept.runs / str(len(kept.of)))
            kept.of.append(commands)
        else:
            shutil.copytree(kept.runs / str(kept.of.index(commands)), at.out)

    at.dcf, at.ran = run, ran
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
