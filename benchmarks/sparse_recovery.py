"""Compressed factorization from the sketch alone: planted sparse W, no refine pass.

    python benchmarks/sparse_recovery.py [SEEDS]

n = 100 000, 200 nonzeros (0.2 + Exp(1)) a column, d = 4000, m = 300, r = 10, float64, no noise.
Prints, per seed, the worst support F1 and the worst column error of W, and the worst error of the
recovery from the exact W̃.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import zarr

import dcf
from dcf.metrics import column_errors, support_f1
from dcf.recovery.columns import recover_column
from dcf.recovery.nnls import NonnegativeRecovery
from dcf.sketch.projections import SparseBinary


def main() -> None:
    n, k, rank, m, d = 100_000, 200, 10, 300, 4000
    print("seed   worst F1   worst column error   from the exact sketch   seconds: factorize, recover")
    for seed in range(int(sys.argv[1]) if len(sys.argv) > 1 else 5):
        generator = np.random.default_rng(seed)
        w = np.zeros((n, rank))
        for column in w.T:
            column[generator.choice(n, k, replace=False)] = 0.2 + generator.exponential(size=k)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "m.zarr"
            zarr.create_array(path, data=w @ generator.random((rank, m)), chunks=(8192, m))
            result = dcf.nmf(path, rank=rank, method="factorize-recover", refine=0, sketch_size=d, seed=seed)
        projection = SparseBinary(seed, d, 5)
        sketch = np.zeros((d, rank))
        projection.accumulate(w, 0, sketch)
        exact = max(
            float(
                np.linalg.norm(
                    recover_column(NonnegativeRecovery(), projection, n, sketch[:, j].copy()).values - w[:, j]
                )
                / np.linalg.norm(w[:, j])
            )
            for j in range(rank)
        )
        seconds = result.attributes["seconds"]
        print(
            f"{seed:>4}   {support_f1(result.W, w).min():>8.4f}   {column_errors(result.W, w).max():>18.1e}"
            f"   {exact:>21.1e}   {seconds['factorize']:.1f}, {seconds['recover']:.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
