"""Images of any size and mode through a one-step model: files, tiles, pipeline."""

from qartsr.upscale.image_files import check_target, is_image, read_image, write_image
from qartsr.upscale.pipeline import OneStepSRPipeline, choose_device
from qartsr.upscale.tiles import OVERLAP, TILE, upscale_image

__all__ = [
    "OVERLAP",
    "TILE",
    "OneStepSRPipeline",
    "check_target",
    "choose_device",
    "is_image",
    "read_image",
    "upscale_image",
    "write_image",
]
