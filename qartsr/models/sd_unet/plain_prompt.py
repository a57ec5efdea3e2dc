"""The embedding of a fixed prompt, as a component of a diffusers folder."""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config


class FixedPrompt(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """``context`` (1, tokens, width): what a text encoder made of the prompt."""

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, tokens: int = 77, width: int = 1024) -> None:
        super().__init__()
        self.context = torch.nn.Parameter(torch.zeros(1, tokens, width), requires_grad=False)
