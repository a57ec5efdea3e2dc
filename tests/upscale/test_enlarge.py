"""What the network is given: nothing of invisible colours, enough around narrow pictures, 16 bits where there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from qartsr import OneStepSRPipeline, QartsrError
from qartsr.images import as_image, read_image, write_image
from qartsr.models import OneStepSR
from qartsr.upscale import upscale_image
from qartsr.upscale.enlarge import enlarged, fill
from tests.packing.tiny import tiny_model

RNG = np.random.default_rng(0)
UNDER = ((0, 255, 0), (0, 0, 0), (255, 255, 255))


def disc(under: tuple[int, int, int], soft: bool = False) -> Image.Image:
    """Red, 20 x 18, on what is invisible."""
    y, x = np.mgrid[:18, :20]
    distance = np.hypot(x - 9, y - 8)
    alpha = np.clip((6 - distance) * (0.25 if soft else 1e3), 0, 1)
    pixels = np.zeros((18, 20, 4), np.uint8)
    pixels[..., :3] = np.where(alpha[..., None] > 0, (220, 40, 40), under)
    pixels[..., 3] = np.rint(alpha * 255)
    return Image.fromarray(pixels)


def forms(image: Image.Image) -> dict[str, Any]:
    """The same picture in the ways that files have of being transparent."""
    pixels = np.asarray(image)
    wide = pixels.astype(np.uint16) * 257
    return {"RGBA": image, "LA": np.asarray(image.convert("LA")), "16": wide, "P": image.quantize(256)}


@pytest.mark.parametrize("soft", [False, True])
def test_invisible_colours_have_no_influence(soft: bool) -> None:
    results = [
        {name: np.asarray(upscale_image(tiny_model(), form)) for name, form in forms(disc(under, soft)).items()}
        for under in UNDER[: 2 + soft]
    ]
    for name in ("RGBA", "LA", "16"):
        for other in results[1:]:
            np.testing.assert_array_equal(results[0][name], other[name])
    seen = np.asarray(disc(UNDER[0], soft).resize((80, 72), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(results[0]["RGBA"][..., 3], seen[..., 3])
    assert results[0]["P"].shape == (72, 80, 4)


def test_the_network_is_given_the_colours_as_they_are_composed() -> None:
    for soft in (False, True):
        source = enlarged(as_image(disc((0, 255, 0), soft))).lq.transpose(1, 2, 0).astype(int)
        assert np.abs(source - (220, 40, 40)).max() <= 1
    mixed = np.asarray(disc((0, 0, 0))).copy()
    mixed[..., :3] = RNG.integers(0, 256, (18, 20, 3))
    image = Image.fromarray(mixed)
    theirs = np.asarray(image.resize((80, 72), Image.Resampling.BICUBIC)).astype(int)
    ours = enlarged(as_image(image)).lq.transpose(1, 2, 0).astype(int)
    firm = theirs[..., 3] == 255
    assert (
        np.abs(ours - theirs[..., :3])[firm].mean() < 4
    )  # Pillow clips alpha above 1 and the colours with it, hence not alike at edges


def test_filling_spreads_the_visible_and_changes_none_of_it() -> None:
    colours = RNG.random((7, 9, 3)).astype(np.float32) * 255
    alpha = (RNG.random((7, 9)) > 0.7).astype(np.float32)
    filled = fill(colours, alpha)
    np.testing.assert_array_equal(filled[alpha > 0], colours[alpha > 0])
    assert filled.min() >= colours[alpha > 0].min() and filled.max() <= colours[alpha > 0].max() + 1e-3
    assert not fill(colours, np.zeros((7, 9), np.float32)).any()
    faint = np.full((7, 9), 3 / 255, np.float32)
    np.testing.assert_array_equal(fill(colours, faint), colours)  # nothing else is to be seen


def test_hardly_visible_colours_stain_no_visible_ones() -> None:
    """Green of alpha 1 around red, which the colour fix would mix into it."""
    pixels = np.asarray(disc((0, 255, 0))).copy()
    pixels[..., 3] = np.maximum(pixels[..., 3], 1)
    source = enlarged(as_image(pixels)).lq.transpose(1, 2, 0).astype(int)
    assert np.abs(source - (220, 40, 40)).mean() < 50  # 105 as they are


@pytest.mark.parametrize("width", [1, 2, 7])
def test_a_narrow_picture_is_continued_by_mirroring(width: int) -> None:
    column = np.asarray(Image.fromarray(RNG.integers(0, 256, (5, 1, 3)).astype(np.uint8)).resize((1, 50)))
    narrow = np.asarray(upscale_image(tiny_model(), np.repeat(column, width, 1))).astype(int)
    broad = np.asarray(upscale_image(tiny_model(), np.repeat(column, width + 16, 1))).astype(int)
    np.testing.assert_array_equal(narrow, broad[:, 32 : 32 + 4 * width])
    turned = np.asarray(upscale_image(tiny_model(), np.repeat(column, width, 1).transpose(1, 0, 2)))
    assert turned.shape == (4 * width, 200, 3)
    assert np.asarray(upscale_image(tiny_model(), np.full((1, 1), 77, np.uint8))).shape == (4, 4)


def test_sixteen_bits_stay_sixteen(tmp_path: Path) -> None:
    small = RNG.integers(0, 65536, (5, 6, 3)).astype(np.uint16)
    ramp = np.repeat(np.repeat(small, 4, 0), 4, 1)
    wide, narrow = upscale_image(tiny_model(), ramp), upscale_image(tiny_model(), (ramp // 257).astype(np.uint8))
    assert wide.wide is not None and wide.wide.shape == (80, 96, 3) and len(np.unique(wide.wide)) > 1000
    assert np.abs(np.asarray(wide).astype(int) - np.asarray(narrow)).mean() < 2
    grey = upscale_image(tiny_model(), np.dstack([ramp[..., 0], ramp[..., 1]]))
    assert grey.mode == "LA" and grey.wide is not None and grey.wide.shape[2] == 2
    write_image(tmp_path / "a.png", wide)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").wide, wide.wide)


def test_the_library_keeps_what_the_command_keeps(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x8298] = 6, "(c) somebody"
    source = tmp_path / "in.jpg"
    Image.fromarray(RNG.integers(0, 256, (20, 24, 3)).astype(np.uint8)).save(
        source, exif=exif, icc_profile=b"a profile", dpi=(300, 300)
    )
    result = OneStepSRPipeline(tiny_model())(source)
    assert result.size == (80, 96) and result.info["icc_profile"] == b"a profile"
    result.save(tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as written:
        kept = written.getexif()
        assert (kept[0x0112], kept[0x8298]) == (1, "(c) somebody")
        assert written.info["icc_profile"] == b"a profile" and round(written.info["dpi"][0]) == 300


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_result_that_is_no_number_is_an_error(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = torch.tensor(value)
    monkeypatch.setattr(OneStepSR, "forward", lambda self, lq, *noise: lq * broken)
    with pytest.raises(QartsrError, match="not a number"):
        upscale_image(tiny_model(), np.zeros((20, 20, 3), np.uint8) + 9)
