from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from qartsr.errors import QartsrError
from qartsr.images import read_rgb

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1"])
def test_grey_palette_and_opaque_alpha_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "image.png"
    source = Image.fromarray(GREY).convert(mode)
    source.save(path)
    read = read_rgb(path)
    assert read.mode == "RGB"
    np.testing.assert_array_equal(np.array(read), np.array(source.convert("L").convert("RGB")))


def test_an_8_bit_tiff_is_not_taken_for_a_16_bit_one(tmp_path: Path) -> None:
    Image.fromarray(GREY).convert("RGB").save(tmp_path / "a.tif")
    np.testing.assert_array_equal(np.array(read_rgb(tmp_path / "a.tif"))[..., 1], GREY)


@pytest.mark.parametrize("name", ["rgb.png", "grey.png", "rgb.tif"])
def test_16_bit_images_are_refused(tmp_path: Path, name: str) -> None:
    """Written by OpenCV; Pillow alone would read 16-bit RGB as 8-bit in silence."""
    deep = GREY.astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / name), deep if name.startswith("grey") else np.dstack([deep] * 3))
    with pytest.raises(QartsrError, match=rf"{name}: is not an 8-bit image .*convert it to 8 bits"):
        read_rgb(tmp_path / name)


def test_transparent_pixels_are_refused(tmp_path: Path) -> None:
    pixels = np.dstack([GREY] * 3 + [np.full_like(GREY, 255)])
    pixels[3, 4, 3] = 254
    Image.fromarray(pixels).save(tmp_path / "glass.png")
    with pytest.raises(QartsrError, match=r"glass\.png: has transparent pixels; flatten it"):
        read_rgb(tmp_path / "glass.png")


@pytest.mark.parametrize(
    ("damage", "what"),
    [("text", "cannot be read as PNG, JPEG"), ("cut", "cannot be read as PNG"), ("absent", "does not")],
)
def test_unreadable_files_are_named(tmp_path: Path, damage: str, what: str) -> None:
    path = tmp_path / "broken.png"
    if damage == "text":
        path.write_text("not an image")
    elif damage == "cut":
        Image.effect_noise((64, 64), 50).save(path)
        path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(QartsrError, match=rf"broken\.png: {what}"):
        read_rgb(path)
