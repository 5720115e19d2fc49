"""Figure 2 of the paper: the error of W against its nonzeros, from the sketch P M alone.

    python benchmarks/paper/synthetic.py [FOLDER] [--problems nmf sparse-pca] [--seeds 3]

Planted M = W H + noise, float64, n = m = 2000, r = 10, noise 10 % of the root mean square of W H; P has
p = 5 ones a column and d = 200, 400 or 800 rows; W has k = 20 … 180 nonzeros a column. Factorize M̃ = P M,
recover every column of W. The error of a column is ‖ŵ − w‖ of the unit columns, matched by permutation and,
for sparse PCA, sign; of a run, the median column's; of a point, the median run's. Beside it the oracle's:
the same recovery from the exact W̃ = P W. Writes synthetic-*.md and synthetic.png. About 7
minutes of one core.

The paper's figures, read off its plot: NMF d = 400: k = 100 ~.26, k = 140 ~.42; d = 800, k = 180 ~.1;
d = 200, k = 40 ~.26; sparse PCA d = 400, k = 100 ~.22; d = 800, k = 180 ~.05. Ours, in this order: NMF .010,
.014, .010, .008; sparse PCA .0045, .0043. Beyond (d = 200, k ≥ 60; d = 400, k ≥ 160) the oracle fails, too.
"""

from functools import partial

import matplotlib.pyplot as plt
import numpy as np
from common import (
    BLUE,
    ORANGE,
    PINK,
    arguments,
    factorize_recover,
    finish_axes,
    knowing_the_sketch,
    plant,
    progress,
    save,
    write_table,
)
from matplotlib.lines import Line2D

from dcf.factorization.sparse_pca import SparsePCA
from dcf.factorization.sparsest import SparsestNMF
from dcf.metrics import column_errors
from dcf.recovery.reweighted import ReweightedRecovery

N, M, RANK, NOISE, P = 2000, 2000, 10, 0.1, 5
SIZES = {200: (PINK, "^"), 400: (BLUE, "s"), 800: (ORANGE, "D")}
NONZEROS = tuple(range(20, 181, 20))
LEAST = 1e-4  # what is smaller is drawn here
PROBLEMS = {
    "nmf": ("NMF", SparsestNMF, ReweightedRecovery, False),
    "sparse-pca": ("sparse PCA", SparsePCA, partial(ReweightedRecovery, signed=True), True),
}
# (problem, d, k): what the paper's plot shows, and what dcf is held to.
PAPER = {
    ("nmf", 400, 100): (0.26, 0.02),
    ("nmf", 400, 140): (0.42, 0.03),
    ("nmf", 800, 180): (0.1, 0.015),
    ("nmf", 200, 40): (0.26, 0.02),
    ("sparse-pca", 400, 100): (0.22, 0.02),
    ("sparse-pca", 800, 180): (0.05, 0.01),
}


def measure(problem: str, seeds: int) -> dict[tuple[int, int], tuple[float, float]]:
    """Return (d, k) → the error and the oracle's."""
    _, factorizer, recovery, signed = PROBLEMS[problem]
    points = {}
    for k in NONZEROS:
        runs = {d: [] for d in SIZES}
        for seed in range(seeds):
            w, data = plant(N, M, RANK, k, NOISE, seed, signed=signed)
            for d in SIZES:
                found = factorize_recover(data, d, P, factorizer(rank=RANK, seed=seed), recovery, seed)
                oracle = knowing_the_sketch(w, d, P, recovery, seed)
                runs[d].append([np.median(column_errors(each, w)) for each in (found, oracle)])
        for d, each in runs.items():
            points[d, k] = tuple(np.median(each, axis=0))
        progress(problem, f"k = {k}:", ", ".join(f"d = {d} {points[d, k][0]:.4f}" for d in SIZES))
    return points


def tabulate(problem: str, points, seeds: int, folder) -> None:
    rows = []
    for (d, k), (error, oracle) in sorted(points.items()):
        theirs, most = PAPER.get((problem, d, k), ("", ""))
        verdict = "" if most == "" else ("yes" if error <= most else "no")
        rows.append([d, k, f"{error:.4f}", f"{oracle:.1e}", theirs and f"~{theirs}", most, verdict])
    text = f"""
# {PROBLEMS[problem][0]}, the setting of the paper's figure 2

`python benchmarks/paper/synthetic.py --problems {problem} --seeds {seeds}`: n = m = 2000, r = 10, noise 10 %,
p = 5. Median column error of W, the median of {seeds} seeds. Oracle: recovery from the exact W̃ = P W. Paper:
read off its plot. Most: what dcf is held to.
"""
    header = ["d", "k", "error of W", "oracle", "paper", "most", "held"]
    write_table(folder, f"synthetic-{problem}", text, header, rows)


def draw(measured, folder) -> None:
    figure, panels = plt.subplots(
        1, len(measured), figsize=(4.6 * len(measured), 4.2), sharey=True, squeeze=False, layout="constrained"
    )
    for panel, (problem, points) in zip(panels[0], measured.items(), strict=True):
        for d, (colour, marker) in SIZES.items():
            error, oracle = (np.maximum([points[d, k][i] for k in NONZEROS], LEAST) for i in (0, 1))
            panel.plot(NONZEROS, error, marker=marker, color=colour, markersize=5)
            panel.plot(
                NONZEROS, oracle, ":", marker=marker, color=colour, markersize=5, markerfacecolor="white"
            )
            theirs = [
                (k, value) for (own, size, k), (value, _) in PAPER.items() if (own, size) == (problem, d)
            ]
            panel.plot(
                *zip(*theirs, strict=True) if theirs else ([], []),
                linestyle="", marker=marker, color=colour, markersize=11, markerfacecolor="none",
                markeredgewidth=1.6,
            )  # fmt: skip
        panel.set_yscale("log")
        panel.set_ylim(LEAST / 1.4, 2)
        panel.set_yticks([1e-4, 1e-3, 1e-2, 1e-1, 1], ["≤ 10⁻⁴", "10⁻³", "10⁻²", "10⁻¹", "1"])
        panel.set_xticks(NONZEROS)
        panel.set_title(PROBLEMS[problem][0], fontsize=11)
        finish_axes(panel)
    panels[0][0].set_ylabel("error of W, median column (relative ℓ2)")
    figure.supxlabel("k, nonzeros in a column of W (of 2000)", fontsize=10)
    grey = "0.3"
    handles = [
        *(
            Line2D([], [], color=colour, marker=marker, markersize=5, label=f"d = {d}")
            for d, (colour, marker) in SIZES.items()
        ),
        Line2D([], [], color=grey, marker="o", markersize=5, label="dcf, from P M"),
        Line2D(
            [], [], color=grey, linestyle=":", marker="o", markersize=5, markerfacecolor="white",
            label="oracle, from P W",
        ),
        Line2D(
            [], [], color=grey, linestyle="", marker="o", markersize=11, markerfacecolor="none",
            markeredgewidth=1.6, label="the paper's plot",
        ),
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    save(figure, folder, "synthetic")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    measured = {problem: measure(problem, asked.seeds) for problem in asked.problems}
    for problem, points in measured.items():
        tabulate(problem, points, asked.seeds, asked.folder)
    draw(measured, asked.folder)


if __name__ == "__main__":
    main()
