"""What the sketches of a run are to hold: which axes are compressed, and how many rows each takes.

All of it follows from the layout and the settings alone; the budget decides no bits.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dcf.errors import UsageError
from dcf.settings import METHODS_OF

if TYPE_CHECKING:
    from dcf.settings import Settings
    from dcf.types import Layout

MIB = 2**20
PANEL_BYTES = 4 * MIB
SAMPLE_BYTES = 64 * MIB  # of a sample whose size is not asked for, if the rank allows
RECOVERED = ("factorize-recover", "recover-factorize")
CARRIED_ON = ("nmf", "semi-nmf")  # whose H is carried on over the surrogate, as a second candidate
COMPARED = ("nmf", "semi-nmf", "cp")  # whose candidates are compared on rows kept out of the fit
SLICES = 8  # a mode that is compressed besides the first: one entry in so many is seen, but
LEAST_SLICES = 4  # no fewer than so many times the rank
WIDEST_SAMPLE_BYTES = 256 * MIB  # the least sample of rows of a tensor takes no more, or modes are sampled
HELD_OUT = 8  # one row kept out for so many fitted,
LEAST_HELD_OUT = 100  # but so many, or as many as are fitted
RANGE_SHARE = 21  # Z takes no more than one part in so many of the data, or
RANGE_BYTES = 2 * MIB  # so many bytes, if the rank allows
MOST_CHUNKS_IN_FLIGHT = 4  # enough to keep a core decoding,
MOST_CHUNKS_ASKED_FOR = 16  # but a remote store is waited for (benchmarks/s3.py)


def mib(size: int) -> str:
    """Return a size as `--memory` takes it, rounded up."""
    return f"{-(-size // MIB)}MiB" if size >= MIB else f"{size} bytes"


def gigabytes(size: float) -> str:
    """Return a number of bytes in kB, MB or GB (powers of ten)."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= 0.9995 * scale:  # three digits of the next unit below would round up to this one
            return f"{size / scale:.3g} {unit}" if size < 999.5 * scale else f"{size / scale:.0f} {unit}"
    return f"{size:.0f} B"


def mebibytes(size: float) -> str:
    """Return a number of bytes in MiB."""
    return f"{size / MIB:.0f} MiB"


def rate(size: float, seconds: float) -> str:
    """Return a rate of reading."""
    return f"{gigabytes(size / max(seconds, 1e-9))}/s"


def largest_divisor(number: int, most: int) -> int:
    """Return the largest divisor of `number` that is at most `most`, or 1."""
    return next((k for k in range(min(most, number), 1, -1) if number % k == 0), 1)


def decoding(layout: Layout, axis: int, stripe_rows: int) -> tuple[int, int, int]:
    """Return the chunks of a stripe, the bytes they decode to, and the most that reading one takes beside.

    A chunk is decoded whole, however little of it lies inside the array: once as it is stored, once
    decoded. Of a shard all chunks of the stripe are read together and put together, while some of them
    are decoded.
    """
    chunk_bytes = layout.itemsize * math.prod(layout.chunks)
    extents = [-(-n // c) * c for n, c in zip(layout.shape, layout.chunks, strict=True)]
    extents[axis] = min(extents[axis], stripe_rows)
    stripe_bytes = layout.itemsize * math.prod(extents)
    chunks = math.prod(-(-n // c) for n, c in zip(extents, layout.chunks, strict=True))
    if not layout.shards:
        return chunks, stripe_bytes, 2 * chunk_bytes
    part = math.prod(map(min, layout.shards, extents)) * layout.itemsize
    beside = 2 * part + 2 * min(MOST_CHUNKS_IN_FLIGHT * chunk_bytes, max(part, chunk_bytes))
    return chunks, stripe_bytes, beside


def refuse_senseless_rank(layout: Layout, settings: Settings) -> None:
    """Refuse more components than would give back any array of the shape: one a fibre of the longest axis."""
    most, shape = math.prod(layout.shape) // max(layout.shape), " x ".join(map(str, layout.shape))
    if settings.rank > most and settings.decomposition == "cp":
        raise UsageError(
            f"--rank is {settings.rank}, but {most} components, one a fibre of the longest axis, give back"
            f" any {shape} tensor."
        )
    if settings.rank > most:
        raise UsageError(f"--rank is {settings.rank}, larger than min(n, m) = {most} of a {shape} source.")


def compressed_axes(layout: Layout, settings: Settings) -> list[int]:
    """Return the axis of the long factor, the longest or the one asked for, and others to be sampled."""
    if settings.axis == "longest":
        return [layout.shape.index(max(layout.shape))]
    axes = [int(part) for part in settings.axis.split(",")]
    if max(axes) >= len(layout.shape):
        raise UsageError(f"--axis is {settings.axis}; SOURCE has the axes 0 to {len(layout.shape) - 1}.")
    if len(set(axes)) < len(axes) or len(axes) == len(layout.shape):
        raise UsageError(f"--axis is {settings.axis}; name each axis once, and leave at least one out.")
    if len(axes) > 1 and not _may_sample(settings):
        raise UsageError(
            "More than one compressed mode needs --method auto or rows and an exact pass (--refine 1), which"
            " then finds their factors in full."
        )
    return axes


def _may_sample(settings: Settings) -> bool:
    """Whether H is found from a sample of rows, and then in full by an exact pass."""
    return settings.decomposition == "cp" and settings.method in ("auto", "rows") and settings.refine > 0


def slices_of(axis: int, asked: list[int], layout: Layout, settings: Settings) -> tuple[int, ...]:
    """Return how many entries of each other mode the sketches see.

    All; an eighth of those that are asked to be compressed; and where a sample of rows would be very wide, so
    few of the longest that it fits. It follows from the shape alone: the budget decides no bits.
    """
    modes = [mode for mode in range(len(layout.shape)) if mode != axis]
    seen = {mode: layout.shape[mode] for mode in modes}
    least = LEAST_SLICES * settings.rank
    for mode in asked:
        seen[mode] = min(seen[mode], max(least, -(-seen[mode] // SLICES)))
    row_bytes = (8 if layout.compute_dtype == "float64" else 4) * max(50 * settings.rank, 500)
    if _may_sample(settings) and not asked and row_bytes * math.prod(seen.values()) > WIDEST_SAMPLE_BYTES:
        for mode in sorted(modes, key=lambda mode: -layout.shape[mode]):
            fits = SAMPLE_BYTES * seen[mode] // (row_bytes * math.prod(seen.values()))
            seen[mode] = min(seen[mode], max(least, fits))
    return tuple(seen[mode] for mode in modes)


def carried_of(axis: int, settings: Settings, range_size: int) -> int:
    """Return how many components the passes carry.

    An exact pass is a step of subspace iteration: all the directions that the sketch knows go along, and
    the leading ones are taken at the end. Means of the rows that are taken out are one more.
    """
    if settings.decomposition != "svd":
        return settings.rank
    size = range_size if range_size and settings.refine else settings.rank
    return size + (mean_of(axis, settings) == "rows")


def mean_of(axis: int, settings: Settings) -> str:
    """Return whose means are taken out of M, the compressed axis first: no, its columns' or its rows'."""
    turned = {"no": "no", "columns": "rows", "rows": "columns"}
    return settings.center if axis == 0 else turned[settings.center]


def sketch_sizes(rows: int, width: int, layout: Layout, settings: Settings) -> tuple[int, int, int, int]:
    """Return (d, s, rows held out of the sample, q): which sketches a method takes, and their sizes."""
    method, kind = settings.method, settings.decomposition
    rank, asked, one_pass = settings.rank, settings.sketch_size, settings.refine == 0
    if method == "full":
        return 0, 0, 0, 0
    if asked is not None and asked < rank:
        raise UsageError(f"--sketch-size is {asked}, below the rank {rank}; take at least {2 * rank}.")
    d = s = held_out = q = 0
    computed = 8 if layout.compute_dtype == "float64" else 4
    recovers = "factorize-recover" in METHODS_OF[kind]
    one_sided = method in RECOVERED or (method == "auto" and one_pass and recovers)
    if one_sided:
        d = asked or max(20 * rank, min(rows // 10, 128 * MIB // (8 * width)))
        if settings.nnz_per_column > d:
            raise UsageError(f"--nnz-per-column is {settings.nnz_per_column}, above the sketch size {d}.")
    if "rows" in METHODS_OF[kind] and method not in RECOVERED:
        chosen = max(50 * rank, 500, min(2000, rows // 10, SAMPLE_BYTES // (computed * width)))
        s = min(rows, chosen if one_sided else asked or chosen)
        held_out = min(s, max(s // HELD_OUT, LEAST_HELD_OUT)) if kind in COMPARED else 0
        if s + held_out >= rows:  # every row is at hand: none need be kept out
            s, held_out = rows, 0
    # Where every row is in the sample and W comes from an exact pass, the surrogate knows nothing more.
    second = kind in CARRIED_ON and held_out
    if method == "range" or (method == "auto" and (second or one_pass or not s)):
        affordable = max(width // RANGE_SHARE, RANGE_BYTES // (rows * computed))
        q = min(width, max(2 * rank + 1, min(4 * rank + 1, affordable)))
    return d, s, held_out, q


def panel_rows(tile_rows: int, row_bytes: int) -> int:
    """Return the rows that the first pass works on at once: several tiles, unless these are large."""
    return max(tile_rows, PANEL_BYTES // row_bytes)
