"""VAE encoder and decoder on many tiles at once: every group norm waits for all tiles and pools their statistics.

A tile is a generator. It runs the network up to the next group norm, hands out the features it wants normalised, and
goes on with what it is sent. The script's group norm has 32 groups and epsilon 1e-6 whatever the model says; mean and
biased variance are averaged over tiles, weighted by pixels, without the variance between tiles. What each tile sees,
and which part of its output is kept, is :func:`tiles`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qartsr.errors import QartsrError

GROUPS, EPSILON = 32, 1e-6
Steps = Generator[tuple[nn.GroupNorm, Tensor], Tensor, Tensor]
"""Yields (norm, features), is sent the normalised features, returns the output."""


def run(network: Callable[[Tensor], Steps], tiles: list[Tensor]) -> list[Tensor]:
    """The network's output for every tile, each (B, C, h, w)."""
    walks = [network(tile) for tile in tiles]
    waiting, outputs = [next(walk) for walk in walks], []
    while waiting:
        gain, shift = _pooled(waiting)
        waiting, asked = [], waiting
        for walk in walks:
            _, features = asked.pop(0)
            try:
                waiting.append(walk.send(torch.addcmul(shift, features, gain)))
            except StopIteration as end:
                outputs.append(end.value)
    return outputs


def _pooled(asked: list[tuple[nn.GroupNorm, Tensor]]) -> tuple[Tensor, Tensor]:
    """Gain and shift per channel (1, C, 1, 1) of one norm over all tiles."""
    norm = asked[0][0]
    if norm.num_channels % GROUPS:
        raise QartsrError(
            f"the script's VAE tiling needs channels in multiples of {GROUPS}, a layer has {norm.num_channels}",
            "VAE tiles",
            "choose VAE tiles larger than the image",
        )
    groups = [features.reshape(GROUPS, -1) for _, features in asked]
    pixels = torch.tensor([features.shape[2] * features.shape[3] for _, features in asked]).to(groups[0])
    share = (pixels / pixels.sum())[:, None]
    mean = (torch.stack([each.mean(1) for each in groups]) * share).sum(0)
    variance = (torch.stack([each.var(1, correction=0) for each in groups]) * share).sum(0)
    width = norm.num_channels // GROUPS
    gain = torch.rsqrt(variance + EPSILON).repeat_interleave(width) * norm.weight
    shift = norm.bias - mean.repeat_interleave(width) * gain
    return gain[None, :, None, None], shift[None, :, None, None]


def encoder(vae: Any) -> Callable[[Tensor], Steps]:
    """The walk of a diffusers VAE encoder, up to the quant_conv."""

    def steps(x: Tensor) -> Steps:
        net = vae.encoder
        x = net.conv_in(x)
        for block in net.down_blocks:
            x = yield from _block(block.resnets, block.downsamplers, x)
        x = yield from _middle(net.mid_block, x)
        return (yield from _tail(net, x))

    return steps


def decoder(vae: Any) -> Callable[[Tensor], Steps]:
    """The walk of a diffusers VAE decoder, after the post_quant_conv."""

    def steps(x: Tensor) -> Steps:
        net = vae.decoder
        x = yield from _middle(net.mid_block, net.conv_in(x))
        for block in net.up_blocks:
            x = yield from _block(block.resnets, block.upsamplers, x)
        return (yield from _tail(net, x))

    return steps


def _block(resnets: Any, samplers: Any, x: Tensor) -> Steps:
    for resnet in resnets:
        x = yield from _resnet(resnet, x)
    for sampler in samplers or ():
        x = sampler(x)
    return x


def _middle(block: Any, x: Tensor) -> Steps:
    x = yield from _resnet(block.resnets[0], x)
    for attention, resnet in zip(block.attentions, block.resnets[1:], strict=True):
        x = yield from _attention(attention, x)
        x = yield from _resnet(resnet, x)
    return x


def _resnet(block: Any, x: Tensor) -> Steps:
    hidden = yield block.norm1, x
    hidden = yield block.norm2, block.conv1(F.silu(hidden))
    hidden = block.conv2(F.silu(hidden))
    return hidden + (x if block.conv_shortcut is None else block.conv_shortcut(x))


def _attention(block: Any, x: Tensor) -> Steps:
    """Self-attention within the tile."""
    hidden = yield block.group_norm, x
    tokens = hidden.flatten(2).transpose(1, 2)
    query, key, value = (
        project(tokens).unflatten(2, (block.heads, -1)).transpose(1, 2)
        for project in (block.to_q, block.to_k, block.to_v)
    )
    mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    return x + block.to_out[0](mixed).transpose(1, 2).reshape(x.shape)


def _tail(net: Any, x: Tensor) -> Steps:
    hidden = yield net.conv_norm_out, x
    output: Tensor = net.conv_out(F.silu(hidden))
    return output


class Span(NamedTuple):
    """One tile along one axis, in pixels of the component's input."""

    seen: slice
    kept: slice


class Tile(NamedTuple):
    """One tile of an image."""

    rows: Span
    columns: Span


def tiles(height: int, width: int, tile: int, pad: int) -> list[Tile]:
    """Tiles in rows, each seeing ``pad`` pixels beyond what it keeps. Raises QartsrError if ``tile`` is too small."""
    return [Tile(rows, columns) for rows in spans(height, tile, pad) for columns in spans(width, tile, pad)]


def spans(size: int, tile: int, pad: int) -> list[Span]:
    """Cores of equal size between the two pads; the first and last core keep the image's border too."""
    count = max(1, math.ceil((size - 2 * pad) / tile))
    side = _rounded(math.ceil((size - 2 * pad) / count), tile)
    found = []
    for index in range(count):
        begin, end = pad + index * side, min(pad + (index + 1) * side, size)
        kept = slice(begin if begin > pad else 0, end if end < size - pad else size)
        found.append(Span(slice(max(0, begin - pad), min(size, end + pad)), kept))
        if kept.start >= kept.stop:
            raise QartsrError(f"tiles of {tile} leave nothing of {size} pixels", "VAE tiles", "choose a larger tile")
    return found


def _rounded(side: int, most: int) -> int:
    """Up to the next multiple of the largest of 32, 16, 8, 4, 2 that keeps it at most ``most``."""
    for divisor in (32, 16, 8, 4, 2):
        if (candidate := math.ceil(side / divisor) * divisor) <= most or candidate == side:
            return candidate
    return side
