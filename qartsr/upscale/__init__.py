"""Images of any size and mode through a one-step model, in tiles.

The pipelines, :mod:`qartsr.upscale.pipeline` and :mod:`qartsr.upscale.osediff`, are not imported here: they bring
packages and engines along, which the stages that upscale in tiles must not depend on.
"""

from qartsr.images import check_target, decode_image, encode_png, is_image, read_image, write_image
from qartsr.upscale.device import choose_device
from qartsr.upscale.tiling import OVERLAP, TILE, upscale_image

__all__ = [
    "OVERLAP",
    "TILE",
    "check_target",
    "choose_device",
    "decode_image",
    "encode_png",
    "is_image",
    "read_image",
    "upscale_image",
    "write_image",
]
