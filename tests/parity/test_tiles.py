"""Our own tiles on a Stable-Diffusion-shaped model: sizes, and memory bounded by the tile.

How close they come to the untiled network is tested on the trained sample model (tests/upscale/test_tiles.py): random
weights, as here, answer a small change of their input with any change of their output.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from torch import Tensor, nn

from qartsr.models import OneStepSR
from qartsr.upscale import upscale_image


@pytest.mark.parametrize("kind", ["none", "adain", "wavelet"])
def test_features_are_those_of_a_tile(parity: Path, models: dict[bool, OneStepSR], kind: str) -> None:
    model, seen = models[True], list[int]()
    model.align = kind

    def record(_: nn.Module, inputs: Any, output: Any) -> None:
        seen.append(output.numel() if isinstance(output, Tensor) else 0)

    hooks = [part.register_forward_hook(record) for part in model.modules()]
    image = Image.open(parity / "inputs_vaetile" / "img5_vaetile.png").convert("RGB")
    largest = []
    for size in [(22, 16), (22, 35)]:  # 2 tiles, 2 x 3 tiles
        seen.clear()
        assert upscale_image(model, image.crop((0, 0, *size)), 64, 16).size == (4 * size[0], 4 * size[1])
        largest.append(max(seen))
    for hook in hooks:
        hook.remove()
    assert largest[0] == largest[1]
