"""A dense W from one pass, and from two, against the in-memory algorithm.

    python benchmarks/one_pass.py [SEEDS]

50 000 x 400 float32, rank 6, W exponential without zeros, 10 % additive noise. Prints the bytes of the range
sketch over those of the data, and the errors (computed from the factors and all data) over that of
`--method full`.
"""

import sys

import numpy as np
import zarr

import dcf

ROWS, COLUMNS, RANK, NOISE = 50_000, 400, 6, 0.1


def main() -> None:
    print("seed   sketch/data   in memory   one pass   two passes")
    for seed in range(int(sys.argv[1]) if len(sys.argv) > 1 else 5):
        generator = np.random.default_rng(seed)
        m = generator.exponential(size=(ROWS, RANK)) @ generator.random((RANK, COLUMNS))
        error = generator.standard_normal(m.shape)
        m = (m + NOISE * np.linalg.norm(m) / np.linalg.norm(error) * error).astype("f4")
        source = zarr.create_array(zarr.storage.MemoryStore(), data=m, chunks=(4096, COLUMNS))
        errors = []
        for method, refine in (("full", 0), ("range", 0), ("range", 1)):
            run = dcf.nmf(source, rank=RANK, method=method, refine=refine, negatives="allow", seed=seed)
            product = np.asarray(run.W[:], "f8") @ run.H[:]
            errors.append(np.linalg.norm(m - product) / np.linalg.norm(m))
        plan = run.attributes["plan"]
        taken = 4 * (plan["rows"] * plan["range_size"] + plan["corange_size"] * plan["width"])
        print(
            f"{seed:>4}   {taken / m.nbytes:>11.4f}   {errors[0]:>9.5f}   {errors[1] / errors[0]:>7.3f} x"
            f"   {errors[2] / errors[0]:>9.5f} x",
            flush=True,
        )


if __name__ == "__main__":
    main()
