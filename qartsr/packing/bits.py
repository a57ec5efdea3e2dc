"""Codes as a bit stream (:mod:`qartsr.artifact.bits`), in torch's tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from qartsr.artifact.bits import pack, packed_size, unpack

__all__ = ["pack_bits", "packed_size", "unpack_bits"]


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """Integer ``codes`` of any shape, 0..2**bits - 1, in their flat order -> uint8 (packed_size,).

    Raises ValueError for bits outside 2..8 and for a code that does not fit.
    """
    return torch.from_numpy(pack(codes.detach().cpu().numpy(), bits))


def unpack_bits(packed: Tensor, bits: int, count: int) -> Tensor:
    """The first ``count`` codes of a uint8 stream -> uint8 (count,). Raises ValueError when its length does not fit."""
    return torch.from_numpy(unpack(packed.detach().cpu().numpy(), bits, count))
