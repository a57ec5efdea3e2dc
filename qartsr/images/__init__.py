"""Image files, bytes, arrays and Pillow images in, image files out: the same for every door of the project."""

from qartsr.images.inputs import SCALE, Some, as_image, read_rgb, upsample
from qartsr.images.picture import MODES, Picture, Wide, as_picture, narrowed, opaque, resized
from qartsr.images.read import READABLE, TooLargeError, decode_image, from_base64, is_image, read_image
from qartsr.images.write import check_target, demand_format, encode_like, encode_png, target_name, write_image

__all__ = [
    "MODES",
    "READABLE",
    "SCALE",
    "Picture",
    "Some",
    "TooLargeError",
    "Wide",
    "as_image",
    "as_picture",
    "check_target",
    "decode_image",
    "demand_format",
    "encode_like",
    "encode_png",
    "from_base64",
    "is_image",
    "narrowed",
    "opaque",
    "read_image",
    "read_rgb",
    "resized",
    "target_name",
    "upsample",
    "write_image",
]
