"""Image files in every mode; what cannot be read or written is said in one sentence."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from qartsr.errors import QartsrError
from qartsr.upscale import check_target, is_image, read_image, upscale_image, write_image
from tests.packing.tiny import tiny_model

RNG = np.random.default_rng(0)
MODES = {"L": "L", "RGB": "RGB", "RGBA": "RGBA", "LA": "LA", "1": "L", "P": "RGB", "I;16": "L"}


def noise(mode: str, width: int = 5, height: int = 3) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(RNG.integers(0, 2**16, (height, width)).astype(np.uint16))
    rgba = Image.fromarray(RNG.integers(0, 256, (height, width, 4)).astype(np.uint8))
    return rgba.convert("RGB").convert(mode) if mode in ("1", "P") else rgba.convert(mode)


@pytest.mark.parametrize("mode", MODES)
def test_every_png_mode_is_read_upscaled_and_written(mode: str, tmp_path: Path) -> None:
    noise(mode).save(tmp_path / "in.png")
    image = read_image(tmp_path / "in.png")
    assert image.mode == MODES[mode]
    result = upscale_image(tiny_model(), image)
    assert (result.mode, result.size) == (MODES[mode], (20, 12))
    write_image(tmp_path / "new" / "out.png", result, image)
    assert np.array_equal(np.asarray(read_image(tmp_path / "new" / "out.png")), np.asarray(result))


def test_alpha_is_bicubic_and_opaque_colours_are_those_without_alpha() -> None:
    image = noise("RGBA", 20, 18)
    result = upscale_image(tiny_model(), image)
    assert result.getchannel("A") == image.getchannel("A").resize((80, 72), Image.Resampling.BICUBIC)
    image.putalpha(255)
    assert upscale_image(tiny_model(), image).convert("RGB") == upscale_image(tiny_model(), image.convert("RGB"))


def test_grey_is_processed_as_three_equal_channels() -> None:
    image = noise("L", 6, 6)
    expected = upscale_image(tiny_model(), Image.merge("RGB", [image] * 3)).convert("L")
    assert upscale_image(tiny_model(), image) == expected


def test_transparency_of_a_palette_becomes_alpha(tmp_path: Path) -> None:
    noise("P").save(tmp_path / "in.png", transparency=0)
    assert read_image(tmp_path / "in.png").mode == "RGBA"


def test_sixteen_bits_are_rounded_to_eight(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 128, 129, 257, 65535]], np.uint16)).save(tmp_path / "in.png")
    assert np.asarray(read_image(tmp_path / "in.png")).tolist() == [[0, 0, 1, 1, 255]]


def test_orientation_is_applied_and_the_icc_profile_kept(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    noise("RGB", 8, 4).save(tmp_path / "in.jpg", exif=exif, icc_profile=profile)
    image = read_image(tmp_path / "in.jpg")
    assert image.size == (4, 8)
    write_image(tmp_path / "out.webp", image, image)
    with Image.open(tmp_path / "out.webp") as written:
        assert written.info["icc_profile"] == profile
        assert written.getexif()[0x0112] == 1


def test_jpeg_cannot_hold_transparency(tmp_path: Path) -> None:
    with pytest.raises(QartsrError, match="transparency"):
        write_image(tmp_path / "out.jpg", noise("RGBA"), noise("RGBA"))
    assert not list(tmp_path.iterdir())
    check_target(tmp_path / "out.JPEG", noise("L"))


def test_an_unknown_suffix_is_refused() -> None:
    with pytest.raises(QartsrError, match=r"\.png"):
        check_target(Path("out.psd"), noise("RGB"))
    assert not is_image(Path("notes.txt"))
    assert is_image(Path("A.JPG"))


def test_a_size_the_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QartsrError, match="WEBP"):
        write_image(tmp_path / "out.webp", Image.new("L", (17000, 1)), noise("L"))
    assert not list(tmp_path.iterdir())


def test_an_animation_is_refused(tmp_path: Path) -> None:
    noise("RGB").save(tmp_path / "in.webp", save_all=True, append_images=[noise("RGB")])
    with pytest.raises(QartsrError, match="animated"):
        read_image(tmp_path / "in.webp")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", r"in\.png: is empty"),
        (b"no image", "cannot be read as PNG, JPEG, WebP, TIFF, BMP, GIF or AVIF; convert it"),
        (b"GIF89a" + bytes(50), r"cannot be read as GIF \(.*check that the file is whole"),
    ],
)
def test_other_files_are_refused(content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "in.png").write_bytes(content)
    with pytest.raises(QartsrError, match=sentence):
        read_image(tmp_path / "in.png")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(QartsrError, match=r"nothing\.png: does not exist"):
        read_image(tmp_path / "nothing.png")
    with pytest.raises(QartsrError, match="is a folder"):
        read_image(tmp_path)


@given(data=st.data(), kind=st.sampled_from(["PNG", "JPEG", "WEBP"]))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_bytes_give_an_image_or_one_sentence(data: st.DataObject, kind: str, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 7), (200, 100, 50)).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (tmp_path / "in").write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        assert min(read_image(tmp_path / "in").size) > 0
    except QartsrError as error:
        assert "\n" not in str(error)
