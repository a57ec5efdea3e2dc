"""Stable Diffusion 3's transformer and VAE as a backbone (TSD-SR, 2411.18263): one step Z_H = Z_L - v."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from qartsr.artifact.values import waves
from qartsr.errors import QartsrError
from qartsr.models.interface import Backbone, Facts, Segment, Step
from qartsr.models.sd3_dit.segments import segments
from qartsr.models.sd_unet.diffusers_imports import AutoencoderKL, SD3Transformer2DModel


class Patches(nn.Module):
    """SD3's patch embedding whose table of positions is computed for the size at hand instead of stored.

    diffusers keeps the whole table, 56.6 M numbers in SD3-medium and 226 M in 3.5-medium, beside the weights. It is
    sines and cosines of the place, cut from the middle of a square of ``most`` patches a side; one side's are kept.
    """

    def __init__(self, embedding: Any) -> None:
        super().__init__()
        self.proj: nn.Module = embedding.proj
        self.width = int(embedding.proj.out_channels)
        self.most, self.base = int(embedding.pos_embed_max_size), int(embedding.base_size)
        self.shift = (0, 0)
        """patches by which the picture is moved from the middle of the square, down and across: training's"""
        self._waves = torch.from_numpy(waves(self.most, self.base, self.width))

    def forward(self, latent: Tensor) -> Tensor:
        """(B, C, h, w) latent -> (B, patches, D) embedded patches with their places, row by row.

        Raises QartsrError for more than ``most`` patches along a side.
        """
        patches = self.proj(latent).to(latent.dtype)  # autocast's bf16 would be that of all that the blocks add to
        return patches.flatten(2).transpose(1, 2) + self.places(patches.shape[2], patches.shape[3], patches)

    def places(self, rows: int, columns: int, like: Tensor) -> Tensor:
        """(1, rows x columns, D) position embeddings, on the device and in the dtype of ``like``."""
        if not torch.compiler.is_exporting() and max(rows, columns) > self.most:
            what = f"{rows} x {columns} patches are more than {self.most} along a side"
            raise QartsrError(what, "the picture", "run it in tiles")
        whole = self._waves.to(like.device)
        sides = zip((rows, columns), self.shift, strict=True)
        down, across = (self._middle(whole, count, moved) for count, moved in sides)
        both = [across.expand(rows, -1, -1), down[:, None].expand(-1, columns, -1)]
        return torch.cat(both, 2).flatten(0, 1)[None].to(like.dtype)

    def _middle(self, whole: Tensor, count: int, moved: int) -> Tensor:
        """(count, D / 2) of the middle places along one side, ``moved`` by so many."""
        first = (self.most - count) // 2 + moved
        return whole[first : first + count]

    def table(self) -> tuple[str, Tensor]:
        """What places are cut from, and its recipe (:mod:`qartsr.artifact.values`)."""
        return f"waves {self.most} {self.base} {self.width}", self._waves


class SD3DiT(Backbone):
    """VAE encoder -> SD3's transformer once -> Z_H = Z_L - v -> VAE decoder.

    ``transformer``, ``vae``: diffusers modules; the transformer's patch embedding is exchanged for :class:`Patches`.
    ``context``: (1, N, D + k) fixed prompt, N tokens of D features and, in the k columns behind them, row by row, the
    pooled embedding (see :func:`joined_prompt`). ``timestep``: what the transformer is told, 1000 in TSD-SR.
    """

    kind: ClassVar = "sd3_dit"
    parts: ClassVar = {"transformer": SD3Transformer2DModel, "vae": AutoencoderKL}
    titles: ClassVar = {"transformer": "DiT", "vae": "VAE"}
    denoiser: ClassVar = "transformer"
    components: ClassVar = {
        "VAE encoder": ("vae.encoder.", "vae.quant_conv."),
        "DiT": ("transformer.", "context"),
        "VAE decoder": ("vae.decoder.", "vae.post_quant_conv."),
    }
    regions: ClassVar = {
        "encoder down": ("vae.encoder.conv_in", "vae.encoder.down_blocks"),
        "encoder mid": ("vae.encoder.", "vae.quant_conv"),
        "DiT in": ("transformer.pos_embed", "transformer.time_text_embed", "transformer.context_embedder"),
        "DiT blocks": ("transformer.transformer_blocks",),
        "DiT out": ("transformer.",),
        "decoder mid": ("vae.post_quant_conv", "vae.decoder.conv_in", "vae.decoder.mid_block"),
        "decoder up": ("vae.decoder.",),
    }
    trained_whole: ClassVar = ()

    def __init__(
        self,
        transformer: SD3Transformer2DModel,
        vae: AutoencoderKL,
        context: Tensor,
        timestep: int,
        align: str = "none",
    ) -> None:
        super().__init__()
        if not isinstance(transformer.pos_embed, Patches):
            transformer.pos_embed = Patches(transformer.pos_embed)
        self.transformer, self.vae, self.timestep, self.align = transformer, vae, timestep, align
        self.register_buffer("context", context)

    @classmethod
    def assemble(cls, parts: Mapping[str, Any], context: Tensor, timestep: int, align: str) -> Self:
        """A model of ``transformer`` and ``vae``."""
        return cls(parts["transformer"], parts["vae"], context, timestep, align)

    @property
    def facts(self) -> Facts:
        """From the configurations of VAE and transformer."""
        config: Any = self.vae.config
        dit: Any = self.transformer.config
        factor = 2 ** (len(config.block_out_channels) - 1)
        scores = [dit.num_attention_heads / dit.patch_size**4, 1.0 if config.mid_block_add_attention else 0.0]
        return Facts(
            scale=4,
            factor=factor,
            multiple=factor * int(dit.patch_size),
            latents=int(config.latent_channels),
            scaling=float(config.scaling_factor),
            widest=max(config.block_out_channels[:2]),
            attention=max(scores),
            window=int(dit.sample_size) * factor,
            most=self.transformer.pos_embed.most * int(dit.patch_size) * factor,
            patch=int(dit.patch_size),
        )

    @property
    def step(self) -> Step:
        """A flow's: Z_L - v."""
        return Step(self.timestep, 1.0, -1.0)

    def prompt(self, batch: int) -> tuple[Tensor, Tensor]:
        """(B, N, D) tokens and (B, P) pooled embedding; of a folded model both empty."""
        dit: Any = self.transformer.config
        tokens, pooled = self.context.split(
            [dit.joint_attention_dim, self.context.shape[2] - dit.joint_attention_dim], 2
        )
        whole = pooled.flatten(1)[:, : dit.pooled_projection_dim]
        return tokens.expand(batch, -1, -1), whole.expand(batch, -1)

    def posterior(self, lq: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) image -> mean and log-variance (clamped to -30..20) of the raw latent, (B, C, h, w) each.

        Raises QartsrError for an image with a side longer than ``facts.most``.
        """
        if not torch.compiler.is_exporting():
            self.facts.load.demand_fits(*lq.shape[2:])
        distribution = self.vae.encode(lq).latent_dist
        return distribution.mean, distribution.logvar

    def predict(self, z_l: Tensor) -> Tensor:
        """Velocity v = DiT(Z_L; T, c)."""
        return self.velocity(z_l, torch.full((z_l.shape[0],), self.timestep, device=z_l.device))

    def velocity(self, latent: Tensor, timesteps: Tensor) -> Tensor:
        """(B, C, h, w) velocity of latents at ``timesteps`` (B,), each of 0 .. 1000."""
        tokens, pooled = self.prompt(latent.shape[0])
        found: Tensor = self.transformer(
            latent, encoder_hidden_states=tokens, pooled_projections=pooled, timestep=timesteps
        ).sample
        return found

    def reconstruct(self, raw: Tensor) -> Tensor:
        """(B, C, h, w) raw latent -> image, not clamped."""
        return self.vae.decode(raw).sample

    def segments(self) -> tuple[Segment, ...]:
        """VAE encoder, transformer, VAE decoder, one diffusers block each, ends with their neighbours."""
        return segments(self)

    def skip_joins(self) -> dict[str, int]:
        """None: a transformer adds, it does not join."""
        return {}

    def constant_shapes(self, tokens: int) -> dict[str, tuple[int, ...]]:
        """Every modulation (adaLN), what the prompt becomes, and its query, key and value in the first block.

        Time and pooled prompt only reach the modulations, so nothing is kept of them. In SD3-medium these are 696.8 M
        of 2,028 M parameters, and 1.4 M numbers for 154 tokens.
        """
        width = self.transformer.inner_dim
        shapes: dict[str, tuple[int, ...]] = {
            "transformer.time_text_embed": (1, 0),
            "transformer.context_embedder": (1, tokens, int(self.transformer.config["caption_projection_dim"])),
        }
        blocks: Any = self.transformer.transformer_blocks
        for number, block in enumerate(blocks):
            name = f"transformer.transformer_blocks.{number}"
            shapes[f"{name}.norm1.linear"] = (1, width * (9 if block.use_dual_attention else 6))
            shapes[f"{name}.norm1_context.linear"] = (1, width * (2 if block.context_pre_only else 6))
            if number == 0:
                parts = ("add_k_proj", "add_v_proj", *(() if block.context_pre_only else ("add_q_proj",)))
                shapes |= {f"{name}.attn.{part}": (1, tokens, width) for part in parts}
        return {**shapes, "transformer.norm_out.linear": (1, 2 * width)}

    def tables(self) -> dict[str, Tensor]:
        """The places of patches."""
        return dict([self.transformer.pos_embed.table()])

    def lora_targets(self) -> dict[str, str]:
        """TSD-SR's: every linear layer of the transformer's blocks, and the VAE's encoder."""
        prefixes = ("transformer.transformer_blocks.", "vae.encoder.", "vae.quant_conv")
        names = [name for name, part in self.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)]
        return {name: "default" for name in names if name.startswith(prefixes)}

    def graph_modules(self) -> tuple[nn.Module, ...]:
        """Transformer, encoder and decoder."""
        return self.transformer, self.vae.encoder, self.vae.decoder

    @property
    def granule(self) -> int:
        """The side of a patch."""
        return int(self.transformer.config["patch_size"])


def joined_prompt(tokens: Tensor, pooled: Tensor) -> Tensor:
    """(1, N, D) tokens and (1, P) pooled embedding -> (1, N, D + k), k = P / N rounded up: the model's ``context``."""
    count = tokens.shape[1]
    columns = math.ceil(pooled.shape[1] / count)
    filled = torch.zeros(1, count * columns, dtype=pooled.dtype, device=pooled.device)
    filled[:, : pooled.shape[1]] = pooled
    return torch.cat([tokens, filled.reshape(1, count, columns)], 2)
