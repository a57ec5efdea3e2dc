"""The command line's OSEDiff: ours exactly 4 times as large on every size, the script's as the script has it."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from qartsr.cli.osediff_options import _NAMES, add_options, osediff_options
from qartsr.cli.upscale import UPSCALE
from qartsr.errors import QartsrError
from qartsr.models.sd_unet.osediff import load_osediff
from qartsr.upscale import OVERLAP, TILE, upscale_image
from qartsr.upscale.osediff import OSEDiffOptions, OSEDiffPipeline
from tests.models.little import checkpoint, write_base

SIZES = [(1, 1), (3, 2), (5, 9), (16, 16), (23, 17)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(base, LoRA)."""
    folder = tmp_path_factory.mktemp("osediff")
    base = write_base(folder / "base")
    torch.save(checkpoint(base), folder / "osediff.pkl")
    return base, folder / "osediff.pkl"


def parse(files: tuple[Path, Path], source: Path, target: Path, *more: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    UPSCALE.arguments(parser)
    return parser.parse_args([str(source), str(target), "--base", str(files[0]), "--lora", str(files[1]), *more])


def pipe(files: tuple[Path, Path], *more: str) -> OSEDiffPipeline:
    return OSEDiffPipeline.load(osediff_options(parse(files, Path("in"), Path("out"), *more)))


def image(width: int, height: int, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 4)).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as opened:
        return opened.size


def test_the_command_line_and_the_options_agree() -> None:
    assert set(_NAMES) == {field.name for field in dataclasses.fields(OSEDiffOptions)}
    parser = argparse.ArgumentParser()
    add_options(parser)
    assert osediff_options(parser.parse_args(["--lora", "x"])) == OSEDiffOptions(lora=Path("x"))
    assert set(vars(parser.parse_args([]))) | {"device"} == set(_NAMES)


@pytest.mark.parametrize("more", [(), ("--posterior", "sample"), ("--latent-tile", "8", "--latent-overlap", "2")])
def test_ours_is_exactly_four_times_as_large(files: tuple[Path, Path], more: tuple[str, ...]) -> None:
    made = pipe(files, *more)
    for width, height in SIZES:
        assert made(image(width, height)).size == (4 * width, 4 * height)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA"])
def test_ours_keeps_the_mode(files: tuple[Path, Path], mode: str) -> None:
    assert pipe(files)(image(6, 5, mode)).mode == mode


def test_ours_is_the_pipeline_of_the_other_models(files: tuple[Path, Path]) -> None:
    model = load_osediff(files[0], files[1], "adain", "some text")
    assert pipe(files, "--prompt", "some text")(image(9, 7)) == upscale_image(model, image(9, 7))
    assert pipe(files)(image(9, 7)) != upscale_image(model, image(9, 7))


def test_small_images_are_enlarged_for_the_network_only(files: tuple[Path, Path]) -> None:
    seen = list[tuple[int, ...]]()
    made = pipe(files, "--process-size", "48")
    made.model.vae.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[2:])))
    assert made(image(6, 9, "RGBA")).size == (24, 36)
    assert seen == [(72, 48)]
    assert made(image(13, 12)).size == (52, 48)
    assert seen[1:] == [(48, 52)]


def test_the_sample_depends_on_the_seed_and_on_nothing_else(files: tuple[Path, Path]) -> None:
    sampled = pipe(files, "--posterior", "sample", "--seed", "3")
    first = sampled(image(8, 8))
    assert sampled(image(8, 8)) == first  # the seed is set anew
    assert pipe(files, "--posterior", "sample", "--seed", "4")(image(8, 8)) != first
    assert pipe(files)(image(8, 8)) != first


def test_tiles_agree_on_the_noise(files: tuple[Path, Path]) -> None:
    """Tiled or not, the same noise: the difference is that of tiling, as without noise."""
    whole = pipe(files, "--posterior", "sample", "--align", "wavelet")
    tiled = pipe(files, "--posterior", "sample", "--align", "wavelet", "--latent-tile", "16", "--latent-overlap", "8")
    noise = np.abs(np.asarray(whole(image(24, 16))).astype(int) - np.asarray(tiled(image(24, 16))))
    other = pipe(files, "--posterior", "sample", "--align", "wavelet", "--seed", "1")(image(24, 16))
    assert noise.mean() < np.abs(np.asarray(whole(image(24, 16))).astype(int) - np.asarray(other)).mean()


def test_the_script_keeps_its_own_sizes_and_rgb(files: tuple[Path, Path]) -> None:
    made = pipe(files, "--official", "--process-size", "32", "--latent-tile", "8", "--latent-overlap", "3")
    assert [made(image(*size)).size for size in [(3, 4), (9, 11), (16, 16)]] == [(32, 40), (32, 40), (64, 64)]
    assert made(image(9, 9, "LA")).mode == "RGB"
    assert made(image(9, 9)) == made(image(9, 9))
    assert made(image(9, 9)) != pipe(files, "--official", "--process-size", "32", "--posterior", "mode")(image(9, 9))


def test_the_scripts_default_process_size(files: tuple[Path, Path]) -> None:
    made = pipe(files, "--official")

    def stop(_: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        raise RuntimeError(f"{tuple(inputs[0].shape)}")

    made.model.vae.encoder.register_forward_pre_hook(stop)
    with pytest.raises(RuntimeError, match=r"\(1, 3, 512, 1024\)"):
        made(image(2, 1))


def test_merged_and_beside_agree(files: tuple[Path, Path]) -> None:
    pair = [np.asarray(pipe(files, "--official", "--process-size", "32", flag)(image(10, 10))).astype(int)
            for flag in ("--merge", "--no-merge")]  # fmt: skip
    assert np.abs(pair[0] - pair[1]).max() <= 1


def test_a_folder(files: tuple[Path, Path], tmp_path: Path) -> None:
    names = ["a.png", "sub name.webp", "c.JPG"]
    for number, name in enumerate(names):
        (tmp_path / "in").mkdir(exist_ok=True)
        image(4 + number, 5).save(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    UPSCALE.run(parse(files, tmp_path / "in", tmp_path / "out"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)
    assert [size(tmp_path / "out" / name) for name in names] == [(16, 20), (20, 20), (24, 20)]


def test_stored_orientation_is_followed_by_ours_and_ignored_by_the_script(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    image(8, 16).save(tmp_path / "in.png", exif=exif)
    UPSCALE.run(parse(files, tmp_path / "in.png", tmp_path / "ours.png"))
    script = ("--official", "--process-size", "0")
    UPSCALE.run(parse(files, tmp_path / "in.png", tmp_path / "script.png", *script))
    assert size(tmp_path / "ours.png") == (64, 32)
    assert size(tmp_path / "script.png") == (32, 64)


def test_what_cannot_be_done_is_one_sentence(files: tuple[Path, Path], tmp_path: Path) -> None:
    image(4, 4).save(tmp_path / "in.png")
    for more, sentence in {
        ("--base", str(tmp_path)): "has no folder 'unet'",
        ("--lora", str(tmp_path / "none.pkl")): "does not exist",
        ("--latent-tile", "4", "--latent-overlap", "3"): "choose an overlap of at most half a tile",
        ("--official", "--process-size", "0", "--latent-tile", "1"): "choose a smaller overlap",
    }.items():
        with pytest.raises(QartsrError, match=sentence):
            UPSCALE.run(parse(files, tmp_path / "in.png", tmp_path / "out.png", *more))
    with pytest.raises(SystemExit):
        parse(files, tmp_path / "in.png", tmp_path / "out.png", "--seed", str(2**64))
    with pytest.raises(QartsrError, match="JPEG cannot hold"):
        image(4, 4, "RGBA").save(tmp_path / "in.png")
        UPSCALE.run(parse(files, tmp_path / "in.png", tmp_path / "out.jpg"))
    assert not (tmp_path / "out.png").exists()


def test_tiles_of_parts_bound_the_tile_of_the_whole(files: tuple[Path, Path]) -> None:
    def tiling(*more: str) -> tuple[int, int]:
        made = pipe(files, *more)
        return made._tile, made._overlap

    assert tiling() == (TILE, OVERLAP)
    assert tiling("--latent-tile", "32") == (128, 32)  # f = 4
    assert tiling("--latent-tile", "32", "--vae-encoder-tile", "96", "--vae-decoder-tile", "16") == (64, 16)
    assert tiling("--latent-overlap", "8") == (512, 32)
