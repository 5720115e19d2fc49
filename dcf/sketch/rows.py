"""A norm-weighted sample of rows, taken in one pass and mergeable in any order.

Row i has the key ``−ln(u_i) / ‖m_i‖²``, exponential with rate ‖m_i‖²; the s rows of smallest
keys are a sample without replacement in which row i is drawn in proportion to its squared norm
(Efraimidis & Spirakis 2006). With τ the (s+1)-th smallest key, row i was kept with probability
``1 − exp(−‖m_i‖² τ)`` (Duffield, Lund, Thorup, *Priority sampling*, 2007; Cohen & Kaplan's
bottom-k sketches): divided by its square root, the rows give unbiased Gram matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dcf.sketch.kernels import keep_rows, keep_smallest, put_in_order, sampling_keys
from dcf.sketch.projections import Role

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dcf.types import Float64, Index, Panels, Real


@dataclass(frozen=True)
class RowSample:
    """The s+1 rows of smallest keys of some part of the data, by increasing key.

    Rows of zero norm are never sampled, so there may be fewer.
    """

    keys: Float64
    """(k,) increasing"""
    index: Index
    """(k,) row numbers in M"""
    rows: Real
    """(k, m) the rows as they are"""

    def merge(self, other: RowSample, capacity: int) -> RowSample:
        """Return the sample of both parts: the `capacity` smallest keys of the union."""
        keys, index = np.concatenate([self.keys, other.keys]), np.concatenate([self.index, other.index])
        order = np.lexsort((index, keys))[:capacity]
        rows = np.empty((len(order), self.rows.shape[1]), self.rows.dtype)
        mine = order < len(self.keys)
        rows[mine] = self.rows[order[mine]]
        rows[~mine] = other.rows[order[~mine] - len(self.keys)]
        return RowSample(keys[order], index[order], rows)

    def weighted(self, capacity: int) -> Real:
        """Return the sampled rows over the root of their probabilities, (≤ capacity − 1, m).

        Their Gram matrix is an unbiased estimate of MᵀM. When there are fewer rows than
        `capacity`, all of M is here and every weight is 1.
        """
        if len(self.keys) < capacity:
            return self.rows
        rows = self.rows[:-1]
        norms = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
        probability = -np.expm1(-norms * self.keys[-1])
        weighted: Real = rows / np.sqrt(probability)[:, None].astype(rows.dtype)
        return weighted


class RowSampler:
    """Collects a `RowSample` tile by tile, in memory fixed from the start.

    bound : rows with keys from there on are left out. Where `capacity` rows with smaller keys were found
    elsewhere, none of them can be in the sample of the whole.
    """

    def __init__(
        self, seed: int, capacity: int, width: int, dtype: np.dtype[np.floating], bound: float = np.inf
    ) -> None:
        self._seed = seed
        self._bound = bound
        self._size = 0
        self._keys = np.empty(capacity)
        self._heap = np.empty(capacity, np.int64)
        self._index = np.empty(capacity, np.int64)
        self._rows = np.empty((capacity, width), dtype)

    def offer(self, panels: Panels, squared_norms: Float64, start: int) -> None:
        """Offer rows start … of M, as panels of columns, with their float64 squared norms (b,)."""
        keys, slots = np.empty(len(squared_norms)), np.empty(len(squared_norms), np.int64)
        sampling_keys(self._seed, int(Role.rows), start, squared_norms, keys)
        self._size = keep_smallest(
            keys, start, self._bound, self._size, self._keys, self._heap, self._index, slots
        )
        for first, panel in panels:
            keep_rows(panel, first, slots, self._rows)

    def sample(self) -> RowSample:
        """Return what was kept, by increasing key; nothing more can be offered."""
        order = np.lexsort((self._index[: self._size], self._keys[: self._size]))
        keys, index, rows = self._keys[order], self._index[order], self._rows[: self._size]
        put_in_order(rows, order)
        return RowSample(keys, index, rows)


def spared(rows: Real, count: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which weighted rows (k, m) others stand for, and which `count` of these to keep out of a fit.

    A row that was sure to be sampled stands for itself alone, and no fit can do without it. Weighted, a
    row drawn with small probability has the squared norm 1/τ, one drawn with probability 0.8 twice that.
    Both (k,); those kept out are evenly spread over the order of the keys, at most half of the first.
    """
    norms = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    common = norms <= 2.0 * norms.min(initial=np.inf)
    count, total = min(count, int(common.sum()) // 2), int(common.sum())
    apart = np.zeros(len(rows), np.bool_)
    if count:
        apart[np.flatnonzero(common)[(np.arange(count) * total + total // 2) // count]] = True
    return common, apart
