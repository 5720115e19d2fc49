"""The memory promise at scale: NMF of planted data within 1 GiB, and of a quarter of the rows.

    python benchmarks/memory.py [--size 16GB]

Data and result lie in a temporary directory, a fourth of the data at first, and are deleted at the end. The
peaks are resident bytes of whole processes; code of shared libraries counts in each.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dask.utils import parse_bytes

from dcf.datasets import planted_nmf
from dcf.storage.run import RunGroup

COLUMNS, CHUNKS = 2000, (4096, 1000)
MIB = 2**20


def run(folder: Path, rows: int) -> tuple[float, dict[str, int], dict[str, int]]:
    """Plant so many rows, factorize them; return the seconds, the measured peaks and the predicted ones."""
    source, out = folder / "m.zarr", folder / "o.zarr"
    planted_nmf(source, (rows, COLUMNS), 10, chunks=CHUNKS)
    words = ["nmf", str(source), str(out), "--rank", "10", "--memory", "1GiB", "--workers", "2"]
    start = time.perf_counter()
    # A process of its own, so that the driver's peak is that of the run alone.
    subprocess.run([sys.executable, "-m", "dcf", *words], check=True, capture_output=True)
    seconds = time.perf_counter() - start
    record = RunGroup.open(str(out), mode="r").record
    plan = record["plan"]
    return seconds, record["peak_memory"], {"worker": plan["worker_bytes"], "driver": plan["driver_bytes"]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", default="16GB", help="bytes of the data")
    rows = parse_bytes(parser.parse_args().size) // (4 * COLUMNS)
    peaks = []
    for part in (rows // 4, rows):
        with tempfile.TemporaryDirectory() as folder:
            seconds, peak, planned = run(Path(folder), part)
        peaks.append(peak)
        print(f"{part} x {COLUMNS} float32, {part * COLUMNS * 4 / 1e9:.2f} GB: completed in {seconds:.1f} s")
        for who, size in peak["workers"].items():
            print(f"  worker {who}: {size / MIB:.0f} of {planned['worker'] / MIB:.0f} MiB planned")
        print(
            f"  driver: {peak['driver'] / MIB:.0f} of {planned['driver'] / MIB:.0f} MiB planned", flush=True
        )
    small, large = peaks
    ratio, growth = large["worker"] / planned["worker"], large["driver"] / small["driver"]
    checks = [
        (f"peak of a worker over the predicted one {ratio:.2f} (0.5 to 1.0)", 0.5 <= ratio <= 1.0),
        (f"peak of the driver {large['driver'] / 1e6:.0f} MB (under 600 MB)", large["driver"] < 600e6),
        (f"driver at four times the rows {growth:.2f} x (at most 1.1)", growth <= 1.1),
    ]
    for sentence, holds in checks:
        print(f"{'ok    ' if holds else 'FAILED'} {sentence}")
    sys.exit(not all(holds for _, holds in checks))


if __name__ == "__main__":
    main()
