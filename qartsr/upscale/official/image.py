"""Image in, image out, as the script does it."""

from __future__ import annotations

from PIL import Image

from qartsr.models import OneStepSR
from qartsr.upscale.official.colour import finish
from qartsr.upscale.official.network import Tiling, draw, restore
from qartsr.upscale.official.sizes import network_input, network_size


def restore_image(
    model: OneStepSR, image: Image.Image, process_size: int, tiling: Tiling, seed: int | None
) -> Image.Image:
    """The script's output for an image of any mode, RGB; its size is the script's too, not always 4 times the input's.

    ``seed``: of the posterior's sample; None takes its mode. The colour fix is ``model.align``.
    """
    source = network_size(image.convert("RGB"), process_size)
    lq = network_input(source)
    noise = None if seed is None else draw(model, lq, seed)
    device = model.device
    trace = restore(model, lq.to(device), None if noise is None else noise.to(device), tiling)
    return finish(model.align, trace.decoded, source)
