"""Unsigned codes of 2 to 8 bits as one dense bit stream: code ``i`` is bits ``i*b`` to ``i*b + b - 1``.

Little-endian throughout: bit ``k`` of the stream is bit ``k % 8`` (value ``1 << k % 8``) of byte ``k // 8``, and the
lowest bit of a code comes first. Eight codes of b bits are exactly b bytes; the last byte is filled up with zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
_GROUP = 8


def packed_size(count: int, bits: int) -> int:
    """Bytes that ``count`` codes of ``bits`` bits take."""
    return (count * bits + 7) // 8


def pack(codes: NDArray[Any], bits: int) -> Bytes:
    """Integer ``codes`` of any shape, 0..2**bits - 1, in their flat order -> uint8 (packed_size,).

    Raises ValueError for bits outside 2..8 and for a code that does not fit.
    """
    shifts, flat = _shifts(bits), codes.reshape(-1)
    if flat.size and (flat.min() < 0 or flat.max() >= 2**bits):
        raise ValueError(f"a code does not fit in {bits} bits")
    words = np.zeros((-(-flat.size // _GROUP), _GROUP), "<u8")
    words.reshape(-1)[: flat.size] = flat
    joined = np.bitwise_or.reduce(words << shifts, axis=1).astype("<u8")
    stream = np.ascontiguousarray(joined.view(np.uint8).reshape(-1, 8)[:, :bits]).reshape(-1)
    return stream[: packed_size(flat.size, bits)].copy()


def unpack(stream: Bytes, bits: int, count: int) -> Bytes:
    """The first ``count`` codes of a stream -> uint8 (count,). Raises ValueError when its length does not fit."""
    shifts = _shifts(bits)
    if stream.shape != (packed_size(count, bits),):
        raise ValueError(f"{stream.shape} bytes cannot hold {count} codes of {bits} bits")
    groups = -(-count // _GROUP)
    padded = np.zeros(groups * bits, np.uint8)
    padded[: stream.size] = stream
    words = np.zeros((groups, 8), np.uint8)
    words[:, :bits] = padded.reshape(groups, bits)
    codes = (words.view("<u8") >> shifts) & np.uint64(2**bits - 1)
    return codes.astype(np.uint8).reshape(-1)[:count]


def _shifts(bits: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    if not 2 <= bits <= 8:
        raise ValueError(f"{bits} bits are outside 2..8")
    return np.arange(0, _GROUP * bits, bits, dtype=np.uint64)
