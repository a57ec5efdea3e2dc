"""What runs on the GPU, in Triton: unpacking of codes, their making, and their product.

Unpacking: the bit stream of a package becomes int8 codes in the order of the product.

Making: inputs become codes in one pass, after normalisation and SiLU where these come before. The arithmetic is fp32
with correctly rounded divisions, operation by operation that of the fake-quantized model, so equal inputs have equal
codes. GroupNorm's sums and SiLU's exponential are rounded in another order than torch's: after them a code may differ
where a value lies within such a rounding of the middle between two codes.

Product: a convolution of int8 codes as an implicit matrix product, and its epilogue. Row m is an output position,
column n an output channel; the depth runs over the taps of the window and, within each, over the input channels,
BLOCK_K at a time. Codes beyond the image are those of its border. Both operands lie with the depth innermost, as int8
tensor cores want them.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def place(pid, rows, outputs, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP: tl.constexpr):
    """Tile of program ``pid``: GROUP rows of tiles are walked together, so that weights are read from the L2 cache."""
    tiles_m = tl.cdiv(rows, BLOCK_M)
    tiles_n = tl.cdiv(outputs, BLOCK_N)
    first = (pid // (GROUP * tiles_n)) * GROUP
    height = tl.minimum(tiles_m - first, GROUP)
    inside = pid % (GROUP * tiles_n)
    return first + inside % height, inside // height


@triton.jit
def finish(
    sums, row_sums, out, scale, bias, rows_factor, down, left, residual, m, n, rows, outputs, pixels,
    ROWS: tl.constexpr, PER_IMAGE: tl.constexpr, RANK: tl.constexpr, RANK_BLOCK: tl.constexpr, RESIDUAL: tl.constexpr,
):  # fmt: skip
    """Y = S scale + A rows + bias + left down + residual, in fp32, stored in the type of ``out``."""
    inside = (m < rows)[:, None] & (n < outputs)[None, :]
    y = sums.to(tl.float32) * tl.load(scale + n, mask=n < outputs, other=0.0)[None, :]
    if PER_IMAGE:
        y += tl.load(bias + (m // pixels)[:, None] * outputs + n[None, :], mask=inside, other=0.0)
    else:
        y += tl.load(bias + n, mask=n < outputs, other=0.0)[None, :]
    if ROWS:
        y += row_sums.to(tl.float32)[:, None] * tl.load(rows_factor + n, mask=n < outputs, other=0.0)[None, :]
    if RANK > 0:
        r = tl.arange(0, RANK_BLOCK)
        a = tl.load(down + m[:, None] * RANK + r[None, :], mask=(m < rows)[:, None] & (r < RANK)[None, :], other=0.0)
        b = tl.load(left + n[None, :] * RANK + r[:, None], mask=(n < outputs)[None, :] & (r < RANK)[:, None], other=0.0)
        y += tl.dot(a, b, input_precision="ieee")
    where = m[:, None].to(tl.int64) * outputs + n[None, :]
    if RESIDUAL:
        y += tl.load(residual + where, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + where, y.to(out.dtype.element_ty), mask=inside)


@triton.jit
def product(
    codes, weight, border, out, partial, partial_rows, scale, bias, rows_factor, down, left, residual,
    rows, outputs, height, width, out_height, out_width,
    C: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    PH: tl.constexpr, PW: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr,
    POINTWISE: tl.constexpr, BORDER: tl.constexpr, ROWS: tl.constexpr, PER_IMAGE: tl.constexpr,
    RANK: tl.constexpr, RANK_BLOCK: tl.constexpr, RESIDUAL: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, SPLITS: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """One tile of the output, or with SPLITS > 1 its integer sums over one part of the depth."""
    tile_m, tile_n = place(tl.program_id(0), rows, outputs, BLOCK_M, BLOCK_N, GROUP)
    m = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    pixels = out_height * out_width
    image, pixel = m // pixels, m % pixels
    top, leftmost = (pixel // out_width) * SH - PH, (pixel % out_width) * SW - PW
    blocks: tl.constexpr = (C + BLOCK_K - 1) // BLOCK_K
    share: tl.constexpr = (KH * KW * blocks + SPLITS - 1) // SPLITS
    split = tl.program_id(1)
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    row_sums = tl.zeros((BLOCK_M,), tl.int32)
    for step in range(split * share, tl.minimum((split + 1) * share, KH * KW * blocks)):
        tap, c = step // blocks, (step % blocks) * BLOCK_K + k
        if POINTWISE:
            a = tl.load(codes + m[:, None] * C + c[None, :], mask=(m < rows)[:, None] & (c < C)[None, :], other=0)
        else:
            y, x = top + (tap // KW) * DH, leftmost + (tap % KW) * DW
            seen = (m < rows) & (y >= 0) & (y < height) & (x >= 0) & (x < width)
            source = (image * height + y) * width + x
            a = tl.load(codes + source[:, None] * C + c[None, :], mask=seen[:, None] & (c < C)[None, :], other=0)
            if BORDER:
                beyond = tl.load(border + c, mask=c < C, other=0)
                a = tl.where(seen[:, None], a, beyond[None, :])
        b = tl.load(
            weight + n[None, :] * (KH * KW * C) + tap * C + c[:, None],
            mask=(n < outputs)[None, :] & (c < C)[:, None],
            other=0,
        )
        sums = tl.dot(a, b, sums, out_dtype=tl.int32)
        if ROWS:
            row_sums += tl.sum(a.to(tl.int32), axis=1)
    if SPLITS == 1:
        finish(
            sums, row_sums, out, scale, bias, rows_factor, down, left, residual, m, n, rows, outputs, pixels,
            ROWS, PER_IMAGE, RANK, RANK_BLOCK, RESIDUAL,
        )  # fmt: skip
    else:
        where = (split * rows + m)[:, None].to(tl.int64) * outputs + n[None, :]
        tl.store(partial + where, sums, mask=(m < rows)[:, None] & (n < outputs)[None, :])
        if ROWS and tile_n == 0:
            tl.store(partial_rows + split * rows + m, row_sums, mask=m < rows)


@triton.jit
def gather(
    partial, partial_rows, out, scale, bias, rows_factor, down, left, residual, rows, outputs, pixels,
    ROWS: tl.constexpr, PER_IMAGE: tl.constexpr, RANK: tl.constexpr, RANK_BLOCK: tl.constexpr, RESIDUAL: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """Add the parts of a split product and finish one tile. Integers: the order does not matter."""
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = (m < rows)[:, None] & (n < outputs)[None, :]
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    row_sums = tl.zeros((BLOCK_M,), tl.int32)
    for split in range(SPLITS):
        where = (split * rows + m)[:, None].to(tl.int64) * outputs + n[None, :]
        sums += tl.load(partial + where, mask=inside, other=0)
        if ROWS:
            row_sums += tl.load(partial_rows + split * rows + m, mask=m < rows, other=0)
    finish(
        sums, row_sums, out, scale, bias, rows_factor, down, left, residual, m, n, rows, outputs, pixels,
        ROWS, PER_IMAGE, RANK, RANK_BLOCK, RESIDUAL,
    )  # fmt: skip


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
