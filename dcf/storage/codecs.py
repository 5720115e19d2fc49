"""The codecs that a source may name, and decompressors that make no more of a chunk than it holds.

Metadata are as little to be trusted as chunks: some codecs of Zarr v2 run code (pickle), a few bytes
of any may decompress to more than there is memory, and Blosc does not notice a chunk that was cut.
"""

from __future__ import annotations

import asyncio
import bz2
import lzma
import math
import struct
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numcodecs  # type: ignore[import-untyped]  # it ships no types
import numpy as np
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import ShardingCodec

from dcf.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import zarr

_CHECKSUMS = ("crc32c", "crc32", "adler32", "fletcher32")
_SAME_SIZE = ("bytes", "transpose", "shuffle", "bitround")
# Filters that store numbers of another dtype: what they call that of the decoded and of the stored ones.
_RETYPED = {
    "delta": ("dtype", "astype"),
    "fixedscaleoffset": ("dtype", "astype"),
    "quantize": ("dtype", "astype"),
    "astype": ("decode_dtype", "encode_dtype"),
}
_BLOSC, _LZ4, _ZSTD = numcodecs.Blosc(), numcodecs.LZ4(), numcodecs.Zstd()  # any decodes all of its kind
_MIB = 1 << 20
_LZMA_MEMORY = 128 * _MIB  # twice what the highest preset takes
_ZSTD_MAGIC = 0xFD2FB528
_ZSTD_BLOCK = 1 << 17


def _agree(says: int, size: int) -> None:
    if says != size:
        raise ValueError(f"it claims to decode to {says} bytes, its shape takes {size}")


def _stored(data: Any, size: int) -> Any:
    return data


def _blosc(data: Any, size: int) -> Any:
    says, _, stored = struct.unpack_from("<III", data, 4)
    if stored != len(data):
        raise ValueError(f"its header says {stored} bytes, {len(data)} are there")
    _agree(says, size)
    return _BLOSC.decode(data, np.empty(size, np.uint8))


def _lz4(data: Any, size: int) -> Any:
    _agree(struct.unpack_from("<I", data)[0], size)
    return _LZ4.decode(data, np.empty(size, np.uint8))


def _zstd(data: Any, size: int) -> Any:
    if _zstd_frame(data, 0)[:2] == (True, size):  # there is room for no more, whatever follows
        return _ZSTD.decode(data, np.empty(size, np.uint8))
    known, most = _zstd_sizes(data)
    if known or most < size:
        _agree(most, size)
        return _ZSTD.decode(data, np.empty(size, np.uint8))
    # A block of an unknown size counts in full, though a writer may have ended it early.
    if most > 4 * size + _MIB:
        raise ValueError(f"it may decode to {most} bytes, its shape takes {size}")
    return _ZSTD.decode(data)


def _zstd_sizes(data: Any) -> tuple[bool, int]:
    """Return whether all frames tell how much they decode to, and the most that it can be (RFC 8878)."""
    at, total, known = 0, 0, True
    while at < len(data):
        tells, told, checksum, at = _zstd_frame(data, at)
        if checksum is None:  # a frame to be skipped
            continue
        most, last = 0, 0
        while not last:
            if at + 3 > len(data):
                raise ValueError("its last frame is cut off")
            header = int.from_bytes(bytes(data[at : at + 3]), "little")
            last, kind, length = header & 1, header >> 1 & 3, header >> 3
            most += _ZSTD_BLOCK if kind == 2 else length
            at += 3 + (1 if kind == 1 else length)
        at += checksum
        known = known and tells
        total += told if tells else most
    return known, total


def _zstd_frame(data: Any, at: int) -> tuple[bool, int, int | None, int]:
    """Read the header of the frame at byte `at`.

    Returns whether it tells how much it decodes to, and how much, the bytes of its checksum, and where its
    blocks begin. A frame that is to be skipped has None for a checksum and nothing but what follows it.
    """
    (magic,) = struct.unpack_from("<I", data, at)
    if magic >> 4 == 0x184D2A5:
        return False, 0, None, at + 8 + int(struct.unpack_from("<I", data, at + 4)[0])
    if magic != _ZSTD_MAGIC:
        raise ValueError("what follows is no Zstandard frame")
    flags = int(data[at + 4])
    single, checksum = flags >> 5 & 1, flags >> 2 & 1
    at += 5 + (not single) + (0, 1, 2, 4)[flags & 3]
    width = (single, 2, 4, 8)[flags >> 6]
    told = int.from_bytes(bytes(data[at : at + width]), "little") + (256 if width == 2 else 0)
    return width > 0, told, 4 * checksum, at + width


def _streamed(start: Callable[[], Any]) -> Callable[[Any, int], Any]:
    def decode(data: Any, size: int) -> Any:
        stream = start()
        whole = stream.decompress(data, size + 1)
        if not stream.eof:
            problem = f"it decodes to more than {size} bytes" if len(whole) > size else "its end is missing"
            raise ValueError(problem)
        if stream.unused_data:
            raise ValueError(f"{len(stream.unused_data)} bytes follow after its end")
        return whole

    return decode


_DECODERS: dict[str, Callable[[Any, int], Any]] = {
    "blosc": _blosc,
    "zstd": _zstd,
    "gzip": _streamed(lambda: zlib.decompressobj(wbits=31)),
    "zlib": _streamed(zlib.decompressobj),
    "bz2": _streamed(bz2.BZ2Decompressor),
    "lzma": _streamed(lambda: lzma.LZMADecompressor(memlimit=_LZMA_MEMORY)),
    "lz4": _lz4,
    "": _stored,
}


@dataclass(frozen=True)
class _Bounded:
    """A decompressor of chunks that must come to `size` bytes, as Zarr v2 (numcodecs) calls it."""

    name: str
    size: int

    codec_id = "bounded"

    def decode(self, data: Any, out: Any = None) -> Any:
        """Return what `data` decode to. Raises `ValueError` or the library's error for any other size."""
        decoded = _DECODERS[self.name](data, self.size)
        _agree(len(decoded), self.size)
        return decoded

    def encode(self, data: Any) -> Any:
        """Refuse to: a source is only read."""
        raise NotImplementedError

    get_config = from_config = encode


@dataclass(frozen=True)
class _BoundedV3(BytesBytesCodec):
    """The same, as Zarr v3 calls it."""

    bounded: _Bounded

    is_fixed_size = False

    def _decode_sync(self, data: Any, spec: Any) -> Any:
        return spec.prototype.buffer.from_bytes(self.bounded.decode(data.as_numpy_array()))

    async def _decode_single(self, data: Any, spec: Any) -> Any:
        return await asyncio.to_thread(self._decode_sync, data, spec)

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:
        """Refuse to: Zarr asks for it where it writes, and a source is only read."""
        raise NotImplementedError


def bounded(array: zarr.Array[Any], url: str) -> Any:
    """Return the array's metadata with decompressors that refuse a chunk of any size but its own.

    Raises `SourceError` where they name a codec that is not known to be harmless, or two compressors,
    the first of which would have no size to be held to.
    """
    metadata: Any = array.metadata
    itemsize = array.dtype.itemsize
    try:
        if metadata.zarr_format == 3:
            size = itemsize * math.prod(metadata.chunk_grid.chunk_shape)
            return replace(metadata, codecs=_pipeline(metadata.codecs, size, itemsize, inner=False))
        size = itemsize * math.prod(metadata.chunks)
        for codec in metadata.filters or ():
            size = _encoded(codec.codec_id, codec.get_config(), size)
        name = "" if metadata.compressor is None else metadata.compressor.codec_id
        if name not in _DECODERS:
            raise _Unreadable(name)
        return replace(metadata, compressor=_Bounded(name, size))
    except _Unreadable as error:
        raise SourceError(
            f"SOURCE {url} is stored with {error}, which dcf does not decode; rewrite it with one of"
            f" {', '.join(filter(None, _DECODERS))}."
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(
            f"SOURCE {url} has codecs whose settings make no sense ({type(error).__name__}: {error!s:.200});"
            " restore its metadata."
        ) from error


class _Unreadable(Exception):
    """What of the codecs is not to be used."""

    def __str__(self) -> str:
        return f"the codec {self.args[0]!r:.80}" + "".join(self.args[1:])


def _pipeline(codecs: Iterable[Any], size: int, itemsize: int, *, inner: bool) -> tuple[Any, ...]:
    """Return codecs of v3 that decode to `size` bytes, the compressor held to what it must come to."""
    found: list[Any] = []
    closed = False
    for codec in codecs:
        if isinstance(codec, ShardingCodec):
            if inner:
                raise _Unreadable("sharding_indexed", " inside another one")
            _pipeline(codec.index_codecs, 0, 0, inner=True)
            part = itemsize * math.prod(codec.chunk_shape)
            found.append(replace(codec, codecs=_pipeline(codec.codecs, part, itemsize, inner=True)))
            closed = True
            continue
        record = codec.to_dict()
        name, config = str(record["name"]), record.get("configuration", {})
        if name.startswith("numcodecs."):
            name = name.removeprefix("numcodecs.")
            if name in _RETYPED:  # tells the dtypes that the metadata may leave out
                config = numcodecs.get_codec({"id": name, **config}).get_config()
        if name not in _DECODERS:
            size = _encoded(name, config, size)
            found.append(codec)
        elif closed:
            raise _Unreadable(name, " around other compressed bytes")
        else:
            found.append(_BoundedV3(_Bounded(name, size)))
            closed = True
    return tuple(found)


def _encoded(name: str, config: Mapping[str, Any], size: int) -> int:
    """Return the bytes that a filter or checksum makes of `size` bytes."""
    if name in _CHECKSUMS:
        return size + 4
    if name in _SAME_SIZE:
        return size
    if name == "packbits":
        return 1 + -(-size // 8)
    if name not in _RETYPED:
        raise _Unreadable(name)
    decoded, stored = (np.dtype(config[key]) for key in _RETYPED[name])
    if any(dtype.kind not in "fiub" or dtype.itemsize > 8 for dtype in (decoded, stored)):
        raise _Unreadable(name, f" from {decoded} to {stored}")
    return size // int(decoded.itemsize) * int(stored.itemsize)
