"""The UNet and its VAE as a sequence of segments with an explicit state between them, one diffusers block each.

RPQ needs to enter the network at any module and to leave it at the next one, with everything upstream computed once.
Beside the hidden state the UNet's segments carry ``latent`` (B, C, h, w), Z_L for Eq. 6, ``embedding`` (B, D), that of
the timestep, and ``skip-00``, ``skip-01``, ... (B, C, h, w), the skip connections not yet consumed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from qartsr.models.interface import Segment, State

if TYPE_CHECKING:
    from qartsr.models.sd_unet.model import SDUNet

Run = Callable[["SDUNet", State], State]


def segments(model: SDUNet) -> tuple[Segment, ...]:
    """The modules in inference order: VAE encoder, UNet, VAE decoder.

    Convolutions at a component's ends belong to the neighbouring block, so every quantizable layer is in one segment.
    """
    return (*_encoder(model), *_unet(model), *_decoder(model))


def _segment(
    model: SDUNet, place: Literal["encoder", "denoiser", "decoder"], name: str, prefixes: tuple[str, ...], run: Run
) -> Segment:
    def inside(layer: str) -> bool:
        return any(layer == prefix or layer.startswith(prefix + ".") for prefix in prefixes)

    layers = (n for n, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear) and inside(n))
    return Segment(name, place, tuple(layers), run)


def _encoder(model: SDUNet) -> list[Segment]:
    blocks = []
    for index in range(len(model.vae.encoder.down_blocks)):
        block = f"vae.encoder.down_blocks.{index}"
        prefixes = ("vae.encoder.conv_in", block) if index == 0 else (block,)
        blocks.append(_segment(model, "encoder", f"encoder.down{index}", prefixes, _encode_down(index)))
    tail = ("vae.encoder.mid_block", "vae.encoder.conv_out", "vae.quant_conv")
    return [*blocks, _segment(model, "encoder", "encoder.mid", tail, _encode_mid)]


def _encode_down(index: int) -> Run:
    def run(model: SDUNet, state: State) -> State:
        encoder, hidden = model.vae.encoder, state.hidden
        if index == 0:
            several = hidden if hidden.shape[1] > 3 else hidden.repeat(1, model.facts.frames, 1, 1)
            hidden = _by_frame(model, encoder.conv_in, several)
        return State(_by_frame(model, encoder.down_blocks[index], hidden))

    return run


def _by_frame(model: SDUNet, run: Callable[[Tensor], Tensor], frames: Tensor) -> Tensor:
    """``run`` on each of the frames that lie side by side in the channels, so that rows stay samples."""
    count = model.facts.frames
    if count == 1:
        return run(frames)
    made = run(frames.reshape(-1, frames.shape[1] // count, *frames.shape[2:]))
    return made.reshape(frames.shape[0], -1, *made.shape[2:])


def _encode_mid(model: SDUNet, state: State) -> State:
    def means(hidden: Tensor) -> Tensor:
        encoder = model.vae.encoder
        normal = encoder.conv_act(encoder.conv_norm_out(encoder.mid_block(hidden)))
        mean: Tensor = model.vae.quant_conv(encoder.conv_out(normal)).chunk(2, dim=1)[0]
        return mean

    return State(_by_frame(model, means, state.hidden) * model.facts.scaling)


def _unet(model: SDUNet) -> list[Segment]:
    downs, ups = len(model.unet.down_blocks), len(model.unet.up_blocks)
    head = ("unet.conv_in", "unet.time_embedding", "unet.down_blocks.0")
    tail = (f"unet.up_blocks.{ups - 1}", "unet.conv_out")
    found = []
    for i in range(downs):
        own: tuple[str, ...] = head if i == 0 else (f"unet.down_blocks.{i}",)
        found.append(_segment(model, "denoiser", f"unet.down{i}", own, _unet_down(i)))
    found.append(_segment(model, "denoiser", "unet.mid", ("unet.mid_block",), _unet_mid))
    for i in range(ups):
        last = i == ups - 1
        own = tail if last else (f"unet.up_blocks.{i}",)
        found.append(_segment(model, "denoiser", f"unet.up{i}", own, _unet_up(i, last)))
    return found


def _unet_down(index: int) -> Run:
    def run(model: SDUNet, state: State) -> State:
        if index == 0:
            state = _unet_head(model, state.hidden)
        block = model.unet.down_blocks[index]
        hidden, skips = block(hidden_states=state.hidden, temb=_embedding(state), **_cross(block, model, state))
        count = len(_skips(state))
        return State(hidden, {**state.beside, **{_skip(count + n): skip for n, skip in enumerate(skips)}})

    return run


def _unet_head(model: SDUNet, latent: Tensor) -> State:
    timestep = torch.full((latent.shape[0],), model.timestep, device=latent.device)
    embedding = model.unet.time_embedding(model.unet.time_proj(timestep).to(latent.dtype))
    hidden = model.unet.conv_in(latent)
    return State(hidden, {"latent": latent, "embedding": embedding, _skip(0): hidden})


def _unet_mid(model: SDUNet, state: State) -> State:
    block = model.unet.mid_block
    return state._replace(hidden=block(state.hidden, _embedding(state), **_cross(block, model, state)))


def _unet_up(index: int, last: bool) -> Run:
    def run(model: SDUNet, state: State) -> State:
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


def _unet_tail(model: SDUNet, state: State) -> State:
    noise = model.unet.conv_out(model.unet.conv_act(model.unet.conv_norm_out(state.hidden)))
    return State(model.step(state.beside["latent"][:, -noise.shape[1] :], noise))


def _skip(number: int) -> str:
    return f"skip-{number:02d}"


def _skips(state: State) -> list[str]:
    return sorted(name for name in state.beside if name.startswith("skip-"))


def _embedding(state: State) -> Tensor:
    return state.beside["embedding"]


def _cross(block: Any, model: SDUNet, state: State) -> dict[str, Tensor]:
    """The prompt, for blocks that attend to it."""
    attends = getattr(block, "has_cross_attention", False)
    return {"encoder_hidden_states": model.context.expand(state.hidden.shape[0], -1, -1)} if attends else {}


def _decoder(model: SDUNet) -> list[Segment]:
    count = len(model.vae.decoder.up_blocks)
    head = ("vae.post_quant_conv", "vae.decoder.conv_in", "vae.decoder.mid_block")
    tail = (f"vae.decoder.up_blocks.{count - 1}", "vae.decoder.conv_out")
    found = [_segment(model, "decoder", "decoder.mid", head, _decode_mid)]
    for i in range(count):
        last = i == count - 1
        prefixes = tail if last else (f"vae.decoder.up_blocks.{i}",)
        found.append(_segment(model, "decoder", f"decoder.up{i}", prefixes, _decode_up(i, last)))
    return found


def _decode_mid(model: SDUNet, state: State) -> State:
    hidden = model.vae.post_quant_conv(state.hidden / model.facts.scaling)
    return State(model.vae.decoder.mid_block(model.vae.decoder.conv_in(hidden)))


def _decode_up(index: int, last: bool) -> Run:
    def run(model: SDUNet, state: State) -> State:
        decoder = model.vae.decoder
        hidden = decoder.up_blocks[index](state.hidden)
        return State(decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(hidden))) if last else hidden)

    return run
