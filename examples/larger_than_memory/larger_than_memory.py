"""Factorize a matrix several times larger than the memory that is allowed.

Plants a 1 GB matrix of known components, lets two workers of 448 MiB each factorize it, and
compares the components with the planted ones.

    python examples/larger_than_memory/larger_than_memory.py [GIGABYTES]
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

import dcf
from dcf.datasets import planted_nmf
from dcf.metrics import match


def main() -> None:
    """Plant, factorize within a budget, compare."""
    gigabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    rows, columns, rank, memory = int(gigabytes * 1e9 / 4000), 1000, 8, "448MiB"
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "matrix.zarr", Path(folder) / "factors.zarr"
        planted = planted_nmf(source, (rows, columns), rank, noise=0.05)
        result = dcf.nmf(source, rank=rank, out=out, memory=memory, workers=2)
        print(f"{rows} x {columns} float32, {rows * columns * 4 / 1e9:.1f} GB, budget {memory} a worker")
        peaks = result.attributes["peak_memory"]["workers"].values()
        print("peak memory of the workers:", ", ".join(f"{peak / 2**20:.0f} MiB" for peak in peaks))
        error = result.relative_error
        print(f"relative error {error.value:.5f} ({error.kind}), noise floor {planted.noise_floor:.5f}")
        cosines = match(np.asarray(result.H[:]).T, planted.components.T)[1]
        print(f"worst cosine of a component with the planted one: {cosines.min():.4f}")
        # W stays on disk, in chunks: read what is needed.
        print("first rows of W:", np.array2string(result.W[:2], precision=5), sep="\n")


if __name__ == "__main__":
    main()
