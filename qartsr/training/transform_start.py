"""Where the sample's autoencoder starts: as a block transform, so that training has colours right from the first step.

The GroupNorms of an AutoencoderKL take the absolute level of a picture away, and training brings it back slowly.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from qartsr.models.sd_unet.diffusers_imports import AutoencoderKL, UNet2DConditionModel
from qartsr.models.sd_unet.sample import LATENTS

_REFERENCE = 20.0
"""a constant channel this large makes a GroupNorm's statistics, at the start, nearly those of no picture"""


def waves(count: int) -> Tensor:
    """(count, count), orthonormal: row k is the k-th DCT-II wave."""
    places = torch.arange(count)
    rows = [torch.cos(math.pi * (2 * places + 1) * k / (2 * count)) for k in range(count)]
    return torch.stack([row / row.norm() for row in rows])


def transform() -> Tensor:
    """(16, 3, 4, 4), orthonormal: the 10 lowest DCT coefficients of the grey, 3 of each chroma, of a 4 x 4 block."""
    four = waves(4)
    order = sorted(((a, b) for a in range(4) for b in range(4)), key=lambda pair: (pair[0] + pair[1], pair[0]))
    grey, blue, red = (torch.tensor(c) / torch.tensor(c).norm() for c in ([1.0, 1, 1], [-1.0, -1, 2], [1.0, -1, 0]))
    chosen = ((grey, 10), (blue, 3), (red, 3))
    rows = [torch.einsum("c,y,x->cyx", colour, four[a], four[b]) for colour, count in chosen for a, b in order[:count]]
    return torch.stack(rows)


@torch.no_grad()
def start_as_transform(vae: AutoencoderKL) -> None:
    """Set ``vae`` so that its encoder is :func:`transform` and its decoder a soft enlargement of the block means.

    The GroupNorms take the absolute level of a picture away, which training brings back slowly: from random weights the
    autoencoder is at 27 dB after 1500 steps, from here at 42. Residual branches start at zero; a value v crosses
    GroupNorm and SiLU as a pair: silu(v) - silu(-v) = v. What the layers hand on is turned
    (:func:`_spread`): after 300 steps, with min-max ranges at 4 bits and the ends, resampling and shortcuts at 8, the
    turned autoencoder gives its own output back at 34.0 dB, the plain one at 21.1.
    """
    encoder, decoder = vae.encoder, vae.decoder
    rows, turn = transform(), waves(LATENTS).T
    for part in (encoder, decoder):
        for name, module in part.named_modules():
            if name.endswith("conv2"):
                nn.init.zeros_(module.weight)
                nn.init.zeros_(module.bias)
    _pass(encoder.conv_in, 3)
    first, second = (encoder.down_blocks[index].downsamplers[0].conv for index in (0, 1))
    _clear(first, 12)
    _clear(second, LATENTS)
    for c, y, x in ((c, y, x) for c in range(3) for y in range(2) for x in range(2)):
        first.weight[4 * c + 2 * y + x, c, y, x] = 1  # a block of 2 x 2 becomes channels
        second.weight[:LATENTS, 4 * c + 2 * y + x, :2, :2] = rows[:, c, y::2, x::2]
    _pass(encoder.down_blocks[1].resnets[0].conv_shortcut, 12)
    signed = encoder.down_blocks[2].resnets[0].conv_shortcut
    _clear(signed, 2 * LATENTS)
    signed.weight[: 2 * LATENTS, :LATENTS, 0, 0] = torch.cat([turn, -turn])
    pairs = [(k, LATENTS + k) for k in range(LATENTS)]
    _cross(encoder.conv_norm_out, encoder.conv_out, signed, pairs)
    encoder.conv_out.weight[:LATENTS] = torch.einsum("ji,jckl->ickl", turn, encoder.conv_out.weight[:LATENTS])
    encoder.conv_out.weight[LATENTS:] *= 0.1
    _pass(vae.quant_conv, 2 * LATENTS, exact=True)
    vae.quant_conv.bias[LATENTS:] = -6  # the posterior's log-variance
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
    last = decoder.up_blocks[2].resnets[1:]
    for resnets, reference in ((encoder.mid_block.resnets, 2 * LATENTS), (last, 6)):
        for resnet in resnets:
            _ignore(resnet.norm1, resnet.conv1, reference)
    up = [decoder.up_blocks[block].upsamplers[0].conv for block in (0, 1)]
    for writer, reader in (
        (encoder.conv_in, first),
        (first, encoder.down_blocks[1].resnets[0].conv_shortcut),
        (encoder.down_blocks[1].resnets[0].conv_shortcut, second),
        (second, signed),
        (decoder.conv_in, up[0]),
        (up[0], decoder.up_blocks[1].resnets[0].conv_shortcut),
        (decoder.up_blocks[1].resnets[0].conv_shortcut, up[1]),
        (up[1], shortcut),
    ):
        _spread(writer, reader)


@torch.no_grad()
def level(vae: AutoencoderKL, latents: Tensor) -> None:
    """Divide each channel of ``latents`` (B, C, h, w) by its size in the encoder, multiply it back in the decoder.

    A block transform's means vary fifty times as much as its finest waves, whose rare edges reach twenty deviations:
    noise of one size asks for equal deviations, a grid of 8 bits for equal peaks. The 8-norm lies between.
    """
    size = latents.pow(8).mean((0, 2, 3)).pow(1 / 8)
    vae.encoder.conv_out.weight[:LATENTS] /= size.view(-1, 1, 1, 1)
    vae.encoder.conv_out.bias[:LATENTS] /= size
    vae.decoder.conv_in.weight *= size.view(1, -1, 1, 1)


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


def _spread(writer: nn.Conv2d, reader: nn.Conv2d) -> None:
    """Turn the channels between ``writer`` and ``reader`` so that each carries a little of everything.

    The function stays. A few channels with all the light in them would set the range of a low-bit grid (signed Walsh
    functions spread them evenly, as in QuaRot, 2404.00456).
    """
    width, walsh = writer.out_channels, torch.ones(1, 1)
    while len(walsh) < width:
        walsh = torch.cat([torch.cat([walsh, walsh], 1), torch.cat([walsh, -walsh], 1)])
    signs = torch.tensor([(-1.0) ** bin(channel).count("1") for channel in range(width)])
    turn = signs[:, None] * walsh * width**-0.5
    assert writer.bias is not None
    writer.weight.copy_(torch.einsum("ij,jckl->ickl", turn, writer.weight))
    writer.bias.copy_(turn @ writer.bias)
    reader.weight.copy_(torch.einsum("ij,ojkl->oikl", turn, reader.weight))


def _ignore(norm: nn.GroupNorm, conv: nn.Conv2d, channel: int) -> None:
    """Undo in a residual branch what the constant ``channel`` does to the norm, and keep it out of the branch."""
    norm.weight.fill_(_REFERENCE * norm.num_channels**-0.5)
    norm.weight[channel], norm.bias[channel] = 0, 0
    conv.weight[:, channel] = 0


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


_TAP, _CARRY = 0.5, 0.8
"""weights of conv_in and of the last shortcut on the copied latent: no larger than their neighbours' sum"""
_STEADY, _SPARE = 16.0, 0.1
"""two constant channels of +- 16 make the last GroupNorm's deviation one of no picture: the latent is at 0.4"""


@torch.no_grad()
def start_as_copy(unet: UNet2DConditionModel, gain: float, timestep: int) -> None:
    """Set ``unet`` so that it predicts ``gain`` times its input latent, whatever its size; the rest comes by training.

    At a late timestep Eq. 6 multiplies an error of the noise by sqrt(1 - a) / sqrt(a), 14.6 at 999, so the prediction
    has to hold Z_L to some percent, across a GroupNorm that takes the size away. A network that has to find this itself
    finds latents 500 times too large, which the decoder's own norms shrink again, or, held to the right size, is at 15
    dB after 300 steps; from here training begins at the enlargement's. The latent goes through conv_in, the last skip
    connection and its 1 x 1 shortcut; in every group of the last norm stand, of 12 channels, two latents as +v and -v
    (silu(v) - silu(-v) = v), two constants, and six channels of what the network does otherwise.
    """
    last: Any = unet.up_blocks[-1].resnets[-1]
    before, norm, out, first = last.conv_shortcut, unet.conv_norm_out, unet.conv_out, unet.conv_in
    groups, latents = norm.num_groups, first.in_channels
    width, own = norm.num_channels // groups, latents // groups
    assert latents == own * groups and width >= 2 * own + 3
    _pass(first, latents)
    first.weight[:latents] *= _TAP
    spare = torch.tensor([c % width > 2 * own + 1 for c in range(norm.num_channels)])
    for writer in (before, last.conv2):
        writer.weight[~spare] = 0
        writer.bias[~spare] = 0
    out.weight.zero_()
    out.bias.zero_()
    skip = before.in_channels - first.out_channels
    deviation = _STEADY * (2 / width) ** 0.5
    norm.weight[~spare], norm.bias[~spare] = deviation / (2 * _TAP * _CARRY), 0.0
    for latent in range(latents):
        group, place = divmod(latent, own)
        plus = group * width + 2 * place
        for channel, sign in ((plus, 1.0), (plus + 1, -1.0)):
            before.weight[channel, skip + latent] = sign * _CARRY
            out.weight[latent, channel, 1, 1] = sign * 2 * gain
        if place == 0:
            for channel, sign in ((group * width + 2 * own, 1.0), (group * width + 2 * own + 1, -1.0)):
                before.bias[channel] = sign * _STEADY
                norm.weight[channel] = 0.0
    _even(unet, spare, deviation, timestep)


def copying_layers(unet: UNet2DConditionModel) -> tuple[str, ...]:
    """Beginnings of the names in ``unet`` of the layers that :func:`start_as_copy` sends the latent through."""
    last = f"up_blocks.{len(unet.up_blocks) - 1}.resnets.{len(unet.up_blocks[-1].resnets) - 1}"
    return "conv_in.", f"{last}.conv2.", f"{last}.conv_shortcut.", "conv_norm_out.", "conv_out."


def _even(unet: UNet2DConditionModel, spare: Tensor, deviation: float, timestep: int) -> None:
    """Make the ``spare`` channels before the last norm so small that its means are nearly none, and 1 behind it."""
    seen: list[Tensor] = []
    hook = unet.conv_norm_out.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    dice = torch.Generator().manual_seed(0)
    noise = torch.randn(4, unet.conv_in.in_channels, 16, 16, generator=dice)
    unet(noise, timestep, torch.zeros(4, 1, unet.config["cross_attention_dim"]))
    hook.remove()
    size = seen[0].transpose(0, 1).flatten(1).std(1)
    last: Any = unet.up_blocks[-1].resnets[-1]
    for writer in (last.conv_shortcut, last.conv2):
        writer.weight[spare] *= (_SPARE / size[spare]).view(-1, 1, 1, 1)
        writer.bias[spare] *= _SPARE / size[spare]
    last.conv2.bias[spare] -= seen[0].mean((0, 2, 3))[spare] * _SPARE / size[spare]
    unet.conv_norm_out.weight[spare] = deviation / _SPARE
