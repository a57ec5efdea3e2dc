"""Where the sample's autoencoder starts: as a block transform, so that training has colours right from the first step.

The GroupNorms of an AutoencoderKL take the absolute level of a picture away, and training brings it back slowly.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from qartsr.models.libraries import AutoencoderKL
from qartsr.models.sample import LATENTS

_REFERENCE = 20.0
"""a constant channel this large makes a GroupNorm's statistics, at the start, nearly those of no picture"""


def transform() -> Tensor:
    """(16, 3, 4, 4), orthonormal: the 10 lowest DCT coefficients of the grey, 3 of each chroma, of a 4 x 4 block."""
    places = torch.arange(4)
    waves = torch.stack([torch.cos(math.pi * (2 * places + 1) * k / 8) * (0.5 if k else 0.25) ** 0.5 for k in range(4)])
    order = sorted(((a, b) for a in range(4) for b in range(4)), key=lambda pair: (pair[0] + pair[1], pair[0]))
    grey, blue, red = (torch.tensor(c) / torch.tensor(c).norm() for c in ([1.0, 1, 1], [-1.0, -1, 2], [1.0, -1, 0]))
    chosen = ((grey, 10), (blue, 3), (red, 3))
    rows = [
        torch.einsum("c,y,x->cyx", colour, waves[a], waves[b]) for colour, count in chosen for a, b in order[:count]
    ]
    return torch.stack(rows)


@torch.no_grad()
def start_as_transform(vae: AutoencoderKL) -> None:
    """Set ``vae`` so that its encoder is :func:`transform` and its decoder a soft enlargement of the block means.

    The GroupNorms take the absolute level of a picture away, which training brings back slowly: from random weights the
    autoencoder is at 27 dB after 1500 steps, from here at 42. Residual branches start at zero; a value v crosses
    GroupNorm and SiLU as a pair: silu(v) - silu(-v) = v.
    """
    encoder, decoder, rows = vae.encoder, vae.decoder, transform()
    for part in (encoder, decoder):
        for name, module in part.named_modules():
            if name.endswith("conv2"):
                nn.init.zeros_(module.weight)
                nn.init.zeros_(module.bias)
    _pass(encoder.conv_in, 3)
    first, second = (encoder.down_blocks[index].downsamplers[0].conv for index in (0, 1))
    _clear(first, 12)
    _clear(second, 2 * LATENTS)
    for c, y, x in ((c, y, x) for c in range(3) for y in range(2) for x in range(2)):
        first.weight[4 * c + 2 * y + x, c, y, x] = 1  # a block of 2 x 2 becomes channels
        second.weight[:LATENTS, 4 * c + 2 * y + x, :2, :2] = rows[:, c, y::2, x::2]
    second.weight[LATENTS : 2 * LATENTS] = -second.weight[:LATENTS]
    _pass(encoder.down_blocks[1].resnets[0].conv_shortcut, 12)
    _pass(encoder.down_blocks[2].resnets[0].conv_shortcut, 2 * LATENTS)
    pairs = [(k, LATENTS + k) for k in range(LATENTS)]
    _cross(encoder.conv_norm_out, encoder.conv_out, encoder.down_blocks[2].resnets[0].conv_shortcut, pairs)
    encoder.conv_out.bias[LATENTS:] = -6  # the posterior's log-variance
    encoder.conv_out.weight[LATENTS:] *= 0.1
    _pass(vae.quant_conv, 2 * LATENTS, exact=True)
    _pass(vae.post_quant_conv, LATENTS, exact=True)
    _pass(decoder.conv_in, LATENTS)
    soft = torch.tensor([0.25, 0.5, 0.25])
    for block in (0, 1):
        _pass(decoder.up_blocks[block].upsamplers[0].conv, LATENTS, kernel=soft[:, None] * soft)
    _pass(decoder.up_blocks[1].resnets[0].conv_shortcut, LATENTS)
    shortcut, means = decoder.up_blocks[2].resnets[0].conv_shortcut, rows.mean((2, 3))
    _clear(shortcut, 6)
    shortcut.weight[0:6:2, :LATENTS, 0, 0], shortcut.weight[1:6:2, :LATENTS, 0, 0] = means.T, -means.T
    _cross(decoder.conv_norm_out, decoder.conv_out, shortcut, [(0, 1), (2, 3), (4, 5)])


@torch.no_grad()
def whiten(vae: AutoencoderKL, deviation: Tensor) -> None:
    """Divide each latent channel by its ``deviation`` (C,) in the encoder, multiply it back in the decoder.

    A block transform's means vary fifty times as much as its finest waves; noise of one size needs latents of one size.
    """
    vae.encoder.conv_out.weight[:LATENTS] /= deviation.view(-1, 1, 1, 1)
    vae.encoder.conv_out.bias[:LATENTS] /= deviation
    vae.decoder.conv_in.weight *= deviation.view(1, -1, 1, 1)


def _clear(conv: nn.Conv2d, count: int) -> None:
    conv.weight[:count] = 0
    assert conv.bias is not None
    conv.bias[:count] = 0


def _pass(conv: nn.Conv2d, count: int, *, exact: bool = False, kernel: Tensor | None = None) -> None:
    """The first ``count`` outputs are the first ``count`` inputs, through ``kernel``; ``exact``: and nothing else."""
    _clear(conv, conv.out_channels if exact else count)
    centre = conv.kernel_size[0] // 2
    for index in range(count):
        if kernel is None:
            conv.weight[index, index, centre, centre] = 1
        else:
            conv.weight[index, index] = kernel


def _cross(norm: nn.GroupNorm, conv: nn.Conv2d, before: nn.Conv2d, pairs: list[tuple[int, int]]) -> None:
    """Make ``conv``(silu(``norm``(.))) give the values that channels ``pairs`` hold as +v and -v.

    ``before``, which feeds the norm, gets a constant channel behind the pairs; the norm leaves it out of its output.
    """
    reference, width = 2 * len(pairs), norm.num_channels
    _clear(before, 0)
    before.weight[reference] = 0
    assert before.bias is not None
    before.bias[reference] = _REFERENCE
    before.weight[reference + 1 :] *= 0.3
    nn.init.ones_(norm.weight)
    nn.init.constant_(norm.bias, width**-0.5)
    norm.weight[reference], norm.bias[reference] = 0, 0
    assert conv.bias is not None
    conv.weight[: len(pairs)] *= 0.05
    conv.bias[: len(pairs)] = 0
    for row, (plus, minus) in enumerate(pairs):
        conv.weight[row, : reference + 1] = 0
        conv.weight[row, plus, 1, 1], conv.weight[row, minus, 1, 1] = (
            _REFERENCE * width**-0.5,
            -_REFERENCE * width**-0.5,
        )
