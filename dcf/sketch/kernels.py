"""Compiled kernels of the sketch pass.

Random numbers come from Philox4x64-10 (Salmon et al., *Parallel random numbers: as easy as
1, 2, 3*, SC 2011) keyed by (seed, role) at counter (column, block of four draws), so column i
of a projection is the same wherever and whenever it is made.
"""

import numpy as np
from numpy.typing import NDArray

from dcf.solvers.jit import kernel

Real = NDArray[np.float32] | NDArray[np.float64]
Float64 = NDArray[np.float64]
Index = NDArray[np.int64]
Words = NDArray[np.uint64]

_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_MULTIPLIER_0 = np.uint64(0xD2E7470EE14C6C93)
_MULTIPLIER_1 = np.uint64(0xCA5A826395121157)
_WEYL_0 = np.uint64(0x9E3779B97F4A7C15)
_WEYL_1 = np.uint64(0xBB67AE8584CAA73B)
_TO_UNIT = 2.0**-53
_MANTISSA = np.uint64(11)
_SLAB_ROWS = 16  # of a panel, which stay in the cache from one sketch to the next


@kernel
def _high_product(a: np.uint64, b: np.uint64) -> np.uint64:
    """Return the upper 64 bits of the 128-bit product a·b."""
    a_low, a_high, b_low, b_high = a & _LOW, a >> _HALF, b & _LOW, b >> _HALF
    middle = a_high * b_low + ((a_low * b_low) >> _HALF)
    carry = a_low * b_high + (middle & _LOW)
    return a_high * b_high + (middle >> _HALF) + (carry >> _HALF)


@kernel
def philox(seed: np.uint64, role: np.uint64, column: np.uint64, block: np.uint64, out: Words) -> None:
    """Write the four raw 64-bit draws of one (column, block) into `out` (4,)."""
    c0, c1, c2, c3 = np.uint64(column), np.uint64(block), np.uint64(0), np.uint64(0)
    k0, k1 = np.uint64(seed), np.uint64(role)
    for _ in range(10):
        high_0, low_0 = _high_product(_MULTIPLIER_0, c0), _MULTIPLIER_0 * c0
        high_1, low_1 = _high_product(_MULTIPLIER_1, c2), _MULTIPLIER_1 * c2
        c0, c1, c2, c3 = high_1 ^ c1 ^ k0, low_1, high_0 ^ c3 ^ k1, low_0
        k0, k1 = k0 + _WEYL_0, k1 + _WEYL_1
    out[0], out[1], out[2], out[3] = c0, c1, c2, c3


@kernel
def _unit(word: np.uint64) -> float:
    """Map a raw draw to (0, 1]."""
    return (float(word >> _MANTISSA) + 1.0) * _TO_UNIT


@kernel
def sparse_columns(
    seed: int, role: int, start: int, sketch_size: int, signed: bool, index: Index, value: Float64
) -> None:
    """Write columns start … of a sparse projection in index form.

    index, value : (columns, p), overwritten: the distinct uniform rows of a column (Floyd's
    algorithm, one draw each) and their entries, 1 or, when `signed`, ±1 (one bit each).
    """
    columns, p = index.shape
    draws = np.empty(4, np.uint64)
    for i in range(columns):
        column = np.uint64(start + i)
        for k in range(p):
            if k % 4 == 0:
                philox(np.uint64(seed), np.uint64(role), column, np.uint64(k // 4), draws)
            last = sketch_size - p + k
            row = np.int64(_high_product(draws[k % 4], np.uint64(last + 1)))
            for j in range(k):
                if index[i, j] == row:
                    row = last
                    break
            index[i, k] = row
            value[i, k] = 1.0
        if signed:
            # Signs have blocks of their own, far above those that draw rows.
            for k in range(p):
                if k % 256 == 0:
                    philox(
                        np.uint64(seed),
                        np.uint64(role),
                        column,
                        np.uint64((1 << 32) + k // 256),
                        draws,
                    )
                bit = (draws[(k // 64) % 4] >> np.uint64(k % 64)) & np.uint64(1)
                value[i, k] = 1.0 - 2.0 * float(bit)


@kernel
def gaussian_columns(seed: int, role: int, start: int, out: Float64) -> None:
    """Write columns start … of a standard Gaussian matrix as the rows of `out` (columns, d)."""
    columns, size = out.shape
    draws = np.empty(4, np.uint64)
    for i in range(columns):
        for k in range(0, size, 4):
            philox(np.uint64(seed), np.uint64(role), np.uint64(start + i), np.uint64(k // 4), draws)
            for pair in range(2):
                radius = np.sqrt(-2.0 * np.log(_unit(draws[2 * pair])))
                angle = 2.0 * np.pi * _unit(draws[2 * pair + 1])
                if k + 2 * pair < size:
                    out[i, k + 2 * pair] = radius * np.cos(angle)
                if k + 2 * pair + 1 < size:
                    out[i, k + 2 * pair + 1] = radius * np.sin(angle)


@kernel
def scatter_rows(tile: Real, first: int, index: Index, value: Real, out: Real) -> None:
    """Add P_b·tile to the columns `first` … of `out` (d, m): row i of `tile` goes to the p rows index[i]."""
    rows, width = tile.shape
    for i in range(rows):
        row = tile[i]
        for k in range(index.shape[1]):
            target, weight = out[index[i, k]][first : first + width], value[i, k]
            for j in range(width):
                target[j] += weight * row[j]


@kernel
def gather_rows(index: Index, value: Float64, v: Float64, out: Float64) -> None:
    """Write P_bᵀ·v into `out` (b, m), for v (d, m)."""
    rows, p = index.shape
    for i in range(rows):
        for j in range(v.shape[1]):
            total = 0.0
            for k in range(p):
                total += value[i, k] * v[index[i, k], j]
            out[i, j] = total


@kernel
def fold_columns(tile: Real, first: int, sign: Real, size: int, out: Real) -> None:
    """Add `tile` (b, w), the columns `first` … of M, folded twice, to `out` (b, 2 c).

    Column j of M goes, times its sign, to column j mod size, and once more to column c + j mod (size + 2).
    sign : (2, pieces, c), of the columns of each fold piece by piece, with zeros at the end of a piece, so
    that the loop over one is of whole vectors. Four pieces at once read and write each sum once for four.
    """
    width, capacity = tile.shape[1], sign.shape[2]
    if sign.shape[1] == 0:
        return
    for i in range(tile.shape[0]):
        row = tile[i]
        for k in range(2):
            length = size + 2 * k
            folded = out[i, k * capacity : (k + 1) * capacity]
            piece = first // length
            start = piece * length - first
            while start < width:
                s0 = sign[k, piece]
                if start >= 0 and start + 3 * length + capacity <= width:
                    s1, s2, s3 = sign[k, piece + 1], sign[k, piece + 2], sign[k, piece + 3]
                    m0, m1 = row[start:], row[start + length :]
                    m2, m3 = row[start + 2 * length :], row[start + 3 * length :]
                    for j in range(capacity):
                        folded[j] += (s0[j] * m0[j] + s1[j] * m1[j]) + (s2[j] * m2[j] + s3[j] * m3[j])
                    piece, start = piece + 4, start + 4 * length
                    continue
                low, high = max(-start, 0), min(capacity, width - start)
                signs, part, sums = s0[low:high], row[start + low : start + high], folded[low:high]
                for j in range(len(part)):
                    sums[j] += signs[j] * part[j]
                piece, start = piece + 1, start + length


@kernel
def look_at(tile: Real, first: int, norms: Float64, least: Real, most: Real) -> int:
    """Return the zeros of `tile` (b, w), the columns `first` … of M, and learn what there is to know of it.

    norms : (b,), gets the float64 squared norm of every row added, not finite where an entry is not;
    least, most : (m,), the least and the greatest entry of every column so far.
    """
    zeros, width = 0, tile.shape[1]
    low, high = least[first : first + width], most[first : first + width]
    for i in range(tile.shape[0]):
        row = tile[i]
        total = 0.0
        for j in range(width):
            entry = row[j]
            total += np.float64(entry) * np.float64(entry)
            low[j] = entry if entry < low[j] else low[j]
            high[j] = entry if entry > high[j] else high[j]
            zeros += entry == 0.0
        norms[i] += total
    return zeros


@kernel
def sketch_panel(
    panel: Real,
    first: int,
    norms: Float64,
    least: Real,
    most: Real,
    probe: tuple[Index, Real, Real],
    projection: tuple[Index, Real, Real],
    corange: tuple[Index, Real, Real],
    sign: Real,
    size: int,
    folded: Real,
) -> int:
    """Take all sketches of `panel` (b, w), the columns `first` … of M, while a few rows are in the cache.

    Returns its zeros. probe, projection, corange : index and value (b, p) and the sum of a sparse one;
    sign, size, folded : as of `fold_columns`; the rest as of `look_at`. What is not asked for is empty.
    """
    zeros = 0
    for start in range(0, panel.shape[0], _SLAB_ROWS):
        stop = min(start + _SLAB_ROWS, panel.shape[0])
        slab = panel[start:stop]
        zeros += look_at(slab, first, norms[start:stop], least, most)
        scatter_rows(slab, first, probe[0][start:stop], probe[1][start:stop], probe[2])
        scatter_rows(slab, first, projection[0][start:stop], projection[1][start:stop], projection[2])
        scatter_rows(slab, first, corange[0][start:stop], corange[1][start:stop], corange[2])
        fold_columns(slab, first, sign, size, folded[start:stop])
    return zeros


@kernel
def _sift_down(keys: Float64, heap: Index, size: int) -> None:
    """Restore the max-heap of slots after its root's key fell."""
    node = 0
    while True:
        child = 2 * node + 1
        if child >= size:
            return
        if child + 1 < size and keys[heap[child + 1]] > keys[heap[child]]:
            child += 1
        if keys[heap[child]] <= keys[heap[node]]:
            return
        heap[node], heap[child] = heap[child], heap[node]
        node = child


@kernel
def sampling_keys(seed: int, role: int, start: int, squared_norms: Float64, keys: Float64) -> None:
    """Write the key −ln(u) / ‖m‖² of the rows start … into `keys` (b,); ∞ for a row of zeros."""
    draws = np.empty(4, np.uint64)
    for i in range(len(keys)):
        keys[i] = np.inf
        if squared_norms[i] > 0.0:
            philox(np.uint64(seed), np.uint64(role), np.uint64(start + i), np.uint64(0), draws)
            keys[i] = -np.log(_unit(draws[0])) / squared_norms[i]


@kernel
def keep_smallest(
    keys_of_rows: Float64,
    first_row: int,
    bound: float,
    size: int,
    keys: Float64,
    heap: Index,
    row_index: Index,
    slots: Index,
) -> int:
    """Offer rows with keys below `bound` to a sample; return its new size.

    slots : (b,), overwritten: where each row is kept, −1 for nowhere; a later row may take its place.
    keys, heap, row_index : (capacity,), of the smallest keys. Slots fill in order; `heap` orders them by
    decreasing key, so its root is the slot that the next smaller key takes over.
    """
    capacity = keys.shape[0]
    for i in range(len(keys_of_rows)):
        key = keys_of_rows[i]
        slots[i] = -1
        if not key < bound:
            continue
        if size < capacity:
            slot = size
            keys[slot] = key
            heap[slot] = slot
            node = slot
            while node > 0 and keys[heap[(node - 1) // 2]] < key:
                heap[node] = heap[(node - 1) // 2]
                node = (node - 1) // 2
            heap[node] = slot
            size += 1
        else:
            slot = heap[0]
            if key >= keys[slot]:
                continue
            keys[slot] = key
            _sift_down(keys, heap, capacity)
        row_index[slot] = first_row + i
        slots[i] = slot
    return size


@kernel
def keep_rows(panel: Real, first: int, slots: Index, rows: Real) -> None:
    """Copy the rows of `panel` (b, w), the columns `first` … of M, to their slots in `rows` (capacity, m)."""
    width = panel.shape[1]
    for i in range(len(slots)):
        if slots[i] >= 0:
            rows[slots[i], first : first + width] = panel[i]


@kernel
def put_in_order(rows: Real, order: Index) -> None:
    """Let row order[i] of `rows` be row i, in place; `order` is used up."""
    held = np.empty(rows.shape[1], rows.dtype)
    for first in range(len(order)):
        if order[first] < 0:
            continue
        held[:] = rows[first]
        i = first
        while order[i] != first:
            source = order[i]
            rows[i] = rows[source]
            order[i] = -1
            i = source
        rows[i], order[i] = held, -1
