"""Triton: the bit stream of a package becomes int8 codes in the order of the product."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def unpack(
    stream, zero, out, count, size, C: tl.constexpr, TAPS: tl.constexpr, BITS: tl.constexpr, BLOCK: tl.constexpr
):
    """Element (o, tap, c) of ``out`` is code (o C + c) TAPS + tap of the stream, less the zero point of o.

    A code of up to 8 bits lies within two neighbouring bytes, its lowest bit first.
    """
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    row, c = i // C, i % C
    o, tap = row // TAPS, row % TAPS
    first = ((o * C + c) * TAPS + tap) * BITS
    byte = first >> 3
    low = tl.load(stream + byte, mask=inside, other=0).to(tl.int32)
    high = tl.load(stream + byte + 1, mask=inside & (byte + 1 < size), other=0).to(tl.int32)
    code = ((low | (high << 8)) >> (first & 7).to(tl.int32)) & ((1 << BITS) - 1)
    tl.store(out + i, (code - tl.load(zero + o, mask=inside, other=0)).to(tl.int8), mask=inside)
