"""Triton: convolution of int8 codes as an implicit matrix product, and its epilogue.

Row m of the product is an output position, column n an output channel; the depth runs over the taps of the window and,
within each, over the input channels, BLOCK_K at a time. Codes beyond the image are those of its border. Both operands
lie with the depth innermost, as int8 tensor cores want them.
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
