"""Factorize an array that lies on S3, into a run that lies there too.

    python examples/s3/s3.py s3://bucket/prefix

README.md beside this file says where the credentials come from, and how to run a server to try it on.
"""

import logging
import sys

import numpy as np
import zarr

import dcf
from dcf.metrics import match


def plant(url: str) -> np.ndarray:
    """Write a planted 20 000 x 300 matrix of five components to a URL; return the true H."""
    generator = np.random.default_rng(0)
    w = generator.exponential(size=(20_000, 5)) * (generator.random((20_000, 5)) < 0.3)
    h = generator.random((5, 300))
    data = (w @ h) * (1 + 0.05 * generator.standard_normal((20_000, 300)))
    zarr.create_array(url, data=data.astype("float32"), chunks=(2000, 300), overwrite=True)
    return h


def main() -> None:
    """Plant, factorize, read the factors back, and compare them with the planted ones."""
    logging.basicConfig(format="%(message)s")  # says when a request is made again
    place = sys.argv[1].rstrip("/")
    source, out = f"{place}/counts.zarr", f"{place}/factors.zarr"
    h = plant(source)
    result = dcf.nmf(source, rank=5, out=out, overwrite=True)
    error = result.relative_error
    print(f"{source}: {result.attributes['passes']} passes, relative error {error.value:.4f} ({error.kind})")
    # The factors are Zarr arrays on S3, which any other reader of Zarr opens as well.
    found = zarr.open_array(f"{out}/H", mode="r")
    print(f"{out}: H {found.shape}, W {result.W.shape}")
    print(f"least cosine of a component to the planted one: {match(found[:].T, h.T)[1].min():.4f}")


if __name__ == "__main__":
    main()
