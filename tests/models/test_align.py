"""The colour fix against the official images and the definition of the wavelet decomposition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from qartsr.models import align


def _image(path: Path) -> Tensor:
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None].float() / 127.5 - 1


@pytest.mark.parametrize("kind", ["adain", "wavelet"])
@pytest.mark.parametrize("name", ["img1_square", "img2_nonsquare", "img3_not_div8", "img4_below_min"])
def test_equals_the_official_images(parity: Path, kind: str, name: str) -> None:
    case = parity / "cases" / "unmerged_untiled"
    source = _image(parity / "inputs_resized" / f"{name}.png")
    fixed = align(kind, _image(case / "nofix" / f"{name}.png"), source)
    ours = ((fixed.clamp(-1, 1) + 1) * 127.5).numpy()  # the official code truncates
    theirs = np.array(Image.open(case / kind / f"{name}.png").convert("RGB")).transpose(2, 0, 1)[None]
    assert np.abs(np.floor(ours + 1e-3) - theirs).max() <= 1


def test_none_changes_nothing() -> None:
    image = torch.rand(1, 3, 8, 8)
    assert align("none", image, torch.rand(1, 3, 8, 8)) is image


@pytest.mark.parametrize("kind", ["adain", "wavelet"])
def test_an_image_fixed_by_itself_stays(kind: str) -> None:
    image = torch.rand(2, 3, 40, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.allclose(align(kind, image, image), image, atol=1e-6)


def test_wavelet_takes_a_constant_shift_from_the_source() -> None:
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(align("wavelet", image + 0.3, image), image, atol=1e-5)
