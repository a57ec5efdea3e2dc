"""Every final image of the official script, through the options of the command line: at most one grey level apart."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from qartsr.cli import main
from qartsr.cli.osediff_options import add_options, osediff_options
from qartsr.data.pairs import image_tensor
from qartsr.models import OneStepSR
from qartsr.upscale import read_image
from qartsr.upscale.official.image import finish
from qartsr.upscale.osediff import OSEDiffPipeline
from tests.parity.cases import CASES, FOUR, GREY, IDS, PAIRS, PROCESS_SIZE, PROMPT, SHARE, Case, levels, seed
from tests.parity.conftest import Run


def words(parity: Path, case: Case, image: str, align: str) -> list[str]:
    """The options of the command line that makes an official image."""
    tiling = case.tiling
    return [
        *("--official", "--posterior", "sample", "--prompt", PROMPT),
        *("--base", str(parity / "sd21_tiny"), "--lora", str(parity / "osediff.pkl")),
        *("--align", align.replace("nofix", "none"), "--seed", str(seed(parity, case, image))),
        *("--process-size", str(PROCESS_SIZE), "--merge" if case.merge else "--no-merge"),
        *("--latent-tile", str(tiling.latent), "--latent-overlap", str(tiling.overlap)),
        *("--vae-encoder-tile", str(tiling.encoder), "--vae-decoder-tile", str(tiling.decoder)),
    ]


def parsed(parity: Path, case: Case, image: str, align: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.parse_args(words(parity, case, image, align))


def official(parity: Path, case: Case, align: str, image: str) -> Path:
    return parity / "cases" / case.name / align / f"{image}.png"


@pytest.mark.parametrize(("case", "image"), PAIRS, ids=IDS)
def test_every_final_image(parity: Path, run: Callable[[Case, str], Run], case: Case, image: str) -> None:
    ours = run(case, image)
    for align in case.aligns:
        result = finish(align.replace("nofix", "none"), ours.trace.decoded, ours.source)
        most, share = levels(result, official(parity, case, align, image))
        assert most <= GREY and share <= SHARE, align


@pytest.mark.parametrize("align", ["nofix", "adain", "wavelet"])
def test_options_of_the_command_line_lead_there(parity: Path, models: dict[bool, OneStepSR], align: str) -> None:
    for case in (CASES[1], CASES[3]):
        options = osediff_options(parsed(parity, case, "img4_below_min", align))
        model = models[options.merge]
        model.align = options.align
        result = OSEDiffPipeline(model, options)(read_image(parity / case.inputs / "img4_below_min.png"))
        assert levels(result, official(parity, case, align, "img4_below_min"))[0] <= GREY


@pytest.mark.parametrize("align", ["adain", "wavelet"])
def test_the_colour_fix_alone_is_exact(parity: Path, align: str) -> None:
    """From the official image before the fix to the one after it, not one byte differs."""
    for image in FOUR:
        target = image_tensor(Image.open(official(parity, CASES[0], "nofix", image)))
        source = Image.open(parity / "inputs_resized" / f"{image}.png").convert("RGB")
        decoded = (target[None] + 0.5) / 255 * 2 - 1  # half a level from any doubt about truncation
        assert levels(finish(align, decoded, source), official(parity, CASES[0], align, image)) == (0, 0)


def test_the_whole_command(parity: Path, tmp_path: Path) -> None:
    case, image = CASES[3], "img3_not_div8"
    source, target = parity / case.inputs / f"{image}.png", tmp_path / "new" / "out.png"
    assert main(["upscale", str(source), str(target), *words(parity, case, image, "wavelet")]) == 0
    with Image.open(target) as written:
        assert levels(written.convert("RGB"), official(parity, case, "wavelet", image))[0] <= GREY


def test_ours_agrees_where_the_sizes_do(parity: Path, models: dict[bool, OneStepSR]) -> None:
    """Without ``--official`` an image of fitting size and no tiles differs by rounding alone."""
    case = CASES[0]
    for image in ("img1_square", "img2_nonsquare"):
        options = replace(osediff_options(parsed(parity, case, image, "nofix")), official=False)
        model = models[False]
        model.align = "none"
        result = OSEDiffPipeline(model, options)(Image.open(parity / case.inputs / f"{image}.png"))
        assert levels(result, official(parity, case, "nofix", image))[0] <= GREY
