"""Stable Diffusion's UNet and VAE as a backbone (OSEDiff, and our sample): encode, one denoising step, decode."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from qartsr.models.interface import Backbone, Facts, Segment, Step
from qartsr.models.sd_unet.diffusers_imports import Attention, AutoencoderKL, ResnetBlock2D, UNet2DConditionModel
from qartsr.models.sd_unet.schedule import eq6
from qartsr.models.sd_unet.segments import segments


class AbstractSDUNet(Backbone):
    """VAE encoder -> UNet once at ``timestep`` -> one step -> VAE decoder.

    ``unet``, ``vae``: diffusers modules. ``context``: (1, N, D) fixed prompt embedding. ``timestep``: scheduler index
    0..999. ``align``: colour fix applied by :meth:`restore`.
    """

    parts: ClassVar[Mapping[str, Any]] = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}
    titles: ClassVar[Mapping[str, str]] = {"unet": "UNet", "vae": "VAE"}
    denoiser: ClassVar = "unet"
    components: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "VAE encoder": ("vae.encoder.", "vae.quant_conv."),
        "UNet": ("unet.", "context"),
        "VAE decoder": ("vae.decoder.", "vae.post_quant_conv."),
    }
    regions: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encoder down": ("vae.encoder.conv_in", "vae.encoder.down_blocks"),
        "encoder mid": ("vae.encoder.", "vae.quant_conv"),
        "UNet down": ("unet.conv_in", "unet.time_embedding", "unet.down_blocks"),
        "UNet mid": ("unet.mid_block",),
        "UNet up": ("unet.",),
        "decoder mid": ("vae.post_quant_conv", "vae.decoder.conv_in", "vae.decoder.mid_block"),
        "decoder up": ("vae.decoder.",),
    }
    trained_whole: ClassVar = ("unet.conv_in",)

    def __init__(
        self, unet: UNet2DConditionModel, vae: AutoencoderKL, context: Tensor, timestep: int, align: str = "none"
    ) -> None:
        super().__init__()
        self.unet, self.vae, self.timestep, self.align = unet, vae, timestep, align
        self.register_buffer("context", context)

    @property
    def facts(self) -> Facts:
        """From the configurations of VAE and UNet."""
        config: Any = self.vae.config
        unet: Any = self.unet.config
        factor = 2 ** (len(config.block_out_channels) - 1)
        return Facts(
            scale=4,
            factor=factor,
            multiple=2 * factor,
            latents=int(config.latent_channels),
            scaling=float(config.scaling_factor),
            widest=max(config.block_out_channels[:2]),
            attention=max(_attentions(config, self.unet.config), default=0.0),
            frames=unet.in_channels // int(config.latent_channels),
        )

    def posterior(self, lq: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) image -> mean and log-variance (clamped to -30..20) of the raw latent, (B, C, h, w) each."""
        distribution = self.vae.encode(lq).latent_dist
        return distribution.mean, distribution.logvar

    def predict(self, z_l: Tensor) -> Tensor:
        """Noise epsilon = UNet(Z_L; T, c); a single latent stands for all frames of a model of clips."""
        if self.facts.frames > 1 and z_l.shape[1] == self.facts.latents:
            z_l = z_l.repeat(1, self.facts.frames, 1, 1)
        context = self.context.expand(z_l.shape[0], -1, -1)
        timestep = torch.full((z_l.shape[0],), self.timestep, device=z_l.device)
        return self.unet(z_l, timestep, encoder_hidden_states=context).sample

    def reconstruct(self, raw: Tensor) -> Tensor:
        """(B, C, h, w) raw latent -> image, not clamped."""
        return self.vae.decode(raw).sample

    def segments(self) -> tuple[Segment, ...]:
        """VAE encoder, UNet, VAE decoder, one diffusers block each, ends with their neighbours."""
        return segments(self)

    def skip_joins(self) -> dict[str, int]:
        """``conv1`` and ``conv_shortcut`` of every ResNet block in ``unet.up_blocks``.

        A block's first is fed by the block before it, the others by their predecessor.
        """
        unet: Any = self.unet
        found: dict[str, int] = {}
        width: int = unet.config.block_out_channels[-1]
        for number, block in enumerate(unet.up_blocks):
            for place, resnet in enumerate(block.resnets):
                for layer in ("conv1", "conv_shortcut"):
                    if getattr(resnet, layer, None) is not None:
                        found[f"unet.up_blocks.{number}.resnets.{place}.{layer}"] = width
                width = resnet.out_channels
        return found

    def constant_shapes(self, tokens: int) -> dict[str, tuple[int, ...]]:
        """Time embedding, its projections, and cross-attention's keys and values of the prompt."""
        return constant_shapes(self.unet, tokens)

    def lora_targets(self) -> dict[str, str]:
        """OSEDiff's: all of the UNet but the time embedding, and the VAE's encoder with its quant_conv."""
        return lora_targets(self)

    def graph_modules(self) -> tuple[nn.Module, ...]:
        """UNet, encoder and decoder; the 1x1 convolutions around the latent stay outside."""
        return self.unet, self.vae.encoder, self.vae.decoder

    @property
    def granule(self) -> int:
        """2 per level of the UNet below the first."""
        config: Any = self.unet.config
        return int(math.prod([2] * (len(config.block_out_channels) - 1)))


class SDUNet(AbstractSDUNet):
    """OSEDiff and what has its structure: the step is Eq. 6."""

    kind: ClassVar = "sd_unet"

    @classmethod
    def assemble(cls, parts: Mapping[str, Any], context: Tensor, timestep: int, align: str) -> Self:
        """A model of ``unet`` and ``vae``; ``context``: (1, N, D)."""
        return cls(parts["unet"], parts["vae"], context, timestep, align)

    @property
    def step(self) -> Step:
        """Eq. 6 at the model's timestep."""
        return eq6(self.timestep)


def _attentions(vae: Any, unet: Any) -> list[float]:
    """Scores of each attention, by the square of the number of latent pixels: heads / 16 per level."""
    levels, heads = unet.down_block_types, unet.attention_head_dim
    found = [1.0] if getattr(vae, "mid_block_add_attention", True) else []
    for level, kind in enumerate(levels):
        if "CrossAttn" in kind:
            found.append((heads if isinstance(heads, int) else heads[level]) / 16**level)
    return found


def lora_targets(module: nn.Module) -> dict[str, str]:
    """Layers that OSEDiff adapts in a whole model or in a bare UNet -> the name of their adapter."""
    names = [name for name, part in module.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    return {name: adapter for name in names if (adapter := _adapter(name))}


def _adapter(name: str) -> str:
    if name.startswith("vae."):
        return "default_encoder" if name.startswith(("vae.encoder.", "vae.quant_conv")) else ""
    if "time_emb" in name:
        return ""
    if "down_blocks" in name or "conv_in" in name:
        return "default_encoder"
    return "default_decoder" if "up_blocks" in name or "conv_out" in name else "default_others"


_PLAIN = {
    "addition_embed_type": None,
    "class_embed_type": None,
    "cross_attention_norm": None,
    "encoder_hid_dim_type": None,
    "resnet_time_scale_shift": "default",
}
"""UNets that differ in these may mix prompt, time and image in other ways."""


def constant_shapes(unet: Any, tokens: int) -> dict[str, tuple[int, ...]]:
    """What of a UNet never sees the image, at one prompt and one timestep: the shape of each constant, by its module.

    (1, tokens, C) for ``to_k`` and ``to_v`` of cross-attention, (1, C) for ``time_emb_proj``, and (1, 0), nothing at
    all, for the time embedding, which only those projections read. In the model's order, before or after folding;
    empty for a UNet that is not built like Stable Diffusion's. In Stable Diffusion 2.1 that is 53.4 M of 865.9 M
    parameters; what they give has 1.9 M values.
    """
    if any(unet.config.get(key, plain) != plain for key, plain in _PLAIN.items()):
        return {}
    shapes: dict[str, tuple[int, ...]] = {"unet.time_embedding": (1, 0)}
    for name, module in unet.named_modules(prefix="unet"):
        if isinstance(module, Attention) and module.is_cross_attention:
            shapes |= {f"{name}.{part}": (1, tokens, module.inner_kv_dim) for part in ("to_k", "to_v")}
        elif isinstance(module, ResnetBlock2D) and module.time_emb_proj is not None:
            shapes[f"{name}.time_emb_proj"] = (1, module.out_channels)
    return shapes
