"""Many images at once: which become which, how large, in what format, through pipes, and what is said of them."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qartsr.images import Picture, resized
from tests.cli.conftest import Qartsr, Said

RNG = np.random.default_rng(0)


def save(path: Path, width: int = 3, height: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (height, width, 3), np.uint8)).save(path)
    return path


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture()
def tree(tmp_path: Path) -> Path:
    """Three images at two depths, and one that is hidden."""
    for name in ("a.png", "b.bmp", "sub/deep/a.jpg", ".git/c.png"):
        save(tmp_path / "in" / name)
    return tmp_path / "in"


@pytest.fixture()
def up(qartsr: Qartsr, package: Path) -> Qartsr:
    """``qartsr upscale`` with the smallest model and the engine that begins at once."""

    def run(*words: object) -> Said:
        return qartsr("upscale", *words, "--model", package, "--engine", "simulated")

    return run


def test_folders_keep_their_form(up: Qartsr, tree: Path, tmp_path: Path) -> None:
    said = up(tree, tree / "x4", "--recursive", "--suffix", "_x4", "--format", "webp", "-q")
    assert said == (0, "", "")
    assert files(tree / "x4") == ["a_x4.webp", "b_x4.webp", "sub/deep/a_x4.webp"]
    again = up(tree, tree / "x4", "--recursive", "--suffix", "_x4", "--format", "webp", "--skip-existing")
    assert again == (0, "", "note: left out, being there already: 3\n")  # and the output is no input
    refused = up(tree, tree / "x4", "-r", "--suffix", "_x4", "-f", "webp", "--no-overwrite")
    assert refused.status == 1 and "a_x4.webp: exists already (and 2 more)" in refused.err


def test_several_inputs_and_patterns(up: Qartsr, tree: Path, tmp_path: Path) -> None:
    single = save(tmp_path / "single.png")
    assert up(tree / "*.p*", single, tmp_path / "out", "-q").status == 0
    assert files(tmp_path / "out") == ["a.png", "single.png"]
    assert up("-i", single, "-o", f"{tmp_path}/new/", "-q").status == 0  # as in Real-ESRGAN
    assert files(tmp_path / "new") == ["single.png"]
    assert up(single, tmp_path / "new").err.endswith("single.png: 12x8\n")  # as with cp
    assert "would become a.png" in up(tree, tree / "a.png", tmp_path / "out").err
    assert "none/*.png: does not exist" in up(tmp_path / "none" / "*.png", tmp_path / "out").err


def test_the_status_is_how_many_failed(up: Qartsr, tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path / "in" / name)
    for name in ("a.png", "c.png"):
        (tmp_path / "in" / name).write_bytes(b"nothing")
    said = up(tmp_path / "in", tmp_path / "out", "--json", "-q")
    assert said.status == 2 and len(said.err.splitlines()) == 3 and "2 of 3 images failed" in said.err
    told = json.loads(said.out)
    assert (told["failed"], told["skipped"]) == (2, 0)
    first, second, _ = told["images"]
    assert "a.png" in first["error"] and first["width"] == 0
    assert second["error"] is None and (second["width"], second["height"]) == (12, 8) and second["seconds"] > 0
    assert files(tmp_path / "out") == ["b.png"]


def test_whatever_happens_to_one_image_ends_no_batch(
    up: Qartsr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "b.png"):
        save(tmp_path / "in" / name)
    from qartsr.upscale import pipeline

    real, calls = pipeline.upscale_image, list[int]()

    def broken(*given: object, **more: object) -> object:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("a convolution of this shape is unknown")
        return real(*given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline, "upscale_image", broken)
    said = up(tmp_path / "in", tmp_path / "out")
    assert said.status == 1 and "a.png: cannot be done (RuntimeError: a convolution of this shape" in said.err
    assert files(tmp_path / "out") == ["b.png"]


def test_verbose_tells_engine_seconds_and_rate(up: Qartsr, tmp_path: Path) -> None:
    said = up(save(tmp_path / "a.png"), tmp_path / "out.png", "--verbose")
    assert "engine simulated" in said.err and " s\n" in said.err and "megapixels/s" in said.err


@pytest.mark.parametrize(("scale", "size"), [("2", (6, 4)), ("3", (9, 6)), ("1.5", (4, 3)), ("8", (24, 16))])
def test_any_scale(scale: str, size: tuple[int, int], up: Qartsr, tmp_path: Path) -> None:
    assert up(save(tmp_path / "a.png"), tmp_path / "out.png", "--outscale", scale).status == 0
    with Image.open(tmp_path / "out.png") as written:
        assert written.size == size


def test_quality(up: Qartsr, tmp_path: Path) -> None:
    source = save(tmp_path / "a.png", 16, 16)
    sizes = []
    for quality in (10, 95):
        assert up(source, tmp_path / "out.jpg", "--quality", quality).status == 0
        sizes.append((tmp_path / "out.jpg").stat().st_size)
    assert sizes[0] < sizes[1]
    assert "png has none" in up(source, tmp_path / "out.png", "--quality", 10).err
    assert up(source, tmp_path / "out.jpg", "--quality", 0).status == 2


def test_pipes(up: Qartsr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = save(tmp_path / "a.png")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(source.read_bytes())))
    assert up("-", tmp_path / "out.png").status == 0
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(source.read_bytes())))
    sink = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", sink)
    assert up("-", "-", "-f", "webp", "-q").status == 0
    sink.flush()
    data = sink.buffer.getvalue()  # type: ignore[attr-defined]
    with Image.open(io.BytesIO(data)) as piped, Image.open(tmp_path / "out.png") as written:
        assert piped.format == "WEBP" and piped.convert("RGB").tobytes() == written.tobytes()


def test_pipes_that_cannot_be(up: Qartsr, tree: Path, tmp_path: Path) -> None:
    assert "goes with one input only" in up("-", tree / "a.png", tmp_path).err
    assert "is a folder" in up("-", tmp_path).err
    assert "is more than one image" in up(tree, "-").err
    assert "both --json and the image want it" in up(tree / "a.png", "-", "--json").err


def test_sixteen_bits_and_invisible_colours_survive_a_scale() -> None:
    """A ramp in 16 bits keeps more than 256 levels; what is under alpha 0 colours nothing."""
    wide = np.zeros((4, 2048, 4), np.uint16)
    wide[..., 0], wide[..., 3] = np.linspace(0, 65535, 2048), 65535
    wide[:, 1024:, 3], wide[:, 1024:, 1] = 0, 65535
    made = resized(Picture.of(Image.new("RGBA", (2048, 4)), {}, None), (1024, 2))
    assert made.size == (1024, 2) and made.wide is None
    from qartsr.images import as_image

    small = resized(as_image(wide), (1024, 2)).wide
    assert small is not None and len(np.unique(small[0, :500, 0])) > 400
    seen = small[..., 3] > 655
    assert int(small[seen][:, 1].max()) == 0
