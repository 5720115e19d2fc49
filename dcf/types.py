"""The nouns that flow between the rooms: frozen, small, checked where they are made."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Real: TypeAlias = NDArray[np.float32] | NDArray[np.float64]
Float64: TypeAlias = NDArray[np.float64]
Index: TypeAlias = NDArray[np.int64]
# Some rows of M, in columns that are stored apart: the first column and the entries (b, w) of each panel.
Panels: TypeAlias = Sequence[tuple[int, Real]]
Arrays: TypeAlias = Mapping[str, NDArray[Any]]

STAGES = ("created", "sketch", "factorize", "recover", "refine", "done")


class Status(enum.Enum):
    """How a solve ended: a value with a remedy, not an exception."""

    converged = "converged"
    max_iter_reached = "max_iter_reached"
    stagnated = "stagnated"
    infeasible = "infeasible"

    @property
    def remedy(self) -> str:
        """What the user can do about it, one sentence; empty where nothing is wrong."""
        return {
            Status.converged: "",
            Status.max_iter_reached: "Raise --max-iter, or loosen --tol.",
            Status.stagnated: "Nothing moves any more at this precision; loosen --tol to call it done.",
            Status.infeasible: "The equations contradict each other; take a larger --sketch-size.",
        }[self]


@dataclass(frozen=True)
class Block:
    """A range of rows of the compressed axis that one task finishes and journals."""

    index: int
    """place in the pass, from 0"""
    start: int
    """first row"""
    stop: int
    """one past the last row"""

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ValueError(f"block {self.index} spans no row: {self.start}…{self.stop}")


class BlockSource(Protocol):
    """The data M (n, m), compressed axis first, as the block tasks read it."""

    @property
    def width(self) -> int:
        """m, the length of the axis that is not compressed."""

    def tiles(self, start: int, stop: int, absent: set[str]) -> Iterator[tuple[int, Real]]:
        """Yield (first row, C-ordered tile (b, m)) in order, decoding every chunk once.

        The keys of stored chunks that are absent, and read as the fill value, go to `absent`.
        """

    def panels(self, start: int, stop: int, absent: set[str]) -> Iterator[tuple[int, Panels]]:
        """Yield (first row, panels) in order: the same rows, not put together where they are stored apart."""
        for first, tile in self.tiles(start, stop, absent):
            yield first, ((0, tile),)

    def decoded_bytes(self, start: int, stop: int) -> int:
        """Return the bytes that these rows decode to, in the source's own dtype."""

    def position(self, row: int, column: int) -> str:
        """Name an entry of M by its coordinates in the source's own orientation."""


class Journal(Protocol):
    """Finished blocks of one pass, durable in the run group."""

    @property
    def behind(self) -> bool:
        """Whether a block may be saved while the next is made: that takes the memory of one more."""

    def count(self) -> int:
        """Return how many blocks are finished; cheap enough to be asked twice a second."""

    def save(self, block: Block, arrays: Arrays, rows: NDArray[Any] | None = None) -> None:
        """Store a finished block, and its rows (b, k) where the pass keeps them; the last write marks it."""

    def load(self, block: Block) -> dict[str, NDArray[Any]] | None:
        """Return what `save` stored, or None where the block is to be done."""


class Workers(Protocol):
    """What computes a Dask graph: a cluster, or this process."""

    @property
    def count(self) -> int:
        """Tasks that run at once."""

    def compute(self, graph: Any) -> Any:
        """Return the result of a Delayed."""

    def peaks(self) -> dict[str, int]:
        """Return the peak resident bytes of each worker process so far, by name."""

    def driver_peak(self) -> int:
        """Return the peak resident bytes of this process so far."""


class Reporter(Protocol):
    """Who is told how a run goes on."""

    def begin(self, stage: str, blocks: int, size: int) -> None:
        """Begin a stage: so many blocks, which decode `size` bytes (0 where it reads none)."""

    def advance(self, finished: int) -> None:
        """So many of its blocks are finished."""

    def end(self, seconds: float) -> None:
        """End the stage."""


class RowStore(Protocol):
    """A factor on disk, (n, r), written in whole chunks of rows by one task each."""

    def __getitem__(self, rows: slice, /) -> Any:
        """Return these rows as a NumPy array."""

    def __setitem__(self, rows: slice, values: Any, /) -> None:
        """Write these rows."""


class Projection(Protocol):
    """A random matrix P (d, n) of which any slice of columns can be made from the seed."""

    @property
    def sketch_size(self) -> int:
        """d, the number of rows."""

    def accumulate(self, tile: Real, start: int, out: Real) -> None:
        """Add P[:, start:start+b] · tile to `out` (d, m), for a tile (b, m), in the precision of `out`."""

    def scattered(self, start: int, stop: int, out: Real) -> tuple[Index, Real, Real]:
        """Return rows and entries (b, p) of P[:, start:stop], and `out`, to which a kernel adds it."""

    def transpose(self, v: Float64, start: int, stop: int) -> Float64:
        """Return P[:, start:stop]ᵀ · v, (stop − start, k), for v (d, k)."""

    def dense(self, start: int, stop: int) -> Float64:
        """Return the panel P[:, start:stop] as a dense array (d, stop − start)."""


@dataclass(frozen=True)
class Statistics:
    """What a pass learns of the data besides its sketches; sums add, minima meet."""

    squared_norm: float = 0.0
    """‖M‖²_F, float64"""
    minimum: float = np.inf
    """least entry"""
    zeros: int = 0
    """entries that are exactly zero"""
    missing_chunks: int = 0
    """stored chunks that are absent and read as the fill value"""
    bytes_read: int = 0
    """decoded bytes"""
    maximum: float = -np.inf
    """greatest entry"""

    @property
    def largest(self) -> float:
        """The largest size of an entry."""
        return max(-self.minimum, self.maximum, 0.0)

    def merge(self, other: Statistics) -> Statistics:
        """Return the statistics of both parts together."""
        return Statistics(
            self.squared_norm + other.squared_norm,
            min(self.minimum, other.minimum),
            self.zeros + other.zeros,
            self.missing_chunks + other.missing_chunks,
            self.bytes_read + other.bytes_read,
            max(self.maximum, other.maximum),
        )

    def to_vector(self) -> Float64:
        """Return the six figures as a float64 vector."""
        return np.array(astuple(self), np.float64)

    @classmethod
    def from_vector(cls, v: Float64) -> Statistics:
        """Read them back."""
        return cls(float(v[0]), float(v[1]), int(v[2]), int(v[3]), int(v[4]), float(v[5]))


@dataclass(frozen=True)
class Factors:
    """A two-mode factorization ``W H``: W (n or d, r) and H (r, m), float64."""

    weights: Float64
    """W, the factor along the compressed axis, or W̃; W̃ of a sketch has entries of any sign"""
    components: Float64
    """H, the factor along the other axis"""

    def __post_init__(self) -> None:
        if self.weights.ndim != 2 or self.weights.shape[1] != self.components.shape[0]:
            raise ValueError(f"W {self.weights.shape} and H {self.components.shape} share no rank")

    @property
    def rank(self) -> int:
        """r, the number of components."""
        return int(self.weights.shape[1])


@dataclass(frozen=True)
class FactorizationResult:
    """Factors of a sketch or sample, and how the solve ended."""

    factors: Factors
    """the pair found"""
    status: Status
    """converged, or why not"""
    n_iter: int
    """sweeps over both factors"""
    objective: float
    """‖M − WH‖_F / ‖M‖_F on the sketch or sample"""
    kkt: float
    """projected gradient over the norm of its linear term, at the end"""
    noise: float = 0.0
    """standard deviation of an entry of the sketch about W H, where it was estimated"""
    stability: Float64 | None = None
    """(r,) least cosine of each row of H to its partners from other starts that fit as well; None
    where there are none"""


@dataclass(frozen=True)
class ColumnSolution:
    """One recovered column of W."""

    values: Float64
    """(n,) the column"""
    status: Status
    """converged, or why not"""
    n_iter: int
    """sweeps over the active set, or iterations of a linear program"""
    residual_norm: float
    """‖P w − w̃‖ / ‖w̃‖"""
    kkt: float
    """largest KKT violation over ‖Pᵀ w̃‖_∞, or, of a linear program, its relative duality gap"""
    sparsest: int | None = None
    """nonzeros of the sparsest column found, where `values` is another one"""


@dataclass(frozen=True)
class Certificate:
    """A relative error ‖M − WH‖_F / ‖M‖_F and how it is known."""

    value: float
    """the error"""
    interval: tuple[float, float] | None = None
    """95 % interval where the error is estimated, None where it is exact"""

    @property
    def kind(self) -> str:
        """`exact` or `estimated`."""
        return "exact" if self.interval is None else "estimated"


@dataclass(frozen=True)
class Decomposition:
    """A finished run, its factors in SOURCE's own orientation; Zarr, or NumPy where small and without OUT."""

    relative_error: Certificate
    """of the stored factors"""
    attributes: dict[str, Any] = field(repr=False)
    """everything the run group records: settings, plan, seconds, components, …"""


@dataclass(frozen=True)
class MatrixDecomposition(Decomposition):
    """SOURCE ≈ W H, or SOURCE less its means where these were taken out."""

    W: Any
    """(n, r)"""
    H: Any
    """(r, m)"""
    mean: Any = None
    """(m,) means of the columns, or (n,) of the rows, where they were taken out; None elsewhere"""


@dataclass(frozen=True)
class TensorDecomposition(Decomposition):
    """SOURCE ≈ Σ_k weights[k] · factors[0][:, k] ∘ factors[1][:, k] ∘ … in all modes."""

    weights: Any
    """(r,), decreasing"""
    factors: tuple[Any, ...]
    """one a mode, (n_k, r), columns of unit norm"""


@dataclass(frozen=True)
class Layout:
    """How the source stores its array, in its own orientation: all that planning needs."""

    shape: tuple[int, ...]
    """entries along each axis"""
    chunks: tuple[int, ...]
    """entries of a chunk (inside a shard: of an inner chunk), the unit of decoding"""
    shards: tuple[int, ...] | None
    """entries of a shard, the unit of storage; None where a chunk is"""
    dtype: str
    """NumPy name of the stored numbers"""
    remote: bool = False
    """whether a chunk is asked of another machine, and waited for"""

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Layout:
        """Return the layout that a run recorded of its source."""
        shards = record["shards"]
        return cls(
            tuple(record["shape"]),
            tuple(record["chunks"]),
            tuple(shards) if shards else None,
            np.dtype(record["dtype"]).newbyteorder("=").name,
            "://" in str(record["url"]).removeprefix("file://"),
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the decoded array."""
        return math.prod(self.shape) * self.itemsize

    @property
    def itemsize(self) -> int:
        """Bytes of a stored number."""
        return int(np.dtype(self.dtype).itemsize)

    @property
    def compute_dtype(self) -> str:
        """float64 for float64 data, float32 for all other: the dtype of tiles and factors."""
        return "float64" if np.dtype(self.dtype) == np.float64 else "float32"
