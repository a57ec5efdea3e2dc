"""Images in, images out: sizes, formats, folders, and one sentence for each thing that can be wrong."""

from __future__ import annotations

import os
import resource
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qartsr import OneStepSRPipeline, upscale
from qartsr.cli.upscale import ENGINES, OVERLAP, ROUNDS
from qartsr.engines import engine_names
from qartsr.images.png import SIGNATURE, packed
from qartsr.upscale import tiling
from qartsr.upscale.unfinished import Row, Unfinished
from tests.cli.conftest import Qartsr

simulated = pytest.mark.usefixtures("without_openvino")
RNG = np.random.default_rng(0)


def photo(width: int = 9, height: int = 7, mode: str = "RGB") -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (height, width, 4)).astype(np.uint8)).convert("RGB").convert(mode)


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    """One image of each format, a damaged one, and things that are no images."""
    made = tmp_path / "in"
    made.mkdir()
    photo(5, 4).save(made / "a.png")
    photo(6, 3, "L").save(made / "b.JPG")
    photo(4, 4).save(made / "c.webp", lossless=True)
    (made / "damaged.png").write_bytes((made / "a.png").read_bytes()[:60])
    (made / "notes.txt").write_text("no image")
    (made / "sub").mkdir()
    photo().save(made / "sub" / "not seen.png")
    (made / ".hidden.png").write_bytes(b"")
    return made


@pytest.mark.parametrize("target", ["out.png", "out.jpg", "out.JPEG", "new/folder/out.webp"])
def test_an_image_becomes_four_times_as_large(target: str, qartsr: Qartsr, package: Path, tmp_path: Path) -> None:
    photo(9, 7).save(tmp_path / "in.png")
    said = qartsr("upscale", tmp_path / "in.png", tmp_path / target, "--model", package, "--threads", 1)
    assert (said.status, said.out, said.err) == (0, "", f"{tmp_path / target}: 36x28\n")
    with Image.open(tmp_path / target) as written:
        assert written.size == (36, 28)
        assert written.format == {".png": "PNG", ".webp": "WEBP"}.get(Path(target).suffix, "JPEG")
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]


@simulated
@pytest.mark.parametrize("tile", [32, 512])
def test_the_options_reach_the_library(tile: int, qartsr: Qartsr, package: Path, tmp_path: Path) -> None:
    photo(14, 7).save(tmp_path / "in.png")
    options = ("--model", package.parent, "--tile", tile, "--overlap", 4, "--device", "cpu")
    assert qartsr("upscale", tmp_path / "in.png", tmp_path / "out.png", *options).status == 0
    pipe = OneStepSRPipeline.from_pretrained(package, tile=tile, overlap=4)
    assert opened(tmp_path / "out.png").tobytes() == pipe(opened(tmp_path / "in.png")).tobytes()


@simulated
def test_without_a_terminal_a_line_now_and_then_says_how_far_it_is(
    qartsr: Qartsr, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a scheduler's log has it: images, tiles and the time left; nothing where it was asked to be quiet."""
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        photo(14, 7).save(tmp_path / "in" / f"{name}.png")
    words = ("upscale", tmp_path / "in", tmp_path / "out", "--model", package, "--tile", 32, "--overlap", 4)
    assert "left" not in qartsr(*words).err, "it took no half minute"
    monkeypatch.setattr("qartsr.cli.show.LINE_SECONDS", 0.0)
    lines = [line for line in qartsr(*words).err.splitlines() if ": tile " in line]
    assert lines[0].startswith("1/2 a.png: tile 1/") and lines[-1].startswith("2/2 b.png: tile ")
    assert all(line.endswith(" left") for line in lines[1:]) and lines[-1].endswith(", 0:00:00 left")
    assert ": tile " not in qartsr(*words, "--quiet").err


def test_an_engine_that_is_named_says_why(qartsr: Qartsr, package: Path, tmp_path: Path) -> None:
    photo(3, 2).save(tmp_path / "in.png")
    paths = ("upscale", tmp_path / "in.png", tmp_path / "out.png")
    said = qartsr(*paths, "--model", package, "--device", "cpu", "--engine", "simulated")
    assert said.status == 0 and said.err.splitlines()[0] == "note: engine simulated: as asked"
    said = qartsr(*paths, "--model", package, "--device", "cpu", "--engine", "auto")
    assert said.status == 0 and said.err.startswith("note: engine ")
    refused(qartsr(*paths, "--model", tmp_path / "none", "--engine", "steam"), "unknown engine 'steam'", "simulated")
    refused(qartsr(*paths, "--lora", "osediff.pkl", "--engine", "auto"), "--engine does not go with --lora")


@simulated
@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "I;16"])
def test_grey_alpha_and_sixteen_bits(mode: str, qartsr: Qartsr, package: Path, tmp_path: Path) -> None:
    image = Image.fromarray(np.full((3, 5), 300, np.uint16)) if mode == "I;16" else photo(5, 3, mode)
    image.save(tmp_path / "in.png")
    assert qartsr("upscale", tmp_path / "in.png", tmp_path / "out.png", "--model", package).status == 0
    with Image.open(tmp_path / "out.png") as written:
        assert (written.mode, written.size) == (mode, (20, 12))


@simulated
def test_an_upright_image_with_its_profile(qartsr: Qartsr, package: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    photo(8, 4).save(tmp_path / "in.jpg", exif=exif, icc_profile=b"a profile")
    assert qartsr("upscale", tmp_path / "in.jpg", tmp_path / "out.png", "--model", package).status == 0
    with Image.open(tmp_path / "out.png") as written:
        assert written.size == (16, 32) and written.info["icc_profile"] == b"a profile"


@simulated
def test_a_folder_goes_on_after_a_damaged_image(qartsr: Qartsr, package: Path, folder: Path, tmp_path: Path) -> None:
    said = qartsr("upscale", folder, tmp_path / "out", "--model", package)
    assert said.status == 1 and said.out == ""
    sizes = {path.name: opened(path).size for path in sorted((tmp_path / "out").iterdir())}
    assert sizes == {"a.png": (20, 16), "b.JPG": (24, 12), "c.webp": (16, 16)}
    assert said.err.splitlines() == [
        "note: left out, being no images: notes.txt, sub",
        f"{tmp_path}/out/a.png: 20x16",
        f"{tmp_path}/out/b.JPG: 24x12",
        f"{tmp_path}/out/c.webp: 16x16",
        f"error: {folder}/damaged.png: cannot be read as PNG (rows are missing: 52 bytes of pixels less than 5 x 4 "
        "need); check that the file is whole.",
        f"error: {folder}: 1 of 4 images failed; see the sentences above, one for each.",
    ]


@simulated
def test_a_folder_of_sound_images_is_status_0(qartsr: Qartsr, package: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "damaged.png").unlink()
    assert qartsr("upscale", folder, tmp_path / "out", "--model", package).status == 0
    again = qartsr("upscale", folder, tmp_path / "out", "--model", package)  # over what is there
    assert again.status == 0 and len(list((tmp_path / "out").iterdir())) == 3


@simulated
def test_outputs_may_lie_inside_the_input(qartsr: Qartsr, package: Path, folder: Path) -> None:
    (folder / "damaged.png").unlink()
    assert qartsr("upscale", folder, folder / "x4", "--model", package).status == 0
    assert len(list((folder / "x4").iterdir())) == 3


@simulated
def test_many_names_are_cut_short(qartsr: Qartsr, package: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    photo(2, 2).save(tmp_path / "in" / "photo.png")
    for number in range(8):
        (tmp_path / "in" / f"{number}.txt").touch()
    said = qartsr("upscale", tmp_path / "in", tmp_path / "out", "--model", package)
    assert said.status == 0 and "0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 3 more\n" in said.err


def refused(said: object, *words: str) -> None:
    status, out, err = said  # type: ignore[misc]
    assert (status, out) == (1, "")
    assert len(err.splitlines()) == 1 and err.startswith("error: ") and err.endswith(".\n"), err
    assert all(word in err for word in words), err


def test_paths_that_cannot_be_are_refused_before_a_model_is_loaded(
    qartsr: Qartsr, folder: Path, tmp_path: Path
) -> None:
    model = ("--model", tmp_path / "no model")
    image, link = folder / "a.png", tmp_path / "link.png"
    link.symlink_to(image)
    (tmp_path / "empty").mkdir()
    refused(qartsr("upscale", tmp_path / "nothing.png", "o.png", *model), "nothing.png: does not exist")
    refused(qartsr("upscale", image, image, *model), "both the input and the output")
    refused(qartsr("upscale", image, link, *model), "both the input and the output")
    refused(qartsr("upscale", folder, folder / "sub" / "..", *model), "both the input and the output")
    refused(qartsr("upscale", image, "-o", folder, *model), "both the input and the output", "--suffix")
    assert "no output is named" in qartsr("upscale", image, *model).err
    refused(qartsr("upscale", image, image, link, *model), "link.png: is a file", "name a folder")
    refused(qartsr("upscale", image, tmp_path / "o.png", *model, "--suffix", "_x4"), "names a file", "--suffix")
    refused(qartsr("upscale", image, tmp_path / "o.png", *model, "--format", "webp"), "does not end as webp does")
    refused(qartsr("upscale", image, tmp_path / "o.png", *model), "no model: cannot be read")
    refused(qartsr("upscale", folder, link, *model), "link.png: is a file", "name a folder")
    refused(qartsr("upscale", tmp_path / "empty", tmp_path / "out", *model), "has no PNG, JPEG, WebP")
    refused(qartsr("upscale", image, link / "out.png", *model), "link.png: is not a folder")
    refused(qartsr("upscale", folder, link / "out", *model), "link.png: is not a folder")
    for name in ("out.psd", "out"):
        refused(qartsr("upscale", image, tmp_path / name, *model), "no suffix of a format", ".png")
    broken = (folder / "damaged.png", tmp_path / "out.png")
    refused(qartsr("upscale", *broken, "--model", folder), "damaged.png", "check that")  # which is no model either
    assert not list(tmp_path.glob("out*"))


@simulated
def test_metadata_are_kept_or_stripped(qartsr: Qartsr, package: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x8298] = 6, "(c) somebody"
    photo(8, 4).save(tmp_path / "in.jpg", exif=exif, icc_profile=b"a profile", dpi=(300, 300))
    paths = ("upscale", tmp_path / "in.jpg", tmp_path / "out.png", "--model", package)
    assert qartsr(*paths).status == 0
    with Image.open(tmp_path / "out.png") as written:
        assert written.getexif()[0x8298] == "(c) somebody" and written.getexif()[0x0112] == 1
    assert qartsr(*paths, "--strip-metadata").status == 0
    with Image.open(tmp_path / "out.png") as written:
        assert written.size == (16, 32) and not written.info and not written.getexif()


@simulated
def test_a_folder_of_all_kinds_and_lengths_of_names(qartsr: Qartsr, package: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    names = {
        "a.bmp": "a.png",
        "b.tif": "b.tif",
        "c.gif": "c.png",
        "d.jfif": "d.jfif",
        "图" * 83 + ".png": "图" * 83 + ".png",
    }
    for name in names:
        photo(4, 3).save(source / name, "JPEG" if name.endswith("jfif") else None)
    said = qartsr("upscale", source, tmp_path / "out", "--model", package)
    assert said.status == 0, said.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names.values())
    photo(4, 3).save(source / "a.png")
    assert "would become a.png" in qartsr("upscale", source, tmp_path / "out", "--model", package).err


@simulated
def test_what_is_lost_is_said(qartsr: Qartsr, package: Path, tmp_path: Path) -> None:
    Image.fromarray(RNG.integers(0, 65536, (4, 5)).astype(np.uint16)).save(tmp_path / "in.png")
    said = qartsr("upscale", tmp_path / "in.png", tmp_path / "out.jpg", "--model", package)
    assert said.status == 0 and "16 bits per channel become 8" in said.err


@simulated
def test_a_target_that_cannot_hold_the_image(qartsr: Qartsr, package: Path, tmp_path: Path) -> None:
    seen = photo(5, 3, "RGBA")
    seen.putpixel((1, 1), (0, 0, 0, 254))
    seen.save(tmp_path / "alpha.png")
    refused(qartsr("upscale", tmp_path / "alpha.png", tmp_path / "o.jpg", "--model", package), "transparency")
    Image.new("L", (4096, 1)).save(tmp_path / "wide.png")
    refused(qartsr("upscale", tmp_path / "wide.png", tmp_path / "o.webp", "--model", package), "16384x4", "write .png")
    Image.new("L", (1, 16376)).save(tmp_path / "high.png")
    refused(qartsr("upscale", tmp_path / "high.png", tmp_path / "o.jpg", "--model", package), "4x65504", "write .png")
    assert not list(tmp_path.glob("o.*"))


@simulated
def test_a_decompression_bomb_is_one_sentence(
    qartsr: Qartsr, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bomb.png").write_bytes(bomb(60_000, 60_000))
    paths = ("upscale", tmp_path / "bomb.png", tmp_path / "out.png", "--model", package)
    refused(qartsr(*paths), "bomb.png: has 3600 million pixels, more than the 537 million allowed", "--max-pixels")
    refused(qartsr(*paths, "--max-pixels", 4 * 10**9), "bomb.png: cannot be read as PNG")
    photo(5, 4).save(tmp_path / "bomb.png")
    refused(qartsr(*paths, "--max-pixels", 19), "bomb.png: has 20 pixels, more than the 19 allowed")
    monkeypatch.setenv("QARTSR_MAX_PIXELS", "19")
    refused(qartsr(*paths), "bomb.png: has 20 pixels, more than the 19 allowed")
    assert qartsr(*paths, "--max-pixels", 20).status == 0


def bomb(width: int, height: int) -> bytes:
    """The head of a PNG file that claims this size, and nothing else."""
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([1, 0, 0, 0, 0])
    return SIGNATURE + packed(b"IHDR", header) + packed(b"IDAT", b"\0") + packed(b"IEND", b"")


@simulated
def test_models_that_cannot_be_had(
    qartsr: Qartsr, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    photo(2, 2).save(tmp_path / "in.png")
    (tmp_path / "cut").write_bytes(package.read_bytes()[:-1])
    paths = ("upscale", tmp_path / "in.png", tmp_path / "out.png", "--model")
    refused(qartsr(*paths, tmp_path / "nothing"), "nothing: cannot be read")
    refused(qartsr(*paths, tmp_path), "model.safetensors: cannot be read")
    refused(qartsr(*paths, tmp_path / "in.png"), "is not a qartsr package")
    refused(qartsr(*paths, tmp_path / "cut"), "cut: ")
    refused(qartsr(*paths, "models:/qartsr-test-w4a4@champion"), "MLFLOW_TRACKING_URI: is not set")
    refused(qartsr(*paths, "models:/qartsr-test-w4a4"), "write models:/NAME@ALIAS or models:/NAME/VERSION")
    refused(qartsr(*paths, package, "--device", "abacus"), "abacus", "auto")
    refused(qartsr(*paths, package, "--device", "cuda:99"), "cuda:99", "is not available here")
    assert not (tmp_path / "out.png").exists()


@simulated
def test_tiles_that_cannot_work_are_told_once(qartsr: Qartsr, package: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "damaged.png").unlink()
    (folder / "notes.txt").unlink()
    (folder / "sub" / "not seen.png").unlink()
    (folder / "sub").rmdir()
    options = ("--model", package, "--tile", 64, "--overlap", 40)
    refused(qartsr("upscale", folder, tmp_path / "out", *options), "tile 64 with overlap 40", "half a tile")
    assert qartsr("upscale", folder, tmp_path / "out", "--model", package, "--tile", -1).status == 2
    assert qartsr("upscale", folder, tmp_path / "out", "--model", package, "--overlap", -1).status == 2
    assert qartsr("upscale", folder, tmp_path / "out", "--model", package, "--threads", "all").status == 2


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the size of this process is read from /proc")
def test_too_little_memory_is_one_sentence(qartsr: Qartsr, package: Path, tmp_path: Path) -> None:
    """Upsampling the image takes 768 MB, and 200 MB are left."""
    Image.new("L", (4000, 4000)).save(tmp_path / "in.png")
    photo(2, 2).save(tmp_path / "small.png")
    assert qartsr("upscale", tmp_path / "small.png", tmp_path / "out.png", "--model", package).status == 0  # loads all
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 200 * 2**20, before[1]))
    try:
        said = qartsr("upscale", tmp_path / "in.png", tmp_path / "big.png", "--model", package)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    refused(said, "in.png: there is not enough memory", "--tile")
    assert not (tmp_path / "big.png").exists()


def test_ctrl_c_leaves_nothing_behind(qartsr: Qartsr, package: Path, tmp_path: Path) -> None:
    photo(400, 400).save(tmp_path / "in.png")  # some minutes of tiles
    timer = threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    said = qartsr(
        "upscale", tmp_path / "in.png", tmp_path / "out.png", "--model", package, "--tile", 256, "--overlap", 16
    )
    timer.join()
    assert (said.status, said.out, said.err) == (130, "", "")
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]


@simulated
def test_ctrl_c_keeps_the_rows_of_a_large_picture(
    qartsr: Qartsr, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo(60, 60).save(tmp_path / "in.png")
    command = ("upscale", tmp_path / "in.png", tmp_path / "out.png", "--model", package, "--tile", 32, "--overlap", 8)
    keep = Unfinished.add

    def interrupted(self: Unfinished, number: int, row: Row) -> None:
        keep(self, number, row)
        if number == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Unfinished, "add", interrupted)
        said = qartsr(*command)
    assert (said.status, said.out) == (130, "") and not (tmp_path / "out.png").exists()
    assert said.err.count("\n") == 1 and "out.png.part" in said.err and "same command goes on" in said.err
    assert qartsr(*command).status == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.png", "out.png"]


def test_the_help_tells_the_defaults_of_the_library() -> None:
    assert (OVERLAP, ROUNDS) == (upscale.OVERLAP, tiling.ROUNDS)
    assert engine_names() == ENGINES
