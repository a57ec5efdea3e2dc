"""The model as a sequence of segments with an explicit state between them.

RPQ needs to enter the network at any module and to leave it at the next one, with everything upstream computed once.
Running all segments equals ``OneStepSR.forward`` exactly; a segment is also the unit that RPQ quantizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from qartsr.models.one_step import OneStepSR


class State(NamedTuple):
    """What flows between segments."""

    hidden: Tensor
    """(B, C, H, W) main hidden state: image, latent or features"""
    latent: Tensor | None = None
    """(B, C, h, w) Z_L, kept inside the UNet for Eq. 6"""
    embedding: Tensor | None = None
    """(B, D) time embedding, kept inside the UNet"""
    skips: tuple[Tensor, ...] = ()
    """UNet skip connections not yet consumed"""


class Unit(NamedTuple):
    """One module of RPQ: its name, its conv and linear layers, and how to run it."""

    name: str
    layers: tuple[str, ...]
    run: Callable[[OneStepSR, State], State]


def units(model: OneStepSR) -> tuple[Unit, ...]:
    """The modules in inference order: VAE encoder, UNet, VAE decoder, one diffusers block each.

    Convolutions at a component's ends belong to the neighbouring block, so every quantizable layer is in one unit.
    """
    parts = [*_encoder(model), *_unet(model), *_decoder(model)]
    return tuple(Unit(name, _layers(model, prefixes), run) for name, prefixes, run in parts)


def run_units(model: OneStepSR, state: State, sequence: Sequence[Unit]) -> State:
    """Run consecutive units from ``state``."""
    for unit in sequence:
        state = unit.run(model, state)
    return state


Part = tuple[str, tuple[str, ...], Callable[[OneStepSR, State], State]]


def _layers(model: OneStepSR, prefixes: tuple[str, ...]) -> tuple[str, ...]:
    def inside(name: str) -> bool:
        return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)

    return tuple(n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and inside(n))


def _encoder(model: OneStepSR) -> list[Part]:
    count = len(model.vae.encoder.down_blocks)
    blocks: list[Part] = []
    for index in range(count):
        block = f"vae.encoder.down_blocks.{index}"
        prefixes = ("vae.encoder.conv_in", block) if index == 0 else (block,)
        blocks.append((f"encoder.down{index}", prefixes, _encode_down(index)))
    tail = ("vae.encoder.mid_block", "vae.encoder.conv_out", "vae.quant_conv")
    return [*blocks, ("encoder.mid", tail, _encode_mid)]


def _encode_down(index: int) -> Callable[[OneStepSR, State], State]:
    def run(model: OneStepSR, state: State) -> State:
        encoder = model.vae.encoder
        hidden = encoder.conv_in(state.hidden) if index == 0 else state.hidden
        return State(encoder.down_blocks[index](hidden))

    return run


def _encode_mid(model: OneStepSR, state: State) -> State:
    encoder = model.vae.encoder
    hidden = encoder.conv_act(encoder.conv_norm_out(encoder.mid_block(state.hidden)))
    mean, _ = model.vae.quant_conv(encoder.conv_out(hidden)).chunk(2, dim=1)
    return State(mean * model.scaling)


def _unet(model: OneStepSR) -> list[Part]:
    downs, ups = len(model.unet.down_blocks), len(model.unet.up_blocks)
    head = ("unet.conv_in", "unet.time_embedding", "unet.down_blocks.0")
    tail = (f"unet.up_blocks.{ups - 1}", "unet.conv_out")
    down: list[Part] = [
        (f"unet.down{i}", head if i == 0 else (f"unet.down_blocks.{i}",), _unet_down(i)) for i in range(downs)
    ]
    up: list[Part] = [
        (f"unet.up{i}", tail if i == ups - 1 else (f"unet.up_blocks.{i}",), _unet_up(i, last=i == ups - 1))
        for i in range(ups)
    ]
    return [*down, ("unet.mid", ("unet.mid_block",), _unet_mid), *up]


def _unet_down(index: int) -> Callable[[OneStepSR, State], State]:
    def run(model: OneStepSR, state: State) -> State:
        if index == 0:
            state = _unet_head(model, state.hidden)
        hidden, skips = model.unet.down_blocks[index](
            hidden_states=state.hidden, temb=state.embedding, **_cross(model.unet.down_blocks[index], model, state)
        )
        return state._replace(hidden=hidden, skips=state.skips + tuple(skips))

    return run


def _unet_head(model: OneStepSR, latent: Tensor) -> State:
    timestep = torch.full((latent.shape[0],), model.timestep, device=latent.device)
    embedding = model.unet.time_embedding(model.unet.time_proj(timestep).to(latent.dtype))
    hidden = model.unet.conv_in(latent)
    return State(hidden, latent, embedding, (hidden,))


def _unet_mid(model: OneStepSR, state: State) -> State:
    hidden = model.unet.mid_block(state.hidden, state.embedding, **_cross(model.unet.mid_block, model, state))
    return state._replace(hidden=hidden)


def _unet_up(index: int, last: bool) -> Callable[[OneStepSR, State], State]:
    def run(model: OneStepSR, state: State) -> State:
        block = model.unet.up_blocks[index]
        count = len(block.resnets)
        used, left = state.skips[-count:], state.skips[:-count]
        size = left[-1].shape[2:] if left else None  # sizes that do not halve evenly follow the skip
        hidden = block(
            hidden_states=state.hidden, temb=state.embedding, res_hidden_states_tuple=used, upsample_size=size,
            **_cross(block, model, state),
        )  # fmt: skip
        state = state._replace(hidden=hidden, skips=left)
        return _unet_tail(model, state) if last else state

    return run


def _unet_tail(model: OneStepSR, state: State) -> State:
    noise = model.unet.conv_out(model.unet.conv_act(model.unet.conv_norm_out(state.hidden)))
    assert state.latent is not None  # set by the UNet's head
    return State(model.step(state.latent, noise))


def _cross(block: Any, model: OneStepSR, state: State) -> dict[str, Tensor]:
    """The prompt, for blocks that attend to it."""
    attends = getattr(block, "has_cross_attention", False)
    return {"encoder_hidden_states": model.context.expand(state.hidden.shape[0], -1, -1)} if attends else {}


def _decoder(model: OneStepSR) -> list[Part]:
    count = len(model.vae.decoder.up_blocks)
    head = ("vae.post_quant_conv", "vae.decoder.conv_in", "vae.decoder.mid_block")
    tail = (f"vae.decoder.up_blocks.{count - 1}", "vae.decoder.conv_out")
    ups: list[Part] = [
        (f"decoder.up{i}", tail if i == count - 1 else (f"vae.decoder.up_blocks.{i}",), _decode_up(i, i == count - 1))
        for i in range(count)
    ]
    return [("decoder.mid", head, _decode_mid), *ups]


def _decode_mid(model: OneStepSR, state: State) -> State:
    hidden = model.vae.post_quant_conv(state.hidden / model.scaling)
    return State(model.vae.decoder.mid_block(model.vae.decoder.conv_in(hidden)))


def _decode_up(index: int, last: bool) -> Callable[[OneStepSR, State], State]:
    def run(model: OneStepSR, state: State) -> State:
        decoder = model.vae.decoder
        hidden = decoder.up_blocks[index](state.hidden)
        return State(decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(hidden))) if last else hidden)

    return run
