"""Measured peak memory over the planner's prediction, for several layouts of the source.

    python benchmarks/baseline_memory.py

The first line is a worker process that has done nothing, and the driver beside it.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from dcf.cluster import connect, peak_memory
from dcf.datasets import planted_nmf
from dcf.storage.run import RunGroup

LAYOUTS = [
    ((600_000, 200), (10_000, 200)),
    ((200_000, 500), (1000, 500)),
    ((100_000, 1000), (20_000, 1000)),
    ((60_000, 2000), (4096, 1024)),
    ((40_000, 5000), (2048, 512)),
    ((2000, 100_000), (512, 2048)),
]


def main() -> None:
    with connect(1, in_process=False) as workers:
        idle = max(workers.peaks().values())
    print(f"idle worker {idle / 2**20:.0f} MiB, driver {peak_memory() / 2**20:.0f} MiB")
    print("shape               chunks            worker MiB  planned  ratio   driver MiB  planned  ratio")
    for shape, chunks in LAYOUTS:
        with tempfile.TemporaryDirectory() as folder:
            source, out = Path(folder) / "m.zarr", Path(folder) / "o.zarr"
            planted_nmf(source, shape, 5, chunks=chunks)
            words = ["nmf", str(source), str(out), "--rank", "5", "--workers", "2", "--memory", "4GiB"]
            subprocess.run([sys.executable, "-m", "dcf", *words], capture_output=True, check=True)
            record = RunGroup.open(str(out), mode="r").record
        peak, plan = record["peak_memory"], record["plan"]
        pairs = [(peak["worker"], plan["worker_bytes"]), (peak["driver"], plan["driver_bytes"])]
        figures = [f"{a / 2**20:>10.0f}  {b / 2**20:>7.0f}  {a / b:>5.2f}" for a, b in pairs]
        print(f"{shape!s:<18}  {chunks!s:<16}  {figures[0]}   {figures[1]}", flush=True)


if __name__ == "__main__":
    main()
