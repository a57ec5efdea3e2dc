"""What is asked about: a model known by name or in a folder, QArtSR's recipe for it, and the text encoder beside it.

The text encoder of Stable Diffusion 2.1-base is not part of the model that runs here (the prompt is fixed, its
embedding stored), only of OSEDiff's own. The recipe is that of the complete parameter sets in ``configs/``.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

import torch

from qartsr.config.parts import MethodConfig
from qartsr.cost.trace import Work, trace
from qartsr.errors import QartsrError
from qartsr.models import architecture, blank
from qartsr.models.folder import stored_architecture
from qartsr.models.sd3_dit import SD3DiT
from qartsr.models.sd3_dit.tsdsr import EDGE_LAYERS as DIT_EDGES
from qartsr.models.sd_unet.architectures import EDGE_LAYERS
from qartsr.models.sd_unet.dloral import DLoRAL
from qartsr.synthetic import ARCHITECTURES

RANK = 4
"""Of the low-rank branch: the only round number that fits the parameters of Table 2 (docs/cost.md)."""
_RANGES = {"sample": "mse"}
_HEADROOM = {"sample": 1.25}
_ADAPTER = {"sample": 16}
_FLOAT = {"dloral": ("frames.*",)}
_EDGES = {**EDGE_LAYERS, **DIT_EDGES}


def qartsr_method(profile: str, rank: int = RANK) -> MethodConfig:
    """The method of profile ``sample``, ``osediff``, ``dloral`` or ``tsdsr`` with a branch of ``rank``; 0: without."""
    ranges = _RANGES.get(profile, "minmax")
    skip: dict[str, Any] = {"kind": "svd", "rank": rank, "basis": "weight"} if rank else {"kind": "none"}
    return MethodConfig.model_validate(
        {
            "name": "qartsr",
            "layer": {
                "weight": {"kind": "lbq", "granularity": "channel", "init": ranges},
                "input": {"kind": "lbq", "granularity": "tensor", "init": ranges},
                "bias": {"bits": 8},
                "transform": {"kind": "channel_scale", "alpha": 0.3},
                "skip": skip,
                "adapter": {"kind": "lora", "rank": _ADAPTER.get(profile, 32)},
            },
            "edge_bits": 8,
            "edge_layers": _EDGES[profile],
            "edge_headroom": _HEADROOM.get(profile, 1.0),
            "float_layers": _FLOAT.get(profile, ()),
        }
    )


class Subject(NamedTuple):
    """A model to be counted."""

    name: str
    architecture: dict[str, Any]
    """as :func:`qartsr.models.skeleton` takes it"""

    @property
    def published(self) -> bool:
        """Whether it is the model of the paper's Table 2, whose floating-point row has a text path."""
        return self.name == "osediff"

    @property
    def profile(self) -> str:
        """Whose quantization recipe it gets."""
        named = {SD3DiT.kind: "tsdsr", DLoRAL.kind: "dloral"}
        if kind := named.get(self.architecture.get("kind", "")):
            return kind
        return "sample" if self.name == "sample" else "osediff"


def subject(model: str) -> Subject:
    """``osediff``, ``sample``, ``dloral``, ``tsdsr`` or a model folder. Raises QartsrError for anything else."""
    if model in ARCHITECTURES:
        return Subject(model, ARCHITECTURES[model]())
    folder = Path(model)
    if not folder.is_dir():
        names = ", ".join(ARCHITECTURES)
        raise QartsrError("is neither a known model nor a folder", model, f"give {names} or a model folder")
    return Subject(model, architecture(blank(stored_architecture(folder))))


TOKENS = 77
_CONFIG: dict[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "max_position_embeddings": TOKENS,
    "hidden_act": "gelu",
    "projection_dim": 512,
}
"""text_encoder/config.json: OpenCLIP ViT-H's text tower without its last layer."""


@functools.cache
def text_encoder() -> tuple[Work, ...]:
    """Every layer, for one prompt of 77 tokens. Raises QartsrError when transformers is not installed."""
    try:
        from transformers import CLIPTextConfig, CLIPTextModel  # seconds of import, needed only here
    except ImportError as error:
        raise QartsrError("needs transformers", "the text encoder", "pip install 'qartsr[train]'") from error
    with torch.device("meta"):
        model = CLIPTextModel(CLIPTextConfig(**_CONFIG)).eval()
    return trace(model, torch.zeros(1, TOKENS, dtype=torch.long, device="meta"))
