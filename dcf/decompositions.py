"""The Python calls: one function a decomposition, the same options for all."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack

import numpy as np

from dcf.api import run_source
from dcf.settings import Settings
from dcf.storage.source import store_array
from dcf.types import Certificate, MatrixDecomposition, TensorDecomposition

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import zarr
    from numpy.typing import NDArray

    from dcf.storage.run import RunGroup
    from dcf.types import Reporter

SMALL_FACTOR_BYTES = 64 * 2**20

Result = TypeVar("Result", MatrixDecomposition, TensorDecomposition)


class Options(TypedDict, total=False):
    """What every decomposition takes besides source, rank and out.

    method : auto, rows, range, factorize-recover, recover-factorize or full, as the decomposition allows
    refine : exact passes after the factorization; 1, or 0 where all is done in memory
    axis : the compressed axis: longest (the default) or its number; of a tensor several, such as (0, 2)
    sketch_size : rows of the one-sided sketch or of the row sample, whichever the method uses
    nnz_per_column : p = 5, ones per column of the projection
    restarts : 4, random starts of the factorization besides the first
    tol : KKT ratio at which a factorization ends; each has its own default
    max_iter : 2000, most sweeps of the factorization
    negatives : error, or allow to fit negative entries as they are; error where all factors are nonnegative
    missing_chunks : report (the default), or error to refuse absent chunks
    resketch : False; take one more pass with a larger sketch where the evidence asks for one
    seed : 0, of every random number
    memory : budget of each worker and of the driver, bytes or a string; 2GiB
    workers : local workers; one a core where None; a present dask `Client` is used as it is
    overwrite : False; replace another run at `out`
    reporter : told of stages and progress
    """

    method: str
    refine: int | None
    axis: str | int | Sequence[int]
    sketch_size: int | None
    nnz_per_column: int
    restarts: int
    tol: float | None
    max_iter: int
    negatives: str | None
    missing_chunks: str
    resketch: bool
    seed: int
    memory: str | int
    workers: int | None
    overwrite: bool
    reporter: Reporter | None


def nmf(
    source: str | Path | zarr.Array[Any] | NDArray[Any],
    *,
    rank: int,
    out: str | Path | None = None,
    **options: Unpack[Options],
) -> MatrixDecomposition:
    """Factorize a matrix larger than memory: SOURCE (n, m) ≈ W H with W (n, r), H (r, m) ≥ 0.

    Parameters
    ----------
    source : path or URL of a Zarr array, a `zarr.Array`, or a NumPy array; (n, m), any real dtype
    rank : r, the number of components
    out : path of the run group; a temporary store where None
    options : see `Options`

    Returns
    -------
    MatrixDecomposition
        W and H, the relative error ‖M − WH‖_F / ‖M‖_F and the run's attributes. Without `out`,
        factors too large for NumPy (64 MiB) lie in a store that is deleted when Python ends.

    Raises
    ------
    UsageError, SourceError, BudgetError, RunError
        Each with one sentence; see `dcf.errors`.

    References
    ----------
    Sharan, Tai, Bailis, Valiant, *Compressed Factorization*, ICML 2019.
    """
    return _decompose("nmf", source, out, _matrix, {"rank": rank, **options})


def semi_nmf(
    source: str | Path | zarr.Array[Any] | NDArray[Any],
    *,
    rank: int,
    out: str | Path | None = None,
    **options: Unpack[Options],
) -> MatrixDecomposition:
    """Factorize SOURCE (n, m) ≈ W H with H (r, m) ≥ 0 and W (n, r) of any sign.

    Along the compressed axis the factor is free, along the other one it is nonnegative: with the axis 1
    compressed (a wide matrix) W is the nonnegative one. Parameters, returns and errors as of `nmf`.

    References
    ----------
    Ding, Li, Jordan, *Convex and semi-nonnegative matrix factorizations*, TPAMI 2010.
    """
    return _decompose("semi-nmf", source, out, _matrix, {"rank": rank, **options})


def spca(
    source: str | Path | zarr.Array[Any] | NDArray[Any],
    *,
    rank: int,
    out: str | Path | None = None,
    **options: Unpack[Options],
) -> MatrixDecomposition:
    """Sparse PCA: SOURCE (n, m) ≈ W H with few nonzeros, of any sign, in the factor of the compressed axis.

    The components are the sparsest that explain the data to their noise; nothing is centred. Parameters,
    returns and errors as of `nmf`.

    References
    ----------
    Sharan, Tai, Bailis, Valiant, *Compressed Factorization*, ICML 2019, §3 and §4.
    """
    return _decompose("spca", source, out, _matrix, {"rank": rank, **options})


def svd(
    source: str | Path | zarr.Array[Any] | NDArray[Any],
    *,
    rank: int,
    out: str | Path | None = None,
    center: str = "no",
    **options: Unpack[Options],
) -> MatrixDecomposition:
    """Find the leading singular triplets of SOURCE (n, m), or its PCA where means are taken out first.

    The factor of the compressed axis has orthonormal columns (or rows), the other one orthogonal ones with
    the singular values as norms. `center` is columns (each column less its mean: rows are observations),
    rows or no; the means are in `mean`, and the relative error is that of the centred data. Other
    parameters, returns and errors as of `nmf`.

    References
    ----------
    Tropp, Yurtsever, Udell, Cevher, *Practical sketching algorithms for low-rank matrix approximation*,
    SIMAX 2017.
    """
    return _decompose("svd", source, out, _matrix, {"rank": rank, "center": center, **options})


def cp(
    source: str | Path | zarr.Array[Any] | NDArray[Any],
    *,
    rank: int,
    out: str | Path | None = None,
    signed: bool = False,
    **options: Unpack[Options],
) -> TensorDecomposition:
    """Decompose a tensor of three modes or more (CP): SOURCE ≈ Σ_k λ_k a_k ∘ b_k ∘ c_k ∘ … in all of them.

    Factors are nonnegative, or of any sign where `signed`. The compressed mode's factor is found from a
    sketch and refined in exact passes, the others from sums of those. Other parameters and errors as of
    `nmf`.

    Returns
    -------
    TensorDecomposition
        weights (r,), decreasing, and a factor (n_k, r) with unit columns for every mode.

    References
    ----------
    Cichocki & Phan, HALS, 2009; Sharan & Valiant, *Orthogonalized ALS*, ICML 2017.
    """
    return _decompose("cp", source, out, _tensor, {"rank": rank, "signed": signed, **options})


def _decompose(
    decomposition: str,
    source: Any,
    out: Any,
    result_of: Callable[[RunGroup, Callable[[Any], Any]], Result],
    options: dict[str, Any],
) -> Result:
    own = {"rank", "signed", "center"}
    unknown = sorted(set(options) - own - set(Options.__annotations__))
    if unknown:
        raise TypeError(f"dcf.{decomposition.replace('-', '_')} has no argument {unknown[0]!r}.")
    run_options = {k: options.pop(k) for k in ("memory", "workers", "overwrite", "reporter") if k in options}
    axis = options.get("axis", "longest")
    options["axis"] = axis if isinstance(axis, str) else ",".join(map(str, np.atleast_1d(axis)))
    settings = Settings.of(decomposition=decomposition, **options)
    name = decomposition.replace("-", "_")
    command = f"dcf.{name}(rank={settings.rank}, method={settings.method!r})"
    with ExitStack() as stack:
        temporary = Path(tempfile.mkdtemp(prefix="dcf-"))
        stack.callback(shutil.rmtree, temporary, ignore_errors=True)
        if isinstance(source, np.ndarray):
            source = store_array(temporary / "source.zarr", source)
        target = temporary / "run.zarr" if out is None else out
        run = run_source(source, target, settings, command=command, **run_options)
        if out is not None:
            return result_of(run, lambda array: array)
        if run.result_bytes() <= SMALL_FACTOR_BYTES:
            return result_of(run, lambda array: np.asarray(array[:]))
        atexit.register(stack.pop_all().close)  # the factors may outlive every other trace of the run
        return result_of(run, lambda array: array)


def _certificate(record: dict[str, Any]) -> Certificate:
    error = record["relative_error"]
    return Certificate(error["value"], tuple(error["interval"]) if error["interval"] else None)


def _matrix(run: RunGroup, read: Callable[[Any], Any]) -> MatrixDecomposition:
    mean = read(run.get("mean")) if run.has("mean") else None
    w, h = read(run.get("W")), read(run.get("H"))
    return MatrixDecomposition(_certificate(run.record), run.record, w, h, mean)


def _tensor(run: RunGroup, read: Callable[[Any], Any]) -> TensorDecomposition:
    modes = range(len(run.record["source"]["shape"]))
    factors = tuple(read(run.get(f"factor_{mode}")) for mode in modes)
    return TensorDecomposition(_certificate(run.record), run.record, read(run.get("weights")), factors)
