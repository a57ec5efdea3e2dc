"""Parts of transformers' layers: inputs that are rotated, that have a range per token, branches made of blocks.

With H the rotation and a token's own step s (:class:`qartsr.quantizers.TokenGaussian`), its codes being c + r, c whole:

    x^ = s (c + r),  c = round(clip(x H / s - r)),   y = s (W^ c + r sum W^) + b + L1 L2 x

so that the product is one of whole numbers on one fixed grid, as other layers have it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from qartsr.artifact.hadamard import factors
from qartsr.artifact.values import left_of_blocks, right_of_blocks
from qartsr.export.graph import Graph, Ref
from qartsr.packing.packed_layer import Hierarchical, LowRank
from qartsr.quantizers import Grid, TokenGaussian
from qartsr.quantizers.fake import SMALLEST_SCALE
from qartsr.quantizers.gaussian import CLIP


def rotated(graph: Graph, x: Ref, order: int, rank: int, tail: int) -> Ref:
    """X H over the channels of ``x``, which has ``rank`` dimensions, ``tail`` of them behind the channels.

    In blocks of ``order``: two products, as torch makes them.
    """
    if order == 1:
        return x
    last = [axis for axis in range(rank) if axis != rank - 1 - tail] + [rank - 1 - tail]
    left, right = factors(order)
    first, second = (graph.constant(np.ascontiguousarray(each, np.float32), shared=True) for each in (right, left.T))
    before = [0] * (rank - 1)
    x = graph.node("Transpose", x, perm=last) if tail else x
    parts = graph.node("Reshape", x, np.array([*before, -1, len(left), len(right)], np.int64))
    turned = graph.node("MatMul", second, graph.node("MatMul", parts, first))
    y = graph.node("Reshape", turned, np.array([*before, -1], np.int64))
    return graph.node("Transpose", y, perm=[last.index(axis) for axis in range(rank)]) if tail else y


def token_step(graph: Graph, x: Ref, inputs: TokenGaussian) -> Ref:
    """The step of every token of ``x``, (..., C) or (B, C, H, W) -> (..., 1) or (B, 1, H, W)."""
    axis = np.array([-1 - inputs.tail], np.int64)
    sigma = graph.node("Sqrt", graph.node("ReduceMean", graph.node("Mul", x, x), axis, keepdims=1))
    bits = inputs.levels.bit_length()
    return graph.node("Max", graph.node("Mul", sigma, 2 * CLIP[bits] / 2**bits), SMALLEST_SCALE)


def unit_grid(inputs: TokenGaussian) -> Grid:
    """That of an input in steps of its token."""
    return Grid(torch.tensor(1.0), torch.tensor(-inputs.levels / 2), inputs.levels)


def branch(skip: LowRank | Hierarchical) -> tuple[Tensor, Tensor]:
    """L1 (O, r) and L2 (r, C, ...). Blocks, whose small products graphs lack, are written out as a rank each."""
    if isinstance(skip, LowRank):
        return skip.left, skip.right
    left, right = (
        torch.from_numpy(each)
        for each in (
            left_of_blocks(skip.block_left.cpu().numpy(), len(skip.block_right)),
            right_of_blocks(skip.block_right.cpu().numpy(), skip.block_left.shape[1]),
        )
    )
    return torch.cat([skip.left, left], 1), torch.cat([skip.right, right], 0)
