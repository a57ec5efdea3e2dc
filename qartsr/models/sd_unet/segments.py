"""The UNet and its VAE as a sequence of segments with an explicit state between them, one diffusers block each.

Those of the VAE are in :mod:`qartsr.models.vae_segments`. Beside the hidden state the UNet's carry ``latent``
(B, C, h, w), Z_L for Eq. 6, ``embedding`` (B, D), that of the timestep, and ``skip-00``, ``skip-01``, ...
(B, C, h, w), the skip connections not yet consumed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from qartsr.models.interface import Segment, State
from qartsr.models.vae_segments import Run, decoder_segments, encoder_segments, segment

if TYPE_CHECKING:
    from qartsr.models.sd_unet.model import AbstractSDUNet


def segments(model: AbstractSDUNet) -> tuple[Segment, ...]:
    """The modules in inference order: VAE encoder, UNet, VAE decoder."""
    return (*encoder_segments(model), *_unet(model), *decoder_segments(model))


def _unet(model: AbstractSDUNet) -> list[Segment]:
    downs, ups = len(model.unet.down_blocks), len(model.unet.up_blocks)
    head = ("unet.conv_in", "unet.time_embedding", "unet.down_blocks.0")
    tail = (f"unet.up_blocks.{ups - 1}", "unet.conv_out")
    found = []
    for i in range(downs):
        own: tuple[str, ...] = head if i == 0 else (f"unet.down_blocks.{i}",)
        found.append(segment(model, "denoiser", f"unet.down{i}", own, _unet_down(i)))
    found.append(segment(model, "denoiser", "unet.mid", ("unet.mid_block",), _unet_mid))
    for i in range(ups):
        last = i == ups - 1
        own = tail if last else (f"unet.up_blocks.{i}",)
        found.append(segment(model, "denoiser", f"unet.up{i}", own, _unet_up(i, last)))
    return found


def _unet_down(index: int) -> Run:
    def run(model: AbstractSDUNet, state: State) -> State:
        if index == 0:
            state = _unet_head(model, state.hidden)
        block = model.unet.down_blocks[index]
        hidden, skips = block(hidden_states=state.hidden, temb=_embedding(state), **_cross(block, model, state))
        count = len(_skips(state))
        return State(hidden, {**state.beside, **{_skip(count + n): skip for n, skip in enumerate(skips)}})

    return run


def _unet_head(model: AbstractSDUNet, latent: Tensor) -> State:
    timestep = torch.full((latent.shape[0],), model.timestep, device=latent.device)
    embedding = model.unet.time_embedding(model.unet.time_proj(timestep).to(latent.dtype))
    hidden = model.unet.conv_in(latent)
    return State(hidden, {"latent": latent, "embedding": embedding, _skip(0): hidden})


def _unet_mid(model: AbstractSDUNet, state: State) -> State:
    block = model.unet.mid_block
    return state._replace(hidden=block(state.hidden, _embedding(state), **_cross(block, model, state)))


def _unet_up(index: int, last: bool) -> Run:
    def run(model: AbstractSDUNet, state: State) -> State:
        block, names = model.unet.up_blocks[index], _skips(state)
        count = len(block.resnets)
        used, left = names[-count:], names[:-count]
        size = state.beside[left[-1]].shape[2:] if left else None  # sizes that do not halve evenly follow the skip
        hidden = block(
            hidden_states=state.hidden,
            temb=_embedding(state),
            res_hidden_states_tuple=tuple(state.beside[name] for name in used),
            upsample_size=size,
            **_cross(block, model, state),
        )
        state = State(hidden, {name: value for name, value in state.beside.items() if name not in used})
        return _unet_tail(model, state) if last else state

    return run


def _unet_tail(model: AbstractSDUNet, state: State) -> State:
    noise = model.unet.conv_out(model.unet.conv_act(model.unet.conv_norm_out(state.hidden)))
    return State(model.step(state.beside["latent"][:, -noise.shape[1] :], noise))


def _skip(number: int) -> str:
    return f"skip-{number:02d}"


def _skips(state: State) -> list[str]:
    return sorted(name for name in state.beside if name.startswith("skip-"))


def _embedding(state: State) -> Tensor:
    return state.beside["embedding"]


def _cross(block: Any, model: AbstractSDUNet, state: State) -> dict[str, Tensor]:
    """The prompt, for blocks that attend to it."""
    attends = getattr(block, "has_cross_attention", False)
    return {"encoder_hidden_states": model.context.expand(state.hidden.shape[0], -1, -1)} if attends else {}
