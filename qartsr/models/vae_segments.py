"""Segments of diffusers' autoencoder, which every backbone has around its denoiser, one block each.

RPQ needs to enter the network at any module and to leave it at the next one, with everything upstream computed once.
Convolutions at an end belong to the neighbouring block, so every quantizable layer is in one segment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

from torch import Tensor, nn

from qartsr.models.interface import Backbone, Segment, State

Run = Callable[[Any, State], State]
"""A backbone and the state before a segment -> the state behind it."""


def segment(
    model: Backbone, place: Literal["encoder", "denoiser", "decoder"], name: str, prefixes: Iterable[str], run: Run
) -> Segment:
    """A segment of all quantizable layers in the modules ``prefixes``."""
    inside = tuple(f"{prefix}." for prefix in prefixes)
    found = (layer for layer, part in model.named_modules() if isinstance(part, nn.Conv2d | nn.Linear))
    return Segment(name, place, tuple(layer for layer in found if f"{layer}.".startswith(inside)), run)


def encoder_segments(model: Backbone) -> list[Segment]:
    """From the image (B, 3, H, W), or several frames side by side in its channels, to Z_L (B, frames C, h, w)."""
    blocks = []
    for index in range(len(_vae(model).encoder.down_blocks)):
        block = f"vae.encoder.down_blocks.{index}"
        prefixes = ("vae.encoder.conv_in", block) if index == 0 else (block,)
        blocks.append(segment(model, "encoder", f"encoder.down{index}", prefixes, _encode_down(index)))
    tail = ("vae.encoder.mid_block", "vae.encoder.conv_out", "vae.quant_conv")
    return [*blocks, segment(model, "encoder", "encoder.mid", tail, _encode_mid)]


def decoder_segments(model: Backbone) -> list[Segment]:
    """From Z_H (B, C, h, w) to the image (B, 3, H, W), not clamped."""
    count = len(_vae(model).decoder.up_blocks)
    head = ("vae.post_quant_conv", "vae.decoder.conv_in", "vae.decoder.mid_block")
    found = [segment(model, "decoder", "decoder.mid", head, _decode_mid)]
    for index in range(count):
        last = index == count - 1
        block = f"vae.decoder.up_blocks.{index}"
        prefixes = (block, "vae.decoder.conv_out") if last else (block,)
        found.append(segment(model, "decoder", f"decoder.up{index}", prefixes, _decode_up(index, last)))
    return found


def _vae(model: Backbone) -> Any:
    return model.get_submodule("vae")


def _encode_down(index: int) -> Run:
    def run(model: Backbone, state: State) -> State:
        encoder, hidden, frames = _vae(model).encoder, state.hidden, model.facts.frames
        if index == 0:
            several = hidden if frames == 1 or hidden.shape[1] > 3 else hidden.repeat(1, frames, 1, 1)
            hidden = _by_frame(frames, encoder.conv_in, several)
        return state._replace(hidden=_by_frame(frames, encoder.down_blocks[index], hidden))

    return run


def _encode_mid(model: Backbone, state: State) -> State:
    vae = _vae(model)

    def means(hidden: Tensor) -> Tensor:
        normal = vae.encoder.conv_act(vae.encoder.conv_norm_out(vae.encoder.mid_block(hidden)))
        moments = vae.encoder.conv_out(normal)
        mean: Tensor = (moments if vae.quant_conv is None else vae.quant_conv(moments)).chunk(2, dim=1)[0]
        return mean

    return state._replace(hidden=_by_frame(model.facts.frames, means, state.hidden) * model.facts.scaling)


def _by_frame(count: int, run: Callable[[Tensor], Tensor], frames: Tensor) -> Tensor:
    """``run`` on each of the ``count`` frames that lie side by side in the channels, so that rows stay samples."""
    if count == 1:
        return run(frames)
    made = run(frames.reshape(-1, frames.shape[1] // count, *frames.shape[2:]))
    return made.reshape(frames.shape[0], -1, *made.shape[2:])


def _decode_mid(model: Backbone, state: State) -> State:
    vae, raw = _vae(model), state.hidden / model.facts.scaling
    hidden = vae.decoder.conv_in(raw if vae.post_quant_conv is None else vae.post_quant_conv(raw))
    return State(vae.decoder.mid_block(hidden))


def _decode_up(index: int, last: bool) -> Run:
    def run(model: Backbone, state: State) -> State:
        decoder = _vae(model).decoder
        hidden = decoder.up_blocks[index](state.hidden)
        return State(decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(hidden))) if last else hidden)

    return run
