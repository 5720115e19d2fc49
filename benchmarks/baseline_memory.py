"""Measured peak memory over the planner's prediction: NMF of several layouts, then the other decompositions.

    python benchmarks/baseline_memory.py

The first line is a worker process that has done nothing, and the driver beside it.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from dcf.cluster.connect import connect
from dcf.cluster.resident import peak_memory
from dcf.datasets import planted_cp, planted_nmf
from dcf.storage.run import RunGroup

LAYOUTS = [
    ((600_000, 200), (10_000, 200)),
    ((200_000, 500), (1000, 500)),
    ((100_000, 1000), (20_000, 1000)),
    ((60_000, 2000), (4096, 1024)),
    ((40_000, 5000), (2048, 512)),
    ((2000, 100_000), (512, 2048)),
]


# Of a matrix of 240 MB, or of a tensor: two passes, and one alone.
OTHERS = [
    ("spca", (100_000, 600)),
    ("semi-nmf", (100_000, 600)),
    ("svd --center columns", (100_000, 600)),
    ("svd --center rows --refine 0", (100_000, 600)),
    ("nmf --refine 0", (100_000, 600)),
    ("cp", (100_000, 30, 20)),
    ("cp --refine 0", (100_000, 30, 20)),
]


def measure(verb: str, source: Path, out: Path) -> str:
    """Run a decomposition of rank 5 on two workers; return its peaks beside the plan's."""
    words = [*verb.split(), str(source), str(out), "--rank", "5", "--workers", "2", "--memory", "4GiB"]
    subprocess.run([sys.executable, "-m", "dcf", *words], capture_output=True, check=True)
    record = RunGroup.open(str(out), mode="r").record
    peak, plan = record["peak_memory"], record["plan"]
    pairs = [(peak["worker"], plan["worker_bytes"]), (peak["driver"], plan["driver_bytes"])]
    return "   ".join(f"{a / 2**20:>10.0f}  {b / 2**20:>7.0f}  {a / b:>5.2f}" for a, b in pairs)


def main() -> None:
    with connect(1, in_process=False) as workers:
        idle = max(workers.peaks().values())
    print(f"idle worker {idle / 2**20:.0f} MiB, driver {peak_memory() / 2**20:.0f} MiB")
    print(f"{'':<36}  worker MiB  planned  ratio   driver MiB  planned  ratio")
    for shape, chunks in LAYOUTS:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "m.zarr"
            planted_nmf(source, shape, 5, chunks=chunks)
            print(
                f"{f'{shape}, chunks {chunks}':<36}  {measure('nmf', source, Path(folder) / 'o.zarr')}",
                flush=True,
            )
    for verb, shape in OTHERS:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "m.zarr"
            if len(shape) == 2:
                planted_nmf(source, shape, 5, density=0.02)
            else:
                planted_cp(source, shape, 5)
            print(f"{f'{verb}, {shape}':<36}  {measure(verb, source, Path(folder) / 'o.zarr')}", flush=True)


if __name__ == "__main__":
    main()
