"""Whether the verdict tells wrong components from right ones.

    python benchmarks/trust.py [RUNS]

Planted matrices with dense W (exponential, gamma, log-normal, uniform or half full) where H comes out
wrong (worst cosine below 0.99): factorize-recover by name with and without an exact pass, and auto; and
with sparse W where H and W come out right (every cosine above 0.99), by factorize-recover and auto.
Noise 0, 1, 5 or 10 %, ranks 4 to 8. Runs until there are RUNS (50) of each.
"""

import sys
from collections.abc import Callable

import numpy as np
import zarr

import dcf
from dcf.metrics import match

WAYS = (("factorize-recover", 0), ("factorize-recover", 1), ("auto", 1), ("auto", 0))
DENSE: dict[str, Callable[[np.random.Generator, tuple[int, int]], np.ndarray]] = {
    "exponential": lambda g, shape: g.exponential(size=shape),
    "gamma(2)": lambda g, shape: g.gamma(2.0, size=shape),
    "log-normal": lambda g, shape: g.lognormal(0.0, 0.7, size=shape),
    "uniform 0.5-1.5": lambda g, shape: g.uniform(0.5, 1.5, size=shape),
    "half full": lambda g, shape: g.exponential(size=shape) * (g.random(shape) < 0.5),
}


def run(w: np.ndarray, seed: int, way: tuple[str, int]) -> tuple[float, float, dict]:
    """Return the worst cosines of H and W, and the verdict."""
    generator = np.random.default_rng(1000 + seed)
    h = generator.random((w.shape[1], 100))
    exact = w @ h
    error = generator.standard_normal(exact.shape)
    noise = (0.0, 0.01, 0.05, 0.1)[seed % 4]
    m = exact + noise * np.linalg.norm(exact) / np.linalg.norm(error) * error
    source = zarr.create_array(zarr.storage.MemoryStore(), data=m, chunks=(2000, 100))
    method, refine = way
    result = dcf.nmf(source, rank=w.shape[1], method=method, refine=refine, negatives="allow", seed=seed)
    worst = [float(match(a, b)[1].min()) for a, b in ((result.H.T, h.T), (result.W, w))]
    return worst[0], worst[1], result.attributes


def report(title: str, verdicts: list[tuple[str, str, str]], wanted: str) -> None:
    """Print how many verdicts are the wanted one, and which are not."""
    right = sum(verdict == wanted for *_, verdict in verdicts)
    print(f"{title}: {right} of {len(verdicts)} {wanted}")
    for kind, way, verdict in verdicts:
        if verdict != wanted:
            print(f"  not so: {kind}, {way}")


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    wrong: list[tuple[str, str, str]] = []
    right: list[tuple[str, str, str]] = []
    seed = 0
    while len(wrong) < runs:
        generator, kind = np.random.default_rng(seed), list(DENSE)[seed % len(DENSE)]
        w, way = DENSE[kind](generator, (8000, 4 + seed % 5)), WAYS[seed // 2 % len(WAYS)]
        cosine, _, record = run(w, seed, way)
        if cosine < 0.99:
            wrong.append((f"{kind}, cosine {cosine:.3f}, seed {seed}", f"{way}", record["trust"]["verdict"]))
        seed += 1
    print(f"dense W: H was wrong in {len(wrong)} of {seed} runs")
    report("dense W, H wrong", wrong, "doubtful")
    seed = 0
    while len(right) < runs:
        generator, rank = np.random.default_rng(seed), 4 + seed % 5
        n, k = 10_000, (20, 40, 60)[seed % 3]
        w = np.zeros((n, rank))
        for column in w.T:
            column[generator.choice(n, k, replace=False)] = 0.2 + generator.exponential(size=k)
        way = WAYS[seed // 2 % len(WAYS)]
        cosine, other, record = run(w, seed, way)
        if min(cosine, other) > 0.99:
            why = record["trust"]["why"]
            right.append((f"k = {k}, seed {seed}: {why}", f"{way}", record["trust"]["verdict"]))
        seed += 1
    print(f"sparse W: the components were right in {len(right)} of {seed} runs")
    report("sparse W, components right", right, "trusted")


if __name__ == "__main__":
    main()
