"""The cases the official code was run on, and how close is close enough."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from qartsr.upscale.official import Tiling

RELATIVE = 1e-4
"""Largest difference of a tensor, over its largest value."""
GREY = 1
"""Largest difference of an image, in grey levels of 255."""
SHARE = 0.005
"""Of an image's bytes that may differ at all; the fixture's README suggests it."""
PROMPT = "brick building, window, street sign, tree, sky, ,"
PROCESS_SIZE = 64
FOUR = ("img1_square", "img2_nonsquare", "img3_not_div8", "img4_below_min")


class Case(NamedTuple):
    """One run of the official script."""

    name: str
    merge: bool
    tiling: Tiling
    images: tuple[str, ...] = FOUR
    inputs: str = "inputs"
    aligns: tuple[str, ...] = ("nofix", "adain", "wavelet")


TILED = Tiling(latent=10, overlap=4)
CASES = (
    Case("unmerged_untiled", False, Tiling()),
    Case("unmerged_latenttiled", False, TILED),
    Case("merged_untiled", True, Tiling()),
    Case("merged_latenttiled", True, TILED),
    Case("vaetile_off", False, Tiling(), ("img5_vaetile",), "inputs_vaetile", ("nofix",)),
    Case("vaetile_on", False, Tiling(encoder=64, decoder=16), ("img5_vaetile",), "inputs_vaetile", ("nofix",)),
)
PAIRS = [(case, image) for case in CASES for image in case.images]
IDS = [f"{case.name}-{image}" for case, image in PAIRS]


def tensors(parity: Path, case: Case, image: str) -> dict[str, Tensor]:
    """What the official code computed."""
    return load_file(_file(parity, case, image))


def seed(parity: Path, case: Case, image: str) -> int:
    """Of the image's noise."""
    with safe_open(_file(parity, case, image), "pt") as file:
        return int(file.metadata()["seed"])


def _file(parity: Path, case: Case, image: str) -> Path:
    return parity / "cases" / case.name / "tensors" / f"{image}.safetensors"


def prompts(parity: Path) -> list[str]:
    """The six prompts, the fixture's own first."""
    return [entry["prompt"] for entry in json.loads((parity / "text" / "prompts.json").read_text())]


def relative(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference over the largest value."""
    assert ours.shape == theirs.shape
    return float((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max().clamp_min(1e-30))


def levels(ours: Image.Image, theirs: Path) -> tuple[int, float]:
    """(largest difference in grey levels, share of bytes that differ)."""
    expected = np.asarray(Image.open(theirs).convert("RGB")).astype(int)
    found = np.asarray(ours).astype(int)
    assert found.shape == expected.shape
    difference = np.abs(found - expected)
    return int(difference.max()), float((difference > 0).mean())


def close(ours: Tensor, theirs: Tensor) -> bool:
    """Equal for integers; within :data:`RELATIVE` for floats."""
    if not theirs.is_floating_point():
        return torch.equal(ours, theirs)
    return relative(ours, theirs) <= RELATIVE
