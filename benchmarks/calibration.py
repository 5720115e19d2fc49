"""Whether the 95 % interval of a one-pass error holds the exact error in 95 % of runs.

    python benchmarks/calibration.py [RUNS]

Planted matrices of 4000 x 120, rank 5 asked for and 1, 2 or 3 components more in the data; W dense,
or with 2 % nonzeros; additive noise of 0, 5, 10, 20 or 50 % of the norm. One pass (`--refine 0`): auto,
and factorize-recover by name for a quarter. The exact error is computed from the factors and all data.
"""

import itertools
import sys

import numpy as np
import zarr

import dcf

ROWS, COLUMNS, RANK = 4000, 120, 5


def planted(seed: int, dense: bool, noise: float, missing: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    rank = RANK + missing
    w = generator.exponential(size=(ROWS, rank))
    if not dense:
        w *= generator.random((ROWS, rank)) < 0.02
    exact = w @ generator.random((rank, COLUMNS))
    error = generator.standard_normal(exact.shape)
    return exact + noise * np.linalg.norm(exact) / np.linalg.norm(error) * error


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    cases = itertools.cycle(itertools.product((1, 2, 3), (0.0, 0.05, 0.1, 0.2, 0.5), (True, False)))
    covered: dict[object, list[bool]] = {}
    widths = []
    for seed, (missing, noise, dense) in zip(range(runs), cases, strict=False):
        m = planted(seed, dense, noise, missing)
        method = "factorize-recover" if seed % 4 == 3 else "auto"
        source = zarr.create_array(zarr.storage.MemoryStore(), data=m, chunks=(1000, COLUMNS))
        result = dcf.nmf(source, rank=RANK, method=method, refine=0, negatives="allow", seed=seed)
        low, high = result.relative_error.interval
        true = np.linalg.norm(m - result.W @ result.H) / np.linalg.norm(m)
        widths.append((high - low) / true)
        for key in (
            "all",
            "dense W" if dense else "sparse W",
            f"noise {noise}",
            f"{missing} missing",
            method,
        ):
            covered.setdefault(key, []).append(low <= true <= high)
    print(f"{'':<20} {'runs':>5} {'held':>5}")
    for key, hits in covered.items():
        print(f"{key!s:<20} {len(hits):>5} {sum(hits):>5}")
    print(f"width of the interval over the error: median {np.median(widths):.3f}, largest {max(widths):.3f}")


if __name__ == "__main__":
    main()
