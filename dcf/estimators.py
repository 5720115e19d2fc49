"""Estimators with scikit-learn's names and conventions, for data larger than memory or in it.

X is (n_samples, n_features) and X ≈ W H with W (n_samples, n_components) and H = `components_`
(n_components, n_features), whichever axis was compressed. X may be whatever scikit-learn takes, or the path
or URL of a Zarr array, or a `zarr.Array`; these are read block by block and never loaded whole.
"""

from __future__ import annotations

import re
import warnings
from abc import ABC, abstractmethod
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, check_scalar
from sklearn.utils.validation import check_is_fitted, check_non_negative, validate_data

from dcf import decompositions
from dcf.api import DEFAULT_MEMORY
from dcf.solvers.models import free_weights, nonnegative_weights
from dcf.solvers.polyadic import khatri_rao
from dcf.solvers.sparse_weights import SparseWeights
from dcf.storage.source import open_source
from dcf.transform import solve_entries, solve_stored
from dcf.types import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    from numpy.typing import ArrayLike, NDArray

    from dcf.types import Decomposition, Float64, MatrixDecomposition, Real, TensorDecomposition

_COMPUTED = ("method", "refine", "axis", "sketch_size", "tol", "max_iter")
_MEANS = ("memory", "workers", "out", "overwrite")


def _loaded(array: Any) -> NDArray[Any]:
    """Return the entries of an array for the caller to keep and to change."""
    return array.copy() if isinstance(array, np.ndarray) else np.asarray(array[:])


def _warn_unless_converged(decomposition: Decomposition) -> None:
    """Warn, as scikit-learn does, of a factorization that ended before its tolerance."""
    states = {component["status"] for component in decomposition.attributes["components"]}
    for status in map(Status, sorted(states - {Status.converged.value})):
        remedy = re.sub(r"--([a-z-]+)", lambda option: option[1].replace("-", "_"), status.remedy)
        warnings.warn(
            f"The factorization ended as {status.value}. {remedy}", ConvergenceWarning, stacklevel=3
        )


class _Compressed(TransformerMixin, BaseEstimator, ABC):  # type: ignore[misc]  # scikit-learn has no types
    """What the estimators share: sources, checks, W for new rows."""

    decomposition_: Any
    _tensor: bool
    """whether X has three axes or more"""

    def __init__(
        self,
        n_components: int,
        *,
        method: str = "auto",
        refine: int | None = None,
        axis: str | int | Sequence[int] = "longest",
        sketch_size: int | None = None,
        tol: float | None = None,
        max_iter: int = 2000,
        random_state: int = 0,
        memory: str | int = DEFAULT_MEMORY,
        workers: int | None = None,
        out: str | Path | None = None,
        overwrite: bool = False,
    ) -> None:
        self.n_components, self.method, self.refine, self.axis = n_components, method, refine, axis
        self.sketch_size, self.tol, self.max_iter = sketch_size, tol, max_iter
        self.random_state, self.memory, self.workers = random_state, memory, workers
        self.out, self.overwrite = out, overwrite

    def fit(self, X: Any, y: Any = None) -> Self:
        """Factorize X; `y` is ignored.

        Raises `ValueError` for what makes no sense (dcf's own `UsageError` and `SourceError` among them),
        `dcf.BudgetError`, a `MemoryError`, where a run would not fit `memory`.
        """
        check_scalar(self.n_components, "n_components", Integral, min_val=1)
        check_scalar(self.random_state, "random_state", Integral, min_val=0)
        checked = self._checked(X, reset=True)
        options = {name: getattr(self, name) for name in _COMPUTED + _MEANS}
        options |= {"rank": self.n_components, "negatives": self._negatives(), "seed": self.random_state}
        decomposition = self._decompose(X if isinstance(X, str | Path) else checked, options)
        record = decomposition.attributes
        self.decomposition_ = decomposition
        self.relative_error_ = decomposition.relative_error
        norm = float(np.ldexp(np.sqrt(record["statistics"]["squared_norm"]), record.get("exponent", 0)))
        self.reconstruction_err_ = decomposition.relative_error.value * norm
        self.n_components_ = int(self.n_components)
        self.n_iter_ = int(record["candidates"][record["method"]]["iterations"])
        _warn_unless_converged(decomposition)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> NDArray[Any]:
        """Factorize X and return W (n_samples, n_components); `y` is ignored."""
        self.fit(X)
        return _loaded(self._fitted_weights())

    def transform(self, X: Any) -> Real:
        """Return W (n_samples, n_components) of least ‖X − W H‖_F for rows X, H as it is, solved exactly.

        Raises `ValueError` where X has other features than those fitted, `dcf.BudgetError` where a stored
        X has rows of chunks too large for `memory`.
        """
        check_is_fitted(self)
        source = self._checked(X, reset=False)
        allowed = self._negatives() == "allow"
        if isinstance(source, zarr.Array):
            return solve_stored(source, self._rows_of_h(), self._weights_solver, allowed, self.memory)
        return solve_entries(source, self._rows_of_h(), self._weights_solver, allowed)

    def inverse_transform(self, W: ArrayLike) -> NDArray[Any]:
        """Return what W (n_samples, n_components) stands for, shaped as X: W H."""
        check_is_fitted(self)
        weights = check_array(W, dtype=[np.float64, np.float32], input_name="W")
        if weights.shape[1] != self.n_components_:
            raise ValueError(f"W has {weights.shape[1]} columns; there are {self.n_components_} components.")
        return np.asarray((weights @ self._rows_of_h()).reshape(len(weights), *self._sample_shape()))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array = not self._tensor, self._tensor
        tags.input_tags.positive_only = self._negatives() == "error"
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _checked(self, X: Any, *, reset: bool) -> Any:
        """Return X as a `zarr.Array` or a NumPy array of real numbers, its features as they were fitted."""
        if isinstance(X, str | Path | zarr.Array):
            return self._same_features(open_source(X, tensor=self._tensor), reset, stored=True)
        entries = self._same_features(X, reset, stored=False)
        if self._negatives() == "error":
            check_non_negative(entries, f"{type(self).__name__} (input X)")
        return entries

    @abstractmethod
    def _same_features(self, X: Any, reset: bool, stored: bool) -> Any:
        """Return X after the checks of its form; with `reset` its features are those to come."""

    @abstractmethod
    def _decompose(self, source: Any, options: dict[str, Any]) -> Decomposition:
        """Run the decomposition and keep its factors."""

    @abstractmethod
    def _negatives(self) -> str:
        """Return what negative entries of X are: error, or allow."""

    @abstractmethod
    def _fitted_weights(self) -> Any:
        """Return W of the fitted X."""

    @abstractmethod
    def _sample_shape(self) -> tuple[int, ...]:
        """Return the shape of a sample of X."""

    @abstractmethod
    def _rows_of_h(self) -> NDArray[Any]:
        """Return H (n_components, m)."""

    @abstractmethod
    def _weights_solver(self, gram: Float64) -> Callable[[Float64], Float64]:
        """Return what solves rows of W (b, r) from X Hᵀ (b, r), for H Hᵀ = `gram` (r, r)."""


class _CompressedMatrix(ClassNamePrefixFeaturesOutMixin, _Compressed):  # type: ignore[misc]  # as above
    """X ≈ W H."""

    decomposition_: MatrixDecomposition
    _tensor = False
    _run: Callable[..., MatrixDecomposition]

    def _same_features(self, X: Any, reset: bool, stored: bool) -> Any:
        matrix = validate_data(
            self, X, reset=reset, **({"skip_check_array": True} if stored else {"dtype": "numeric"})
        )
        n, m = matrix.shape
        if reset and self.n_components > min(n, m):
            raise ValueError(
                f"n_components={self.n_components} must be at most {min(n, m)}, the smaller of n_samples={n}"
                f" and n_features={m}."
            )
        return matrix

    def _decompose(self, source: Any, options: dict[str, Any]) -> MatrixDecomposition:
        decomposition = self._run(source, **options)
        self.components_ = _loaded(decomposition.H)
        return decomposition

    def _fitted_weights(self) -> Any:
        return self.decomposition_.W

    def _sample_shape(self) -> tuple[int, ...]:
        return (self.n_features_in_,)

    def _rows_of_h(self) -> NDArray[Any]:
        return self.components_

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)


class CompressedNMF(_CompressedMatrix):
    """Nonnegative matrix factorization: minimise ‖X − W H‖²_F over W, H ≥ 0, from a sketch and exact passes.

    Parameters
    ----------
    n_components : r
    method : auto, rows, range, factorize-recover, recover-factorize or full; see `dcf.nmf`
    refine : exact passes after the factorization; None is 1, or 0 where all is done in memory
    axis : the compressed axis: longest, 0 (samples) or 1 (features); its factor has unit columns
    sketch_size : rows of the one-sided sketch or of the row sample; None lets dcf choose
    tol : KKT ratio at which the factorization of the sketch ends; None is its own
    max_iter : most sweeps of that factorization
    negatives : error, or allow to fit negative entries as they are
    random_state : seed, an integer; the same one gives the same bits
    memory : budget of each worker and of the driver, bytes or a string
    workers : local workers; one a core where None
    out : path of the run group, where a fit of a stored X resumes; a temporary store where None
    overwrite : whether a fit may replace another run at `out`

    Attributes
    ----------
    components_ : H (n_components, n_features)
    n_components_ : r
    n_features_in_ : features of X
    feature_names_in_ : their names, where X had some
    reconstruction_err_ : ‖X − W H‖_F, exact or estimated as `relative_error_` is
    relative_error_ : `dcf.Certificate` of ‖X − W H‖_F / ‖X‖_F
    n_iter_ : sweeps of the factorization of the sketch
    decomposition_ : `dcf.MatrixDecomposition`, with the run's record and W, on disk where it is large

    References
    ----------
    Sharan, Tai, Bailis, Valiant, *Compressed Factorization*, ICML 2019.

    Examples
    --------
    >>> import numpy as np, dcf
    >>> X = np.random.default_rng(0).random((300, 20))
    >>> nmf = dcf.CompressedNMF(3).fit(X)
    >>> nmf.components_.shape, nmf.transform(X[:2]).shape
    ((3, 20), (2, 3))
    """

    _run = staticmethod(decompositions.nmf)

    def __init__(
        self,
        n_components: int,
        *,
        method: str = "auto",
        refine: int | None = None,
        axis: str | int = "longest",
        sketch_size: int | None = None,
        tol: float | None = None,
        max_iter: int = 2000,
        negatives: str = "error",
        random_state: int = 0,
        memory: str | int = DEFAULT_MEMORY,
        workers: int | None = None,
        out: str | Path | None = None,
        overwrite: bool = False,
    ) -> None:
        self.negatives = negatives
        self.n_components, self.method, self.refine, self.axis = n_components, method, refine, axis
        self.sketch_size, self.tol, self.max_iter = sketch_size, tol, max_iter
        self.random_state, self.memory, self.workers = random_state, memory, workers
        self.out, self.overwrite = out, overwrite

    def _negatives(self) -> str:
        return self.negatives

    def _weights_solver(self, gram: Float64) -> Callable[[Float64], Float64]:
        return nonnegative_weights(gram)


class CompressedSparsePCA(_CompressedMatrix):
    """Sparse PCA: X ≈ W H, of any sign, with few nonzeros in the factor of the compressed axis.

    That factor is W where the samples are compressed (axis=0), and H, the components, as in scikit-learn's
    `SparsePCA`, where the features are (axis=1); with axis="longest" the longer one decides. Nothing is
    centred. `transform` finds W as the exact pass does: with axis=0 by least squares on the entries that
    stand out of the noise of the fitted data, else by least squares.

    Parameters, attributes and references as of `CompressedNMF`; `negatives` there is none.
    """

    _run = staticmethod(decompositions.spca)

    def _negatives(self) -> str:
        return "allow"

    def _weights_solver(self, gram: Float64) -> Callable[[Float64], Float64]:
        record = self.decomposition_.attributes
        if record["plan"]["axis"] == 1:
            return free_weights(gram)
        return SparseWeights(record["evidence"]["noise"], record["plan"]["rows"]).weights_solver(gram)


class CompressedCP(_Compressed):
    """Canonical polyadic decomposition of a tensor of three modes or more, from a sketch and exact passes.

    X ≈ Σ_k weights_[k] · factors_[0][:, k] ∘ factors_[1][:, k] ∘ … with nonnegative factors, or of any sign
    where `signed`. Slices along mode 0 are the samples: `fit_transform` returns factors_[0], and `transform`
    solves for the rows that new slices, with all other modes the same, would have there.

    Parameters
    ----------
    signed : whether factors may have any sign; negative entries of X are then data like all other
    axis : the compressed mode: longest, its number, or several numbers of modes
    others : as of `CompressedNMF`; `negatives` there is none

    Attributes
    ----------
    weights_ : (n_components,), decreasing
    factors_ : tuple of a factor (n_k, n_components) a mode, columns of unit norm
    decomposition_ : `dcf.TensorDecomposition`
    n_components_, reconstruction_err_, relative_error_, n_iter_ : as of `CompressedNMF`

    References
    ----------
    Cichocki & Phan, HALS, 2009; Sharan & Valiant, *Orthogonalized ALS*, ICML 2017.
    """

    decomposition_: TensorDecomposition
    _tensor = True

    def __init__(
        self,
        n_components: int,
        *,
        signed: bool = False,
        method: str = "auto",
        refine: int | None = None,
        axis: str | int | Sequence[int] = "longest",
        sketch_size: int | None = None,
        tol: float | None = None,
        max_iter: int = 2000,
        random_state: int = 0,
        memory: str | int = DEFAULT_MEMORY,
        workers: int | None = None,
        out: str | Path | None = None,
        overwrite: bool = False,
    ) -> None:
        self.signed = signed
        self.n_components, self.method, self.refine, self.axis = n_components, method, refine, axis
        self.sketch_size, self.tol, self.max_iter = sketch_size, tol, max_iter
        self.random_state, self.memory, self.workers = random_state, memory, workers
        self.out, self.overwrite = out, overwrite

    def _negatives(self) -> str:
        return "allow" if self.signed else "error"

    def _same_features(self, X: Any, reset: bool, stored: bool) -> Any:
        tensor = (
            X if stored else check_array(X, allow_nd=True, dtype="numeric", estimator=self, input_name="X")
        )
        if tensor.ndim < 3:
            raise ValueError(f"X has shape {tensor.shape}; CompressedCP needs three axes or more.")
        if not reset and tensor.shape[1:] != self._sample_shape():
            raise ValueError(f"Samples of X have shape {tensor.shape[1:]}, fitted: {self._sample_shape()}.")
        return tensor

    def _decompose(self, source: Any, options: dict[str, Any]) -> TensorDecomposition:
        decomposition = decompositions.cp(source, signed=self.signed, **options)
        self.weights_ = _loaded(decomposition.weights)
        self.factors_ = tuple(_loaded(factor) for factor in decomposition.factors)
        return decomposition

    def _fitted_weights(self) -> Any:
        return self.decomposition_.factors[0]

    def _sample_shape(self) -> tuple[int, ...]:
        return tuple(len(factor) for factor in self.factors_[1:])

    def _rows_of_h(self) -> NDArray[Any]:
        """Return the outer products of the other modes' factors, with the weights."""
        rows = khatri_rao([np.asarray(factor, np.float64) for factor in self.factors_[1:]])
        return np.asarray(rows * self.weights_[:, None].astype(np.float64))

    def _weights_solver(self, gram: Float64) -> Callable[[Float64], Float64]:
        return free_weights(gram) if self.signed else nonnegative_weights(gram)
