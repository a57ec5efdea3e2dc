"""Scores of images against references: the published figures, and one sentence for what cannot be compared."""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qartsr.metrics import METRICS
from tests.cli.conftest import Qartsr

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No learned metric has its weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture()
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two images and their references, in different formats."""
    images, references = tmp_path / "pred", tmp_path / "ref"
    images.mkdir()
    references.mkdir()
    for name in ("b", "a"):
        pixels = RNG.integers(0, 250, (24, 32, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(references / f"{name}.png")
        Image.fromarray(pixels + RNG.integers(0, 6, pixels.shape).astype(np.uint8)).save(
            images / f"{name}.webp", lossless=True
        )
    (images / "scores.txt").touch()
    return images, references


@pytest.fixture(scope="module")
def published(root: Path) -> Path:
    """24 real pairs with the figures OSEDiff's authors published; skips where they are absent."""
    folder = Path(os.environ.get("QARTSR_DATA", root.parent / "shared" / "data")) / "drealsr"
    if not folder.is_dir():
        pytest.skip(f"the published figures are not at {folder}; set QARTSR_DATA to the folder of drealsr/")
    return folder.resolve()


@pytest.mark.parametrize("count", [2, pytest.param(24, marks=pytest.mark.slow)])
def test_psnr_and_ssim_are_the_published_ones(count: int, qartsr: Qartsr, published: Path, tmp_path: Path) -> None:
    with (published / "osediff_fp_metrics.csv").open() as handle:
        expected = {Path(row["image"]).stem: row for row in list(csv.DictReader(handle))[:count]}
    for folder in ("osediff_fp", "HR"):
        (tmp_path / folder).mkdir()
        for name in expected:
            (tmp_path / folder / f"{name}.png").symlink_to(published / folder / f"{name}.png")
    folders = ("--pred", tmp_path / "osediff_fp", "--ref", tmp_path / "HR")
    said = qartsr("evaluate", *folders, "--metrics", "psnr,ssim", "--csv", tmp_path / "scores.csv")
    assert said.status == 0, said.err
    with (tmp_path / "scores.csv").open() as handle:
        measured = {row["image"]: row for row in csv.DictReader(handle)}
    assert measured.keys() == expected.keys() and len(measured) == count
    for name, row in measured.items():
        for metric in ("psnr", "ssim"):
            assert float(row[metric]) == pytest.approx(float(expected[name][metric]), abs=5e-4), (name, metric)


def test_table_csv_and_json_agree(qartsr: Qartsr, folders: tuple[Path, Path], tmp_path: Path) -> None:
    files = ("--csv", tmp_path / "new" / "s.csv", "--json", tmp_path / "s.json")
    said = qartsr("evaluate", "--pred", folders[0], "--ref", folders[1], "--metrics", "psnr, lpips,ssim,psnr", *files)
    assert said.status == 0
    assert said.err == f"note: {folders[0]}: left out, being no images: scores.txt\n"
    with (tmp_path / "new" / "s.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert [list(row) for row in rows] == [["image", "psnr", "ssim"]] * 2
    assert [row["image"] for row in rows] == ["a", "b"]
    values = json.loads((tmp_path / "s.json").read_text())
    means = {name: sum(float(row[name]) for row in rows) / 2 for name in ("psnr", "ssim")}
    assert values["metrics"] == pytest.approx(means, abs=2e-6)
    assert 35 < means["psnr"] < 45 and 0.9 < means["ssim"] < 1
    for row, each in zip(rows, values["per_image"], strict=True):
        assert each == {"image": row["image"], **{k: pytest.approx(float(row[k]), abs=1e-6) for k in means}}
    assert list(values["unavailable"]) == ["lpips"]
    lines = [line.replace("│", " ").split() for line in said.out.splitlines()]
    for name, scores in [*((row["image"], row) for row in rows), ("mean", means)]:
        assert [name, *(f"{float(scores[metric]):.4f}" for metric in ("psnr", "ssim"))] in lines
    assert said.out.splitlines()[-1] == f"lpips is unavailable: it {values['unavailable']['lpips']}"
    assert "qartsr fetch-metric-weights lpips" in said.out


def test_nothing_measured_is_no_success(qartsr: Qartsr, folders: tuple[Path, Path], tmp_path: Path) -> None:
    options = ("--metrics", "musiq", "--json", tmp_path / "s.json", "--csv", tmp_path / "s.csv")
    said = qartsr("evaluate", "--pred", folders[0], "--ref", folders[1], *options)
    assert said.status == 1 and "none of these can be measured" in said.err
    assert said.out.startswith("musiq is unavailable: it needs ") and len(said.out.splitlines()) == 1
    assert json.loads((tmp_path / "s.json").read_text())["metrics"] == {}
    assert (tmp_path / "s.csv").read_text() == "image\na\nb\n"


def sentence(qartsr: Qartsr, images: Path, references: Path, metrics: str = "psnr") -> str:
    said = qartsr("evaluate", "--pred", images, "--ref", references, "--metrics", metrics)
    assert (said.status, said.out) == (1, "")
    assert len(said.err.splitlines()) == 1 and said.err.startswith("error: "), said.err
    return said.err


@pytest.mark.parametrize("name", ["fid", "lpips-vgg", ""])
def test_an_unknown_metric_is_refused_with_the_known(name: str, qartsr: Qartsr, folders: tuple[Path, Path]) -> None:
    said = sentence(qartsr, *folders, f"psnr,{name}")
    assert said == f"error: --metrics: unknown metric '{name}'; choose from {', '.join(METRICS)}.\n"


def test_a_table_that_cannot_be_written_is_told_first(
    qartsr: Qartsr, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    said = qartsr("evaluate", "--pred", folders[0], "--ref", folders[1], "--metrics", "psnr", "--csv", tmp_path)
    assert said.status == 1 and "is a folder; name a file" in said.err and not said.out
    both = ("--csv", tmp_path / "a", "--json", tmp_path / "b" / ".." / "a")
    said = qartsr("evaluate", "--pred", folders[0], "--ref", folders[1], "--metrics", "psnr", *both)
    assert said.status == 1 and "is named twice" in said.err and not said.out


def test_every_metric_is_in_the_help(qartsr: Qartsr) -> None:
    assert ", ".join(METRICS) in " ".join(qartsr("evaluate", "--help").out.split())


def test_missing_counterparts_are_named(qartsr: Qartsr, folders: tuple[Path, Path], tmp_path: Path) -> None:
    images, references = folders
    (images / "b.webp").rename(tmp_path / "b.webp")
    assert sentence(qartsr, *folders).startswith(f"error: {references}/b.png: has no counterpart in {images}; ")
    (tmp_path / "b.webp").rename(images / "b.webp")
    for name in ("c", "d"):
        (images / f"{name}.webp").touch()
    said = sentence(qartsr, *folders)
    assert said.startswith(f"error: {images}/c.webp: has no counterpart in {references} (one of 2); ")


def test_images_that_cannot_be_compared_are_named(qartsr: Qartsr, folders: tuple[Path, Path]) -> None:
    images, references = folders
    with Image.open(images / "b.webp") as opened:
        image = opened.convert("RGB")
    image.crop((0, 0, 31, 24)).save(images / "b.webp")
    assert f"{images}/b.webp: has 31x24 pixels, {references}/b.png has 32x24" in others_count(qartsr, *folders)
    (images / "b.webp").write_bytes(b"damaged")
    assert f"{images}/b.webp: cannot be read as PNG, JPEG" in others_count(qartsr, *folders)
    for folder in folders:
        (folder / "b.webp").unlink(missing_ok=True)
        image.crop((0, 0, 5, 5)).save(folder / "b.png")
    assert f"{images}/b.png: cannot be measured (" in others_count(qartsr, *folders, "ssim")
    image.save(images / "b.jpg")
    assert f"{images}/b.png: has the same name as b.jpg" in sentence(qartsr, *folders)


def test_where_no_image_can_be_measured_nothing_is_a_traceback(qartsr: Qartsr, folders: tuple[Path, Path]) -> None:
    images, references = folders
    for path in (*images.glob("*.webp"), *references.glob("*.png")):
        Image.new("RGB", (5, 5)).save(path)
    files = ("--csv", images.parent / "scores.csv", "--json", images.parent / "scores.json")
    said = qartsr("evaluate", "--pred", images, "--ref", references, "--metrics", "ssim", *files)
    assert said.status == 1 and "2 of 2 images could not be measured" in said.err.splitlines()[-1]
    written = json.loads(files[3].read_text())
    assert files[1].read_text() == "image\n" and written["per_image"] == [] and list(written["failed"]) == ["a", "b"]


def test_a_metric_that_refuses_an_image_costs_it_no_other(qartsr: Qartsr, folders: tuple[Path, Path]) -> None:
    images, references = folders
    (images / "b.webp").unlink()
    for folder in folders:
        Image.new("RGB", (5, 7), (9, 9, 9)).save(folder / "b.png")
    files = ("--csv", images.parent / "scores.csv", "--json", images.parent / "scores.json")
    said = qartsr("evaluate", "--pred", images, "--ref", references, "--metrics", "ssim,psnr,psnr_rgb", *files)
    assert said.status == 1 and "1 of 2 images lack some scores" in said.err.splitlines()[-1]
    assert f"error: {images}/b.png: has no ssim (" in said.err and "│ b     │      \N{EN DASH} " in said.out
    written, rows = json.loads(files[3].read_text()), list(csv.DictReader(files[1].read_text().splitlines()))
    first, second = written["per_image"]
    assert rows[1]["ssim"] == "" and float(rows[1]["psnr"]) == pytest.approx(80) and "ssim" not in second
    assert second["missing"]["ssim"] and second["psnr"] == pytest.approx(80)
    means = {"ssim": first["ssim"], "psnr": (first["psnr"] + 80) / 2, "psnr_rgb": (first["psnr_rgb"] + 80) / 2}
    assert written["metrics"] == pytest.approx(means, abs=1e-5) and written["failed"] == {}
    assert f"ssim is missing on b ({second['missing']['ssim']}): its mean is over 1 images" in said.out


def others_count(qartsr: Qartsr, images: Path, references: Path, metrics: str = "psnr") -> str:
    """What is said of the one image that cannot be measured; the scores of the other are told and written."""
    target = images.parent / "scores.csv"
    target.unlink(missing_ok=True)
    said = qartsr("evaluate", "--pred", images, "--ref", references, "--metrics", metrics, "--csv", target)
    assert said.status == 1 and "│ a " in said.out
    assert [row["image"] for row in csv.DictReader(target.read_text().splitlines())] == ["a"]
    assert "1 of 2 images could not be measured" in said.err.splitlines()[-1]
    return said.err


def test_names_of_every_kind_are_matched_shown_and_written(qartsr: Qartsr, tmp_path: Path) -> None:
    """Composed and decomposed, in no encoding, and long; a folder called like an image is none."""
    pred, ref = tmp_path / "p", tmp_path / "r"
    names = [("e\u0301.png", "\u00e9.png"), (os.fsdecode(b"latin1_\xe9.png"),) * 2, ("n" * 251 + ".png",) * 2]
    for folder, index in ((pred, 0), (ref, 1)):
        (folder / "x.png").mkdir(parents=True)
        for both in names:
            Image.new("RGB", (16, 16), (9 * index, 0, 0)).save(folder / both[index])
    files = ("--csv", tmp_path / "s.csv", "--json", tmp_path / "s.json")
    said = qartsr("evaluate", "--pred", pred, "--ref", ref, "--metrics", "psnr", *files)
    assert said.status == 0 and "x.png" in said.err
    found = {row["image"] for row in json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))["per_image"]}
    assert found == {"\u00e9", os.fsdecode(b"latin1_\xe9"), "n" * 251}
    assert len((tmp_path / "s.csv").read_text(encoding="utf-8").splitlines()) == 4


def test_folders_must_hold_images(qartsr: Qartsr, folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "empty: has no PNG, JPEG, WebP" in sentence(qartsr, folders[0], tmp_path / "empty")
    assert "nothing: is not a folder" in sentence(qartsr, tmp_path / "nothing", folders[1])


def test_rotated_photographs_are_compared_upright(qartsr: Qartsr, folders: tuple[Path, Path], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    for name in ("a", "b"):
        path = folders[1] / f"{name}.png"
        with Image.open(path) as image:
            turned = image.rotate(180)
        turned.save(path, exif=exif)
    said = qartsr("evaluate", "--pred", folders[0], "--ref", folders[1], "--metrics", "psnr", "--json", tmp_path / "j")
    assert said.status == 0 and json.loads((tmp_path / "j").read_text())["metrics"]["psnr"] > 35


def test_a_core_install_is_one_sentence(
    qartsr: Qartsr, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    said = qartsr("evaluate", "--pred", folders[0], "--ref", folders[1], "--metrics", "psnr")
    assert (said.status, said.out) == (1, "")
    assert said.err.startswith("error: metrics: measuring needs pyiqa, which") and "qartsr[train]" in said.err
    assert len(said.err.splitlines()) == 1
