"""Error maps have one fixed scale; contact sheets keep pixels."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from qartsr.evaluate import contact_sheet
from qartsr.evaluate.pictures import RANGE, error_map, fitted


@pytest.mark.parametrize("error", [0, 1, 24, RANGE, RANGE + 1, 255])
def test_grey_errors_have_the_colours_of_magma(error: int) -> None:
    images = [Image.new("RGB", (2, 2), (level,) * 3) for level in (error, 0)]
    expected = np.array(colormaps["magma"](min(error, RANGE) * 255 // RANGE)[:3]) * 255
    for first, second in (images, images[::-1]):
        assert np.asarray(error_map(first, second))[0, 0] == pytest.approx(expected, abs=1)


def test_the_scale_does_not_depend_on_the_image() -> None:
    small, large = (Image.fromarray(np.array([[[10] * 3, [peak] * 3]], np.uint8)) for peak in (12, 250))
    black = Image.new("RGB", (2, 1))
    assert np.array_equal(*(np.asarray(error_map(image, black))[0, 0] for image in (small, large)))


def test_a_sheet_shows_the_pictures_as_they_are() -> None:
    pictures = [[Image.new("RGB", (16, 16), (40 * row, 40 * column, 99)) for column in range(3)] for row in range(2)]
    sheet = np.asarray(contact_sheet(pictures, ("a", "b", "c")))
    colours = {tuple(colour) for colour in sheet.reshape(-1, 3).tolist()}
    assert {(40 * row, 40 * column, 99) for row in range(2) for column in range(3)} <= colours


def test_small_pictures_are_enlarged_without_smoothing() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8))
    enlarged = np.asarray(fitted(image, 32))
    assert np.array_equal(enlarged, np.asarray(image)[:, 2:10].repeat(4, 0).repeat(4, 1))
