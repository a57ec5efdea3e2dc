"""The prompt: CLIP's text encoder, run once when a model is made; the model keeps the embedding only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qartsr.errors import QartsrError
from qartsr.models.folder import CONTEXT, stored_context


def prompt_embedding(base: Path, prompt: str) -> Tensor:
    """(1, N, D): the text encoder's last hidden state of ``prompt``, unmasked; N = 77 in Stable Diffusion.

    ``base`` is a folder in diffusers layout, or a model folder of ours, which has no encoder but the embedding of the
    prompt it was trained with: that stands for the empty one, and (1, N, D) is then what the file holds. Raises
    QartsrError for an unusable encoder, a prompt that is no text, or one that only an encoder could read.
    """
    if not has_text_encoder(base):
        if prompt:
            raise QartsrError("has no text encoder, so no prompt can be given", str(base), "leave it empty")
        return stored_context(base)
    tokenizer, encoder = text_encoder(base)
    with torch.no_grad():
        embedding: Tensor = encoder(tokens(tokenizer, encoder, prompt))[0]
    return embedding


def has_text_encoder(base: Path) -> bool:
    """Whether prompts can be embedded, or are expected to be: false only for a model folder of ours without one."""
    return (base / "text_encoder").exists() or not (base / CONTEXT).is_file()


def text_encoder(base: Path) -> tuple[Any, Any]:
    """CLIP's (tokenizer, text model) in fp32. Raises QartsrError when one is missing, damaged or incomplete."""
    from transformers import CLIPTextModel, CLIPTokenizer  # two seconds of import, needed only here

    try:
        tokenizer = CLIPTokenizer.from_pretrained(base / "tokenizer", local_files_only=True)
        loaded: Any = CLIPTextModel.from_pretrained(
            base / "text_encoder", local_files_only=True, output_loading_info=True, dtype=torch.float32
        )
        encoder, report = loaded
    except Exception as error:  # tokenizers and safetensors raise their own kinds, down to a bare Exception
        reason = str(error).strip().splitlines()[0][:200]
        raise QartsrError(f"has no usable text encoder ({reason})", str(base), "download the folder again") from error
    if missing := sorted(report["missing_keys"]):
        raise QartsrError(f"lacks the weight {missing[0]!r}", str(base / "text_encoder"), "download the folder again")
    return tokenizer, encoder.eval()


def tokens(tokenizer: Any, encoder: Any, prompt: str) -> Tensor:
    """(1, N) int64 token ids, padded with the tokenizer's own padding token and cut to what the encoder can see."""
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise QartsrError("is not valid Unicode", "prompt", "give it in the encoding of the terminal") from error
    length = min(int(tokenizer.model_max_length), int(encoder.config.max_position_embeddings))
    ids: Tensor = tokenizer(
        prompt, max_length=length, padding="max_length", truncation=True, return_tensors="pt"
    ).input_ids
    return ids
