"""The transformer and its VAE as a sequence of segments with an explicit state between them, one block each.

Those of the VAE are in :mod:`qartsr.models.vae_segments`. Beside the hidden state (B, patches, D) the transformer's
carry ``latent`` (B, C, h, w), Z_L for the step, ``embedding`` (B, D), that of time and pooled prompt, and ``text-00``,
``text-01``, ... (B, N, D), the prompt's stream as each block leaves it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qartsr.models.interface import Segment, State
from qartsr.models.vae_segments import Run, decoder_segments, encoder_segments, segment

if TYPE_CHECKING:
    from qartsr.models.sd3_dit.model import SD3DiT


def segments(model: SD3DiT) -> tuple[Segment, ...]:
    """The modules in inference order; layers at the transformer's ends belong to the neighbouring block."""
    blocks = len(model.transformer.transformer_blocks)
    head = ("transformer.pos_embed", "transformer.time_text_embed", "transformer.context_embedder")
    tail = ("transformer.norm_out", "transformer.proj_out")
    found = encoder_segments(model)
    for i in range(blocks):
        own = (f"transformer.transformer_blocks.{i}", *(head if i == 0 else ()), *(tail if i == blocks - 1 else ()))
        found.append(segment(model, "denoiser", f"dit.block{i}", own, _block(i, i == blocks - 1)))
    return (*found, *decoder_segments(model))


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
