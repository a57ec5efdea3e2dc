"""The text encoder of Stable Diffusion 2.1-base, counted on the meta device.

It is not part of the model that runs here (the prompt is fixed, its embedding stored), only of OSEDiff's own.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

from qartsr.cost.trace import Work, trace
from qartsr.errors import QartsrError

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
