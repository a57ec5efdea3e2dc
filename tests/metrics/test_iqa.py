"""PSNR and SSIM against a float64 reference and against the figures OSEDiff's authors published."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from qartsr.metrics import Meter
from tests.metrics import reference

Picture = NDArray[np.uint8]


@pytest.fixture(scope="module")
def meter() -> Meter:
    return Meter(["psnr", "psnr_rgb", "ssim"])


def _photograph() -> Picture:
    return np.ascontiguousarray(data.astronaut()[40:136, 160:280])


def _damaged(kind: str) -> Picture:
    image, random = _photograph().astype(np.float64), np.random.default_rng(0)
    if kind == "noise":
        image += random.normal(0, 12, image.shape)
    elif kind == "unrelated":
        image = random.uniform(0, 255, image.shape)
    elif kind == "dark":
        image *= 0.3
    elif kind == "blocks":
        image = np.kron(image[::4, ::4], np.ones((4, 4, 1)))
    return image.round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", ["same", "noise", "unrelated", "dark", "blocks"])
def test_agrees_with_the_float64_reference(meter: Meter, kind: str) -> None:
    image, truth = _damaged(kind), _photograph()
    scores = meter.measure(Image.fromarray(image), Image.fromarray(truth))
    assert scores["psnr"] == pytest.approx(reference.psnr(image, truth), abs=1e-4)
    assert scores["psnr_rgb"] == pytest.approx(reference.psnr_rgb(image, truth), abs=1e-4)
    assert scores["ssim"] == pytest.approx(reference.ssim(image, truth), abs=1e-5)


def test_identical_images_score_80_db_and_1(meter: Meter) -> None:
    image = Image.fromarray(_photograph())
    same = pytest.approx(80.0, abs=1e-6)
    assert meter.measure(image, image) == {"psnr": same, "psnr_rgb": same, "ssim": pytest.approx(1.0, abs=1e-9)}


def test_a_grey_shift_has_a_closed_form(meter: Meter) -> None:
    """All channels up by d levels move Y by 219 d / 255 levels."""
    images = [Image.new("RGB", (32, 24), (100 + d,) * 3) for d in (0, 7)]
    expected = 20 * np.log10(255 / (7 * 219 / 255))
    scores = meter.measure(images[1], images[0])
    assert scores["psnr"] == pytest.approx(expected, abs=1e-3)
    assert scores["psnr_rgb"] == pytest.approx(20 * np.log10(255 / 7), abs=1e-3)


def test_only_rgb_sees_lost_colour(meter: Meter) -> None:
    """(200, 100, 50) and the grey of its luma: Y differs by rounding only, R, G and B by dozens of levels."""
    colour, grey = (Image.new("RGB", (32, 24), value) for value in ((200, 100, 50), (124,) * 3))
    scores = meter.measure(grey, colour)
    expected = 10 * np.log10(255**2 / np.mean([76**2, 24**2, 74**2]))
    assert scores["psnr"] > 50 and scores["psnr_rgb"] == pytest.approx(expected, abs=1e-3)


def test_sizes_must_agree(meter: Meter) -> None:
    with pytest.raises(ValueError, match="differ in size"):
        meter.measure(Image.new("RGB", (32, 32)), Image.new("RGB", (32, 28)))


def test_extra_metrics_join_under_their_own_name() -> None:
    meter = Meter([], {"mean_error": lambda image, other: float((image - other).abs().mean())})
    scores = meter.measure(Image.new("RGB", (8, 8), (51, 51, 51)), Image.new("RGB", (8, 8)))
    assert meter.names == ("mean_error",) and scores == {"mean_error": pytest.approx(0.2)}


def test_measuring_leaves_the_random_state_alone(meter: Meter) -> None:
    before = torch.get_rng_state()
    meter.measure(Image.fromarray(_damaged("noise")), Image.fromarray(_photograph()))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("step", [6, pytest.param(1, marks=pytest.mark.slow)], ids=["four", "all"])
def test_equals_the_published_figures_of_osediff(meter: Meter, root: Path, step: int) -> None:
    """The authors' own per-image PSNR and SSIM of their full-precision outputs, to three decimals."""
    folder = reference.drealsr(root)
    with (folder / "osediff_fp_metrics.csv").open() as handle:
        published = list(csv.DictReader(handle))
    assert len(published) == 24
    for row in published[::step]:
        images = (Image.open(folder / part / row["image"]) for part in ("osediff_fp", "HR"))
        scores = meter.measure(*images)
        for name in ("psnr", "ssim"):
            assert scores[name] == pytest.approx(float(row[name]), abs=5e-4), (row["image"], name)


def test_a_fault_of_the_machine_is_not_the_images() -> None:
    """Else DVC would keep, as a result, that there was too little memory."""

    def full(image: torch.Tensor, reference: torch.Tensor) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    picture = Image.new("RGB", (16, 16))
    with pytest.raises(torch.OutOfMemoryError):
        Meter((), {"full": full}).attempt(picture, picture)


def test_only_files_that_are_there_can_be_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    """PSNR has none, so what fails in building it is no advice to fetch them."""

    def broken(name: str, device: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr("qartsr.metrics.iqa.build", broken)
    with pytest.raises(RuntimeError, match="no"):
        Meter(("psnr",))
