"""The laws of the house: who may import whom, where graphs are built, how long a file may be."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "dcf"
FILES = sorted(ROOT.rglob("*.py"))
ROOMS = ("sketch", "factorization", "recovery", "refinement")
# Lower number: nearer the ground. A file imports its own floor (same room) or a lower one.
FLOORS = {
    "urls": -1,
    "errors": 0,
    "leave": 0,
    "types": 1,
    "settings": 1,
    "solvers": 2,
    "metrics": 2,
    "canonical": 2,
    "sizes": 2,
    **dict.fromkeys([*ROOMS, "storage", "plan"], 3),
    "certificate": 4,
    "datasets": 4,
    "stages": 4,
    "lines": 4,
    "warm": 4,
    "kinds": 4,
    "job": 5,
    "candidates": 6,
    "one_pass": 7,
    "in_memory": 7,
    "finish": 8,
    "pipeline": 9,
    "cluster": 10,
    "api": 11,
    "transform": 12,
    "decompositions": 12,
    "estimators": 13,
    "submission": 14,
    "cli": 15,
    "__init__": 15,
    "__main__": 16,
}
# They name zarr.Array, the type of a source, and use nothing of Zarr.
SOURCES_NAMED = ("api.py", "decompositions.py", "transform.py", "estimators.py")
GRAPHS = {"sketch/compress.py", "recovery/columns.py", "refinement/alternating.py"}


def room(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    for name, _ in imports(path):
        if not name.startswith("dcf."):
            continue
        target = name.split(".")[1]
        if target == room(path):
            continue
        assert FLOORS[target] < FLOORS[room(path)], f"{path} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_their_rooms_know_zarr_dask_and_clusters(path):
    relative = str(path.relative_to(ROOT))
    for name, node in imports(path):
        top = name.split(".")[0]
        if top == "zarr":
            assert room(path) == "storage" or relative in SOURCES_NAMED, f"{relative} imports {name}"
        if top == "distributed":
            assert room(path) == "cluster"
        if top == "dask" and "delayed" in ast.dump(node):
            assert relative in GRAPHS, f"{relative} builds a graph"
        if top == "sklearn":
            assert relative == "estimators.py", "the only home of scikit-learn conventions"
        if top == "numba":
            assert relative == "solvers/jit.py"
        if name.startswith("dcf.solvers.jit"):
            assert relative not in GRAPHS, "kernel and graph share a file"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_short_and_honest(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    assert path.name not in ("utils.py", "helpers.py", "misc.py")
    tree = ast.parse(text)
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            inner = [n for n in ast.walk(function) if isinstance(n, ast.Import | ast.ImportFrom)]
            assert not inner, f"{path}:{function.name} imports inside"
    if room(path) != "cli":
        calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
        assert not [c for c in calls if c.func.id in ("print", "hasattr")]


def test_public_names_are_documented():
    import dcf

    for name in dir(dcf):
        value = getattr(dcf, name)
        if not name.startswith("_") and callable(value):
            assert value.__doc__, name
