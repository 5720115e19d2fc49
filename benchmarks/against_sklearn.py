"""dcf against scikit-learn in memory: 200 000 x 2000 float32, rank 10, W 20 % dense, 1 % noise.

    python benchmarks/against_sklearn.py [SEED ...]

scikit-learn's time depends on how soon its stopping rule fires, which changes with the data: several
seeds tell more than one. Prints the seconds of the second run of the command (its start included),
the peak of the process tree (sum of proportional set sizes), both errors and both ratios. Takes 2 GB
of disk and 6 GB of memory, nearly all of it scikit-learn's.
"""

import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import psutil
import zarr
from sklearn.decomposition import NMF

from dcf.datasets import planted_nmf
from dcf.storage.run import RunGroup


def proportional_size(driver: psutil.Process) -> int:
    total = 0
    for process in [driver, *driver.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def run_dcf(source: Path, out: Path, watch: bool) -> tuple[float, int]:
    words = ["nmf", str(source), str(out), "--rank", "10", "--workers", "2", "--memory", "512MiB"]
    start, peak = time.perf_counter(), 0
    run = subprocess.Popen(
        [sys.executable, "-m", "dcf", *words, "--overwrite"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    driver = psutil.Process(run.pid)
    while run.poll() is None:
        peak = max(peak, proportional_size(driver)) if watch else 0
        time.sleep(0.1 if watch else 0.01)
    if run.returncode:
        raise SystemExit(f"dcf ended with {run.returncode}")
    return time.perf_counter() - start, peak


def main() -> None:
    warnings.simplefilter("ignore")  # that it has not converged is what tol=0 means
    for seed in [int(word) for word in sys.argv[1:]] or [0]:
        compare(seed)


def compare(seed: int) -> None:
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "m.zarr", Path(folder) / "o.zarr"
        planted = planted_nmf(source, (200_000, 2000), 10, seed=seed)
        print(f"noise floor {planted.noise_floor:.6f}", flush=True)
        seconds, peak = run_dcf(source, out, watch=True)  # watching takes time of its own
        print(f"dcf, first run: {seconds:.1f} s, process tree {peak / 1e9:.2f} GB", flush=True)
        seconds, _ = run_dcf(source, out, watch=False)
        print(f"dcf, second run: {seconds:.1f} s", flush=True)
        record = RunGroup.open(str(out), mode="r").record
        error = record["relative_error"]["value"]
        print(f"dcf: error {error:.6f}, {record['passes']} passes, stages {record['seconds']}", flush=True)
        m = zarr.open_array(source, mode="r")[:]
        for tol in (1e-4, 0.0):  # its default, which stops early, and all of its 200 iterations
            start = time.perf_counter()
            model = NMF(10, init="nndsvda", max_iter=200, tol=tol).fit(m)
            theirs = time.perf_counter() - start
            their_error = model.reconstruction_err_ / float(np.linalg.norm(m))
            print(
                f"scikit-learn, tol={tol}: {theirs:.1f} s, error {their_error:.6f},"
                f" {model.n_iter_} iterations;"
                f" dcf is {theirs / seconds:.1f} times sooner, error ratio {error / their_error:.5f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
