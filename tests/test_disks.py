"""Disks that fill up or go away while a run is going: a sentence, and nothing lost."""

import os
import subprocess
import sys
import time

import pytest
from commandline import dcf as command
from conftest import plant, store
from counting import open_counted, reads
from test_runs import bits

import dcf
from dcf.storage.journal import BlockJournal


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 32 MB, which takes root to make."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if made.returncode:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("a small disk needs root: mount -t tmpfs")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def at_block(monkeypatch):
    """Let something happen just before a block of that number is saved: at_block(number, happening)."""
    save = BlockJournal.save

    def arrange(number, happening):
        count = iter(range(10_000))

        def saving(self, *what):
            if next(count) == number:
                happening()
            save(self, *what)

        monkeypatch.setattr(BlockJournal, "save", saving)

    yield arrange
    monkeypatch.setattr(BlockJournal, "save", save)


def fill(place):
    """Leave no byte free."""
    with (place / "filler").open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                pass


OPTIONS = {"rank": 4, "sketch_size": 50, "refine": 2}


@pytest.mark.parametrize("number", [0, 3, 7, 13])
def test_a_full_disk(tmp_path, small_disk, small_blocks, at_block, nmf, number):
    store(tmp_path / "s.zarr", plant()[0])
    expected = bits(nmf(tmp_path / "s.zarr", **OPTIONS))
    array, out = open_counted(tmp_path / "s.zarr", tmp_path / "log"), small_disk / "o.zarr"
    at_block(number, lambda: fill(small_disk))
    with pytest.raises(dcf.RunError, match=r"cannot be written \(No space left on device.*make room"):
        dcf.nmf(array, out=out, workers=1, **OPTIONS)
    before = len(reads(tmp_path / "log"))
    (small_disk / "filler").unlink()
    assert bits(nmf(array, out=out, workers=1, **OPTIONS)) == expected
    # Three passes over ten chunks, and once more the block that could not be saved.
    assert before <= len(reads(tmp_path / "log")) <= 3 * 10 + 2


def test_a_full_disk_on_the_command_line(tmp_path, small_disk, small_blocks, at_block, conforms):
    store(tmp_path / "s.zarr", plant()[0])
    words = ["nmf", tmp_path / "s.zarr", small_disk / "o.zarr", "--rank", 4, "--sketch-size", 50]
    at_block(6, lambda: fill(small_disk))
    said = command(*words, expect=1)[1]
    assert "No space left on device" in said
    assert "the same command resumes" in said
    (small_disk / "filler").unlink()
    command(*words)
    conforms(small_disk / "o.zarr", tmp_path / "s.zarr")


def test_a_disk_too_small_from_the_start(tmp_path, small_disk):
    store(tmp_path / "s.zarr", plant()[0])
    fill(small_disk)
    said = command("nmf", tmp_path / "s.zarr", small_disk / "o.zarr", "--rank", 4, expect=1)[1]
    assert "are free there: make room" in said
    assert not (small_disk / "o.zarr").exists()


@pytest.mark.parametrize("which", ["s.zarr", "o.zarr"])
@pytest.mark.parametrize("number", [2, 8])
def test_a_store_that_goes_away(tmp_path, small_blocks, at_block, nmf, which, number):
    store(tmp_path / "s.zarr", plant()[0])
    expected = bits(nmf(tmp_path / "s.zarr", **OPTIONS))
    place = tmp_path / which
    at_block(number, lambda: place.rename(tmp_path / "away"))
    with pytest.raises(dcf.RunError, match=r"has vanished.*the same command resumes"):
        dcf.nmf(tmp_path / "s.zarr", out=tmp_path / "o.zarr", workers=1, **OPTIONS)
    assert not place.exists()
    (tmp_path / "away").rename(place)
    assert bits(nmf(tmp_path / "s.zarr", out=tmp_path / "o.zarr", workers=1, **OPTIONS)) == expected


@pytest.mark.slow
def test_a_disk_that_fills_under_worker_processes(tmp_path, small_disk, conforms):
    """Real worker processes, a real full disk, the command as a user has it."""
    store(tmp_path / "s.zarr", plant(60_000, 100)[0], chunks=(1000, 100))
    program = (
        "import dcf.api, dcf.plan; from dcf.cli.main import run; dcf.api.SMALL_SOURCE_BYTES = 0;"
        "dcf.plan.BLOCK_BYTES = 1; dcf.plan.READ_PER_JOURNAL_BYTE = 0; dcf.plan.MOST_BLOCKS = 64; run()"
    )
    out = small_disk / "o.zarr"
    words = ["nmf", tmp_path / "s.zarr", out, "--rank", 3, "--sketch-size", 30, "--refine", 3, "--workers", 2]
    words = [sys.executable, "-c", program, *map(str, words)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as going:
        while not (out / "stages" / "sketch" / "done" / "c").exists():
            assert going.poll() is None, going.stderr.read()
            time.sleep(0.01)
        fill(small_disk)
        said = going.stderr.read()
    assert going.returncode == 1, said
    assert "No space left on device" in said
    assert "Traceback" not in said
    (small_disk / "filler").unlink()
    resumed = subprocess.run(words, capture_output=True, text=True, check=False)
    assert resumed.returncode == 0, resumed.stderr
    conforms(out, tmp_path / "s.zarr")
