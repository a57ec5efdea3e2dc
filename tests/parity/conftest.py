"""The fixture's model, once with the LoRA merged and once with it beside the weights, and its runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image
from torch import Tensor

from qartsr.models import OneStepSR
from qartsr.models.sd_unet.osediff import load_osediff
from qartsr.upscale import read_image
from qartsr.upscale.official import Trace, restore
from qartsr.upscale.official.image import network_input, network_size
from qartsr.upscale.official.network import draw
from tests.parity.cases import PROCESS_SIZE, PROMPT, Case, seed


class Run(NamedTuple):
    """Our counterpart of one run of the script; its noise comes from the seed alone."""

    source: Image.Image
    lq: Tensor
    noise: Tensor
    trace: Trace
    calls: list[tuple[Tensor, Tensor]]
    """(input, output) of the UNet"""


@pytest.fixture(scope="session")
def models(parity: Path) -> dict[bool, OneStepSR]:
    """By ``merge``."""
    base, lora = parity / "sd21_tiny", parity / "osediff.pkl"
    return {merge: load_osediff(base, lora, "none", PROMPT, merge=merge) for merge in (False, True)}


@pytest.fixture(scope="session")
def run(parity: Path, models: dict[bool, OneStepSR]) -> Callable[[Case, str], Run]:
    """Computes each run once."""

    @cache
    def compute(case: Case, image: str) -> Run:
        model, calls = models[case.merge], list[tuple[Tensor, Tensor]]()
        given = read_image(parity / case.inputs / f"{image}.png", upright=False)
        source = network_size(given.convert("RGB"), PROCESS_SIZE)
        lq = network_input(source)
        noise = draw(model, lq, seed(parity, case, image))
        hook = model.unet.register_forward_hook(lambda _, inputs, output: calls.append((inputs[0], output.sample)))
        trace = restore(model, lq, noise, case.tiling)
        hook.remove()
        return Run(source, lq, noise, trace, calls)

    return compute
