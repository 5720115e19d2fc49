"""Table 1 of Compressed Factorization (Sharan et al. 2019): what recovery costs, beside the linear program.

    python benchmarks/paper/table1.py [FOLDER] [--shapes 0,1,2] [--limit 300] [--programs 1] [--columns 3]

At the shapes of the paper's three microarrays, r = 10, d = n/5, p = 5, on planted data: W has n/100 nonzeros
(0.2 + Exp(1)) a column, H is uniform, 1 % Gaussian noise. One thread, library calls. Measured a shape:

* sketch-factorize-recover: the sketch, its factorization, the ten columns of W; the worst column error
  ‖ŵ − w‖ of unit columns;
* the ℓ1 program of the paper for a column of either sign, by HiGHS (`--programs` columns, each cut off after
  `--limit` seconds): on the column that the factorization found, and without noise, where P w = w̃ holds;
* the program with w ≥ 0, that is feasible without noise only, beside our solver on such targets;
* recover-factorize: `--columns` columns of M from M̃, times m, and NMF of M, in place of what was recovered.

A program that was cut off counts as the limit, and a ratio with it as a lower bound. Prints the table and the
ratios, and writes them to FOLDER/table1.md, the seconds as a plot to FOLDER/table1.png. The paper's seconds,
from another machine and on its own data, stand beside.
"""

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from dcf.factorization.nmf import HalsNMF
from dcf.factorization.sparsest import SparsestNMF, column_noise
from dcf.metrics import column_errors, match
from dcf.recovery.basis_pursuit import BasisPursuit
from dcf.recovery.checked import CheckedRecovery
from dcf.recovery.nnls import NonnegativeRecovery
from dcf.sketch.projections import SparseBinary
from dcf.solvers.shared import single_blas_thread
from dcf.types import Status

RANK, NNZ, NOISE = 10, 5, 0.01
SHAPES = ((7129, 266), (12_600, 203), (54_675, 435))
# Seconds in the paper's table 1: factorize and recover, of the two ways.
PAPER_FACTORIZE_RECOVER = ((0.6, 5.4), (0.8, 9.3), (6.9, 55.0))
PAPER_RECOVER_FACTORIZE = ((76.1, 2.7), (78.8, 4.0), (878.4, 39.6))


@dataclass
class Solves:
    """Columns that one solver was timed on."""

    seconds: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    cut_off: bool = False

    def add(self, solver, index, value, target, truth):
        """Time one more column."""
        start = time.perf_counter()
        solution = solver.recover(index, value, target)
        elapsed = time.perf_counter() - start
        if isinstance(solver, BasisPursuit) and solution.status is Status.max_iter_reached:
            elapsed, self.cut_off = solver.time_limit, True
        self.seconds.append(elapsed)
        self.errors.append(float(column_errors(solution.values[:, None], truth[:, None])[0]))

    @property
    def each(self):
        """Seconds a column, the median."""
        return float(np.median(self.seconds))

    def told(self, limit):
        """Return what was measured, in words."""
        if self.cut_off:
            return f"over {limit:.0f} s, no column"
        return f"{seconds(self.each)}, error {max(self.errors):.1e}"


@dataclass
class Row:
    """What was measured at one shape."""

    place: int
    sketch: float
    factorize: float
    ours: Solves
    exact: Solves
    signed: Solves
    signed_exact: Solves
    nonnegative: Solves
    every_column: float
    factorize_all: float

    @property
    def shape(self):
        """Rows and columns of M."""
        return SHAPES[self.place]


def seconds(value):
    return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"


def timed(function, *args):
    start = time.perf_counter()
    result = function(*args)
    return result, time.perf_counter() - start


def plant(n, m):
    """Return W (n, r) and W H with noise (n, m)."""
    generator = np.random.default_rng(0)
    w, k = np.zeros((n, RANK)), n // 100
    for column in w.T:
        column[generator.choice(n, k, replace=False)] = 0.2 + generator.exponential(size=k)
    data = w @ generator.random((RANK, m))
    data += NOISE * np.sqrt(np.mean(data**2)) * generator.standard_normal(data.shape)
    return w, data


def compress(projection, data):
    sketch = np.zeros((projection.sketch_size, data.shape[1]))
    projection.accumulate(data, 0, sketch)
    return sketch


def measure(place, programs, limit, columns):
    n, m = SHAPES[place]
    w, data = plant(n, m)
    projection = SparseBinary(0, n // 5, NNZ)
    sketch, sketch_seconds = timed(compress, projection, data)
    result, factorize_seconds = timed(SparsestNMF(RANK).factorize, sketch)
    weights, components = result.factors.weights, result.factors.components
    noises = column_noise(result.noise, components)
    partners, _ = match(weights, compress(projection, w))
    targets = np.ascontiguousarray(weights.T)[partners]
    (index, value), index_seconds = timed(projection.columns, 0, n)

    solves = {name: Solves() for name in ("ours", "exact", "signed", "signed_exact", "nonnegative")}
    for j, truth in enumerate(w.T):
        solver = CheckedRecovery(float(noises[partners[j]]))
        solves["ours"].add(solver, index, value, targets[j], truth)
    solves["ours"].seconds[0] += index_seconds
    exact = np.ascontiguousarray(compress(projection, w).T)
    signed, nonnegative = BasisPursuit(False, limit), BasisPursuit(True, limit)
    for j in range(RANK):
        solves["exact"].add(CheckedRecovery(0.0), index, value, exact[j], w[:, j])
    for j in range(programs):
        solves["nonnegative"].add(nonnegative, index, value, exact[j], w[:, j])
        solves["signed"].add(signed, index, value, targets[j], w[:, j])
        solves["signed_exact"].add(signed, index, value, exact[j], w[:, j])

    every = Solves()
    for j in range(columns):
        column = np.ascontiguousarray(sketch[:, j])
        every.add(NonnegativeRecovery(), index, value, column, data[:, j])
    _, factorize_all = timed(HalsNMF(RANK).factorize, data)
    return Row(place, sketch_seconds, factorize_seconds, **solves, every_column=m * every.each,
               factorize_all=factorize_all)  # fmt: skip


def table(rows, limit):
    """Yield the lines of the table and of the ratios below it."""
    heads = ["", *(f"{n} × {m}" for n, m in (row.shape for row in rows))]
    yield f"| {' | '.join(heads)} |"
    yield f"|{' --- |' * len(heads)}"
    lines = {
        "sketch": lambda r: seconds(r.sketch),
        "factorize": lambda r: seconds(r.factorize),
        "recover ten columns": lambda r: (
            f"{seconds(sum(r.ours.seconds))}, error at most {max(r.ours.errors):.1e}"
        ),
        "signed ℓ1 program, one of these columns": lambda r: r.signed.told(limit),
        "signed ℓ1 program, one column without noise": lambda r: r.signed_exact.told(limit),
        "nonnegative program, one column without noise": lambda r: r.nonnegative.told(limit),
        "ours, such a column": lambda r: r.exact.told(limit),
        "recover-factorize: all m columns (extrapolated) + NMF of M": lambda r: (
            f"{seconds(r.every_column)} + {seconds(r.factorize_all)}"
        ),
        "paper: factorize + recover": lambda r: "{} + {} s".format(*PAPER_FACTORIZE_RECOVER[r.place]),
        "paper: recover + factorize": lambda r: "{} + {} s".format(*PAPER_RECOVER_FACTORIZE[r.place]),
    }
    for name, cell in lines.items():
        yield f"| {name} | {' | '.join(cell(row) for row in rows)} |"
    yield ""
    for row in rows:
        ten, programs, bound = sum(row.ours.seconds), 10 * row.signed.each, at_least(row.signed)
        yield (
            f"{row.shape[0]} × {row.shape[1]}: ten signed programs take {bound}"
            f"{programs / (row.factorize + ten):.0f} × the time of our factorization and ten columns,"
            f" {bound}{programs / ten:.0f} × that of the ten columns,"
            f" on columns without noise"
            f" {at_least(row.signed_exact)}{row.signed_exact.each / row.exact.each:.0f} ×;"
            f" a nonnegative program without noise {at_least(row.nonnegative)}"
            f"{row.nonnegative.each / row.exact.each:.0f} × that of ours;"
            f" recover-factorize {(row.every_column + row.factorize_all) / (row.factorize + ten):.0f} ×"
            " that of factorize-recover."
        )


def at_least(solves):
    return "at least " if solves.cut_off else ""


def plot(rows, path):
    bars = (
        ("sketch and factorize", "", "0.85", lambda r: r.sketch + r.factorize),
        ("recover ten columns", "//", "0.65", lambda r: sum(r.ours.seconds)),
        ("ten signed ℓ1 programs, HiGHS", "xx", "0.95", lambda r: 10 * r.signed.each),
        ("recover-factorize with our recovery", "..", "0.45", lambda r: r.every_column + r.factorize_all),
    )
    paper = (
        ("paper: factorize", "o", 0, lambda p: PAPER_FACTORIZE_RECOVER[p][0]),
        ("paper: recover ten columns", "s", 1, lambda p: PAPER_FACTORIZE_RECOVER[p][1]),
        ("paper: recover-factorize", "D", 3, lambda p: sum(PAPER_RECOVER_FACTORIZE[p])),
    )
    plt.switch_backend("Agg")
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    bottom = min(value(row) for *_, value in bars for row in rows) / 4
    places, width = np.arange(len(rows)), 0.2
    for j, (name, hatch, grey, value) in enumerate(bars):
        heights = [value(row) for row in rows]
        at = places + (j - 1.5) * width
        axes.bar(at, heights, width, label=name, hatch=hatch, color=grey, edgecolor="black", linewidth=0.8)
        for x, height, row in zip(at, heights, rows, strict=True):
            bound = "≥ " if j == 2 and row.signed.cut_off else ""
            axes.annotate(
                bound + (f"{height:.2g}" if height < 10 else f"{height:.0f}"),
                (x, bottom), (0, 4), textcoords="offset points", ha="center", fontsize=8,
                bbox={"boxstyle": "square,pad=0.15", "facecolor": "white", "linewidth": 0.5},
            )  # fmt: skip
    for name, marker, j, value in paper:
        axes.plot(places + (j - 1.5) * width, [value(row.place) for row in rows], marker, label=name,
                  markerfacecolor="white", markeredgecolor="black", markersize=8)  # fmt: skip
    axes.set_yscale("log")
    axes.set_ylim(bottom=bottom)
    axes.set_xticks(places, [f"{n:,} × {m}".replace(",", "\u202f") for n, m in (row.shape for row in rows)])
    axes.set_xlabel("shape of M, rows × columns")
    axes.set_ylabel("time (s), one thread")
    axes.set_title(f"Planted data, r = {RANK}, d = n/5, p = {NNZ}, {NOISE:.0%} noise", fontsize=10)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    results = Path(__file__).parent / "results"
    parser.add_argument("folder", type=Path, nargs="?", default=results, help="where table1.md and .png go")
    parser.add_argument("--shapes", default="0,1,2", help="which of the three, from 0")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for a linear program")
    parser.add_argument("--programs", type=int, default=1, help="columns of each signed program")
    parser.add_argument("--columns", type=int, default=3, help="columns of M that are recovered")
    options = parser.parse_args()
    # Compiles the kernels, outside the clock.
    tiny = SparseBinary(0, 20, NNZ)
    SparsestNMF(2).factorize(compress(tiny, np.random.default_rng(0).random((50, 8))))
    CheckedRecovery(0.0).recover(*tiny.columns(0, 50), np.ones(20))
    rows = []
    for place in map(int, options.shapes.split(",")):
        with single_blas_thread():
            rows.append(measure(place, options.programs, options.limit, options.columns))
        print(*table(rows[-1:], options.limit), sep="\n", flush=True)
    options.folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join(table(rows, options.limit))
    (options.folder / "table1.md").write_text(f"HiGHS is cut off after {options.limit:.0f} s.\n\n{text}\n")
    plot(rows, options.folder / "table1.png")


if __name__ == "__main__":
    main()
