"""Compressed factorization from the sketch alone: planted sparse W, no refine pass.

    python benchmarks/sparse_recovery.py [SEEDS]

W has k nonzeros (0.2 + Exp(1)) a column, H is uniform, r = 10, p = 5, float64, noise Gaussian: added to
the product, or times it. Prints, per setting and seed, the median and the worst column error of W
(‖ŵ − w‖ of matched unit columns), the worst support F1, the same error where H is known (the planted H,
the same sketch, least squares, recovery), the seconds; and per setting the median over the seeds of the
figure that it is held to.
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr

import dcf
from dcf.factorization.truncated import column_noise, least_squares_weights
from dcf.metrics import column_errors, support_f1
from dcf.recovery.columns import recover_column
from dcf.recovery.reweighted import ReweightedRecovery
from dcf.sketch.projections import SparseBinary

RANK = 10


@dataclass(frozen=True)
class Setting:
    """A planted problem and what it is held to."""

    n: int
    m: int
    k: int
    d: int
    noise: float = 0.0
    kind: str = "added"
    worst: bool = False
    """hold the worst column to `most`, not the median one"""
    most: float = np.inf


SETTINGS = (
    Setting(100_000, 300, 200, 4000, worst=True, most=1e-4),
    Setting(100_000, 300, 200, 4000, 0.05, most=0.006),
    Setting(100_000, 300, 200, 4000, 0.05, "times"),
    Setting(2000, 2000, 100, 400, 0.1, most=0.02),
    Setting(2000, 2000, 140, 400, 0.1, most=0.03),
    Setting(2000, 2000, 180, 800, 0.1, most=0.015),
    Setting(2000, 2000, 40, 200, 0.1, most=0.02),
)


def plant(setting, seed):
    """Return W, H and their product with noise."""
    generator = np.random.default_rng(seed)
    w = np.zeros((setting.n, RANK))
    for column in w.T:
        column[generator.choice(setting.n, setting.k, replace=False)] = 0.2 + generator.exponential(
            size=setting.k
        )
    h = generator.random((RANK, setting.m))
    data = w @ h
    if setting.noise:
        scale = data if setting.kind == "times" else np.sqrt(np.mean(data**2))
        data += setting.noise * scale * generator.standard_normal(data.shape)
    return w, h, data


def knowing_h(setting, seed, w, h, data):
    """Return the column errors of W, recovered from the same sketch by least squares with the planted H."""
    projection = SparseBinary(seed, setting.d, 5)
    sketch = np.zeros((setting.d, setting.m))
    projection.accumulate(data, 0, sketch)
    weights = least_squares_weights(sketch, h)
    freedom = (setting.d - RANK) * (setting.m - RANK)
    noises = column_noise(float(np.linalg.norm(sketch - weights @ h) / np.sqrt(freedom)), h)
    solved = [
        recover_column(ReweightedRecovery(noise), projection, setting.n, np.ascontiguousarray(target)).values
        for noise, target in zip(noises, weights.T, strict=True)
    ]
    return column_errors(np.stack(solved, axis=1), w)


def main() -> None:
    for setting in SETTINGS:
        print(f"\n{setting}\nseed     median      worst   worst F1   knowing H   factorize, recover (s)")
        held = []
        for seed in range(int(sys.argv[1]) if len(sys.argv) > 1 else 5):
            w, h, data = plant(setting, seed)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "m.zarr"
                zarr.create_array(path, data=data, chunks=(min(8192, setting.n), setting.m))
                result = dcf.nmf(
                    path,
                    rank=RANK,
                    method="factorize-recover",
                    refine=0,
                    sketch_size=setting.d,
                    negatives="allow",
                    axis=0,
                    seed=seed,
                )
            errors, seconds = column_errors(result.W, w), result.attributes["seconds"]
            oracle = knowing_h(setting, seed, w, h, data)
            held.append(errors.max() if setting.worst else np.median(errors))
            print(
                f"{seed:>4}   {np.median(errors):>8.1e}   {errors.max():>8.1e}"
                f"   {support_f1(result.W, w).min():>8.4f}"
                f"   {oracle.max() if setting.worst else np.median(oracle):>9.1e}"
                f"   {seconds['factorize']:>10.1f}, {seconds['recover']:.1f}",
                flush=True,
            )
        print(f"median over the seeds {np.median(held):.2e}, held to {setting.most}")


if __name__ == "__main__":
    main()
