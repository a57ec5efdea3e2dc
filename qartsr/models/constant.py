"""With one prompt and one timestep, part of the UNet is a constant: it is computed once and put in the layers' place.

Three kinds of modules never see the image: keys and values of cross-attention (``to_k`` and ``to_v`` of the prompt),
the time embedding, and each residual block's projection of it. In Stable Diffusion 2.1 that is 53.4 M of 865.9 M
parameters; what they give has 1.9 M values. The text encoder went the same way when the model was made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from qartsr.models.libraries import Attention, ResnetBlock2D
from qartsr.models.one_step import OneStepSR

_TIME = "unet.time_embedding"
_PLAIN = {
    "addition_embed_type": None,
    "class_embed_type": None,
    "cross_attention_norm": None,
    "encoder_hid_dim_type": None,
    "resnet_time_scale_shift": "default",
}
"""UNets that differ in these may mix prompt, time and image in other ways."""


class Constant(nn.Module):
    """Gives ``value`` (1, ...) once per image of the batch, whatever it is asked. A part of the state dict."""

    value: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value)

    def forward(self, x: Tensor, *_: Any) -> Tensor:
        """``value`` as (B, ...), without a copy; of ``x`` only the batch size B counts."""
        return self.value.expand(x.shape[0], *self.value.shape[1:])


def constant_shapes(model: nn.Module, tokens: int) -> dict[str, tuple[int, ...]]:
    """What can be folded in ``model.unet``, and the shape of each constant for a prompt of ``tokens`` tokens.

    (1, tokens, C) for ``to_k`` and ``to_v`` of cross-attention, (1, C) for ``time_emb_proj``, and (1, 0), nothing at
    all, for the time embedding, which only those projections read. In the model's order, before or after folding;
    empty for a UNet that is not built like Stable Diffusion's.
    """
    unet: Any = model.unet
    if any(unet.config.get(key, plain) != plain for key, plain in _PLAIN.items()):
        return {}
    shapes: dict[str, tuple[int, ...]] = {_TIME: (1, 0)}
    for name, module in unet.named_modules(prefix="unet"):
        if isinstance(module, Attention) and module.is_cross_attention:
            shapes |= {f"{name}.{part}": (1, tokens, module.inner_kv_dim) for part in ("to_k", "to_v")}
        elif isinstance(module, ResnetBlock2D) and module.time_emb_proj is not None:
            shapes[f"{name}.time_emb_proj"] = (1, module.out_channels)
    return shapes


def place_constants(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Put constants in the place of the modules that made them; the prompt, needed no more, shrinks to no tokens."""
    for name, value in values.items():
        model.set_submodule(name, Constant(value))
    model.context = model.get_buffer("context")[:, :0].clone()


def constants(model: nn.Module) -> dict[str, Constant]:
    """The constants of a folded model by full name; empty for any other."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Constant)}


def is_folded(name: str, folded: Mapping[str, object]) -> bool:
    """Whether the layer ``name`` is, or was part of, one of the ``folded`` modules."""
    return any(name == module or name.startswith(f"{module}.") for module in folded)


@torch.no_grad()
def fold_constants(model: OneStepSR) -> None:
    """Compute all constants with the model's own layers, quantized or not, and put them in place; once is enough.

    The outputs stay the same up to the order of sums: a matrix product of one prompt may be summed in another order
    than that of a batch. Training cannot go on behind it, for the layers are gone.
    """
    shapes, found = constant_shapes(model, model.context.shape[1]), dict[str, Tensor]()
    if constants(model) or not shapes:
        return

    def record(name: str) -> Any:
        return lambda module, inputs, output: found.update({name: output[:1].clone()})

    handles = [model.get_submodule(name).register_forward_hook(record(name)) for name in shapes]
    try:
        config: Any = model.unet.config
        side = 2 ** (len(config.block_out_channels) - 1)
        model.predict_noise(model.context.new_zeros(1, config.in_channels, side, side))
    finally:
        for handle in handles:
            handle.remove()
    found[_TIME] = found[_TIME][:, :0].clone()
    place_constants(model, {name: found[name] for name in shapes})
