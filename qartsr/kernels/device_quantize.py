"""Triton: inputs become codes in one pass, after normalisation and SiLU where these come before; GroupNorm's moments.

The arithmetic of the codes is fp32 with correctly rounded divisions, operation by operation that of the fake-quantized
model, so equal inputs have equal codes. GroupNorm's sums and SiLU's exponential are rounded in another order than
torch's: after them a code may differ where a value lies within such a rounding of the middle between two codes.
"""

from __future__ import annotations

import triton
import triton.language as tl

ROUND: tl.constexpr = tl.constexpr(12582912.0)
"""1.5 * 2^23: adding and subtracting it rounds |x| < 2^22 half to even."""


@triton.jit
def quantize(
    x, gain, shift, delta, phi, grid, codes, values, rows, pixels, levels, zero,
    C: tl.constexpr, ACTIVATED: tl.constexpr, KEEP: tl.constexpr, BASIS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Codes of BLOCK_M rows of BLOCK_C channels; v is x or SiLU(x gain + shift).

    round(clip(((v - delta) / phi - offset) / scale, 0, levels)) - zero
    """
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = (m < rows)[:, None] & (c < C)[None, :]
    where = m[:, None].to(tl.int64) * C + c[None, :]
    v = tl.load(x + where, mask=inside, other=0.0).to(tl.float32)
    if ACTIVATED:
        per = (m // pixels)[:, None] * C + c[None, :]
        v = v * tl.load(gain + per, mask=inside, other=0.0) + tl.load(shift + per, mask=inside, other=0.0)
        v = v / (1.0 + tl.exp(-v))
        if KEEP:
            tl.store(values + where, v.to(values.dtype.element_ty), mask=inside)
    if BASIS:
        v = v - tl.load(delta + c, mask=c < C, other=0.0)[None, :]
        v = tl.div_rn(v, tl.broadcast_to(tl.load(phi + c, mask=c < C, other=1.0)[None, :], (BLOCK_M, BLOCK_C)))
    steps = tl.div_rn(v - tl.load(grid + 1), tl.load(grid) + tl.zeros((BLOCK_M, BLOCK_C), tl.float32))
    steps = tl.minimum(tl.maximum(steps, 0.0), levels)
    rounded = (steps + ROUND) - ROUND
    tl.store(codes + where, (rounded.to(tl.int32) - zero).to(tl.int8), mask=inside)


@triton.jit
def moments(
    x, means, squares, pixels, C: tl.constexpr, CHUNK: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr
):
    """The mean, and the sum of squared differences from it, of one chunk of pixels: per image and channel.

    Differences are taken from the chunk's first pixel, so that a large mean does not drown a small variance.
    """
    chunk, image = tl.program_id(0), tl.program_id(2)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    start = x + image.to(tl.int64) * pixels * C
    base = tl.load(start + chunk * CHUNK * C + c, mask=c < C, other=0.0).to(tl.float32)
    total, square = tl.zeros((BLOCK_C,), tl.float32), tl.zeros((BLOCK_C,), tl.float32)
    for first in range(0, CHUNK, BLOCK_M):
        m = chunk * CHUNK + first + tl.arange(0, BLOCK_M)
        inside = (m < pixels)[:, None] & (c < C)[None, :]
        v = tl.load(start + m[:, None] * C + c[None, :], mask=inside, other=0.0).to(tl.float32)
        d = tl.where(inside, v - base[None, :], 0.0)
        total += tl.sum(d, axis=0)
        square += tl.sum(d * d, axis=0)
    count = tl.minimum(CHUNK, pixels - chunk * CHUNK).to(tl.float32)
    where = (image * tl.num_programs(0) + chunk) * C + c
    tl.store(means + where, base + total / count, mask=c < C)
    tl.store(squares + where, square - total * total / count, mask=c < C)


@triton.jit
def normaliser(
    means, squares, weight, bias, gain, shift, pixels, chunks, eps,
    C: tl.constexpr, GROUPS: tl.constexpr, CHUNK: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Moments of one group of one image from those of its chunks, and the gain and shift they make of each channel.

    mean = sum n_i mean_i / N and N variance = sum (square_i + n_i (mean_i - mean)^2), i over chunks and channels.
    """
    group, image = tl.program_id(0), tl.program_id(1)
    size: tl.constexpr = C // GROUPS
    j = tl.arange(0, BLOCK_C)
    c = group * size + j
    start = image * chunks * C
    total = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
    for first in range(0, chunks, BLOCK_M):
        i = first + tl.arange(0, BLOCK_M)
        inside = (i < chunks)[:, None] & (j < size)[None, :]
        count = tl.minimum(CHUNK, pixels - i * CHUNK).to(tl.float32)[:, None]
        total += count * tl.load(means + start + i[:, None] * C + c[None, :], mask=inside, other=0.0)
    mean = tl.sum(total) / (pixels * size)
    spread = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
    for first in range(0, chunks, BLOCK_M):
        i = first + tl.arange(0, BLOCK_M)
        inside = (i < chunks)[:, None] & (j < size)[None, :]
        where = start + i[:, None] * C + c[None, :]
        count = tl.minimum(CHUNK, pixels - i * CHUNK).to(tl.float32)[:, None]
        apart = tl.where(inside, tl.load(means + where, mask=inside, other=0.0) - mean, 0.0)
        spread += tl.load(squares + where, mask=inside, other=0.0) + count * apart * apart
    gains = tl.load(weight + c, mask=j < size, other=0.0).to(tl.float32) / tl.sqrt(
        tl.sum(spread) / (pixels * size) + eps
    )
    tl.store(gain + image * C + c, gains, mask=j < size)
    shifts = tl.load(bias + c, mask=j < size, other=0.0).to(tl.float32) - mean * gains
    tl.store(shift + image * C + c, shifts, mask=j < size)
