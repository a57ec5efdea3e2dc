"""The transformer and its VAE as a sequence of segments with an explicit state between them, one block each.

Beside the hidden state (B, patches, D) the transformer's segments carry ``latent`` (B, C, h, w), Z_L for the step,
``embedding`` (B, D), that of time and pooled prompt, and ``text-00``, ``text-01``, ... (B, N, D), the prompt's stream
as each block leaves it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from qartsr.models.interface import Segment, State

if TYPE_CHECKING:
    from qartsr.models.sd3_dit.model import SD3DiT

Run = Callable[["SD3DiT", State], State]


def segments(model: SD3DiT) -> tuple[Segment, ...]:
    """The modules in inference order; layers at a component's ends belong to the neighbouring block."""
    encoder, blocks = len(model.vae.encoder.down_blocks), len(model.transformer.transformer_blocks)
    head = ("transformer.pos_embed", "transformer.time_text_embed", "transformer.context_embedder")
    tail = ("transformer.norm_out", "transformer.proj_out")
    found = []
    for i in range(encoder):
        block = (f"vae.encoder.down_blocks.{i}",)
        own = ("vae.encoder.conv_in", *block) if i == 0 else block
        found.append(_segment(model, "encoder", f"encoder.down{i}", own, _encode_down(i)))
    ends = ("vae.encoder.mid_block", "vae.encoder.conv_out", "vae.quant_conv")
    found.append(_segment(model, "encoder", "encoder.mid", ends, _encode_mid))
    for i in range(blocks):
        own = (f"transformer.transformer_blocks.{i}", *(head if i == 0 else ()), *(tail if i == blocks - 1 else ()))
        found.append(_segment(model, "denoiser", f"dit.block{i}", own, _block(i, i == blocks - 1)))
    ups = len(model.vae.decoder.up_blocks)
    starts = ("vae.post_quant_conv", "vae.decoder.conv_in", "vae.decoder.mid_block")
    found.append(_segment(model, "decoder", "decoder.mid", starts, _decode_mid))
    for i in range(ups):
        own = (f"vae.decoder.up_blocks.{i}", *(("vae.decoder.conv_out",) if i == ups - 1 else ()))
        found.append(_segment(model, "decoder", f"decoder.up{i}", own, _decode_up(i, i == ups - 1)))
    return tuple(found)


def _segment(
    model: SD3DiT, place: Literal["encoder", "denoiser", "decoder"], name: str, prefixes: tuple[str, ...], run: Run
) -> Segment:
    def inside(layer: str) -> bool:
        return any(layer == prefix or layer.startswith(prefix + ".") for prefix in prefixes)

    layers = (n for n, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear) and inside(n))
    return Segment(name, place, tuple(layers), run)


def _encode_down(index: int) -> Run:
    def run(model: SD3DiT, state: State) -> State:
        encoder = model.vae.encoder
        hidden = encoder.conv_in(state.hidden) if index == 0 else state.hidden
        return State(encoder.down_blocks[index](hidden))

    return run


def _encode_mid(model: SD3DiT, state: State) -> State:
    encoder, after = model.vae.encoder, model.vae.quant_conv
    moments = encoder.conv_out(encoder.conv_act(encoder.conv_norm_out(encoder.mid_block(state.hidden))))
    mean, _ = (moments if after is None else after(moments)).chunk(2, dim=1)
    return State(mean * model.facts.scaling)


def _block(index: int, last: bool) -> Run:
    def run(model: SD3DiT, state: State) -> State:
        state = _head(model, state.hidden) if index == 0 else state
        embedding, text = state.beside["embedding"], state.beside[_text(index)]
        text, hidden = model.transformer.transformer_blocks[index](
            hidden_states=state.hidden, encoder_hidden_states=text, temb=embedding
        )
        if last:
            return _tail(model, hidden, state)
        kept = {"latent": state.beside["latent"], "embedding": embedding}
        return State(hidden, {**kept, _text(index + 1): text})

    return run


def _text(index: int) -> str:
    return f"text-{index:02d}"


def _head(model: SD3DiT, latent: Tensor) -> State:
    dit, (tokens, pooled) = model.transformer, model.prompt(latent.shape[0])
    timestep = torch.full((latent.shape[0],), model.timestep, device=latent.device)
    hidden = dit.pos_embed(latent).contiguous()
    beside = {
        "latent": latent,
        "embedding": dit.time_text_embed(timestep, pooled),
        _text(0): dit.context_embedder(tokens),
    }
    return State(hidden, beside)


def _tail(model: SD3DiT, hidden: Tensor, state: State) -> State:
    dit, latent = model.transformer, state.beside["latent"]
    side = model.granule
    flat = dit.proj_out(dit.norm_out(hidden, state.beside["embedding"]))
    rows, columns = latent.shape[2] // side, latent.shape[3] // side
    grid = flat.reshape(len(flat), rows, columns, side, side, dit.out_channels)
    velocity = torch.einsum("nhwpqc->nchpwq", grid).reshape(len(flat), dit.out_channels, rows * side, columns * side)
    return State(model.step(latent, velocity))


def _decode_mid(model: SD3DiT, state: State) -> State:
    raw, before = state.hidden / model.facts.scaling, model.vae.post_quant_conv
    return State(model.vae.decoder.mid_block(model.vae.decoder.conv_in(raw if before is None else before(raw))))


def _decode_up(index: int, last: bool) -> Run:
    def run(model: SD3DiT, state: State) -> State:
        decoder = model.vae.decoder
        hidden = decoder.up_blocks[index](state.hidden)
        return State(decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(hidden))) if last else hidden)

    return run
