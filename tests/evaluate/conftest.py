"""A small test set of real photographs, and a finished run around it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from qartsr.evaluate.pictures import error_map
from qartsr.evaluate.report import Inputs
from qartsr.evaluate.scores import Row, Scores
from qartsr.files import write_json, write_text
from qartsr.images import upsample
from qartsr.upscale import write_image

BITS = ("w4a4", "w2a2")
FOLDERS = ("reference", "evaluated", "metrics", "curves", "receipts", "packages")
SCENES = {"astronaut": (0, 180, 128, 288), "coffee & <milk>": (200, 100, 320, 196)}

SETS = dict(zip(SCENES, ("photographs", "wallpapers"), strict=True))


@pytest.fixture(scope="session")
def test_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder as stage ``data`` writes it: two crops of photographs with bicubic LR."""
    folder = tmp_path_factory.mktemp("data")
    entries = []
    for name, box in SCENES.items():
        hr = Image.fromarray(getattr(data, name.split()[0])()).crop(box)
        lr = hr.resize((hr.width // 4, hr.height // 4), Image.Resampling.BICUBIC)
        files = {kind: f"test/{kind.upper()}/{name}.png" for kind in ("hr", "lr")}
        for kind, image in (("hr", hr), ("lr", lr)):
            write_image(folder / files[kind], image, image)
        entries.append({"name": name, **files} | ({"set": SETS[name]} if SETS[name] != "photographs" else {}))
    write_json(folder / "manifest.json", {"name": "photographs", "scale": 4, "train": [], "test": entries})
    return folder


def _subject(test_set: Path, folder: Path, metrics: Path, noise: float, fp: bool) -> None:
    """Bicubic plus noise stands for a model; the scores are made up, the pictures are not."""
    rows = []
    for number, name in enumerate(SCENES):
        hr = Image.open(test_set / "test" / "HR" / f"{name}.png")
        random = np.random.default_rng(number)
        values = np.asarray(upsample(Image.open(test_set / "test" / "LR" / f"{name}.png")), dtype=np.float64)
        image = Image.fromarray((values + random.normal(0, noise, values.shape)).round().clip(0, 255).astype(np.uint8))
        for kind, picture in (("images", image), ("errors", error_map(image, hr))):
            write_image(folder / kind / f"{name}.png", picture, picture)
        scores = {"psnr": 30.0 - noise + number, "ssim": 0.8, **({} if fp else {"psnr_to_fp": 40.0})}
        rows.append(Row(name, SETS[name], scores))
    unavailable = {"musiq": "needs a file; fetch with `qartsr fetch-metric-weights musiq`"}
    Scores("photographs", tuple(rows), unavailable).write(folder, metrics, metrics.parent / "dvc" / metrics.name)


@pytest.fixture(scope="session")
def finished(test_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """Every folder the report reads; tests that change them take ``spoilable``."""
    root = tmp_path_factory.mktemp("run")
    build, metrics = root / "build", root / "metrics"
    reference, evaluated, curves = build / "evaluated" / "reference", build / "evaluated", build / "curves"
    _subject(test_set, reference / "bicubic", metrics / "bicubic.json", 0, False)
    _subject(test_set, reference / "fp", metrics / "fp.json", 1, True)
    write_json(reference / "model.json", {"bytes": 4_000_000, "parameters": 1_000_000})
    probe = "timestep,bits,lambda,kappa,zh_error,eps_error,psnr,psnr_unet_only,psnr_fp\n"
    for number, bits in enumerate(BITS):
        _subject(test_set, evaluated / bits, metrics / f"{bits}.json", 4 + 4 * number, False)
        write_text(build / "packages" / bits / "model.safetensors", "x" * (500_000 - 200_000 * number))
        layers = [
            {"layer": name, "weight_bits": width, "input_bits": width, "weights": 40, "codes": codes, "error": 0.1}
            for name, width, codes in (("conv_in", 8, [0] * 255 + [40]), ("body", 2, [0, 30, 10, 0]), ("odd", 0, []))
        ]
        write_json(build / "packages" / bits / "layers.json", layers)
        receipt = {"model": f"qartsr-sample-{bits}", "version": "7", "uri": f"s3://qartsr/{bits}", "sha256": "0" * 64}
        write_json(build / "receipts" / f"{bits}.json", receipt)
        rows = [[step, f"decoder.up{step // 4}", 0.1 + step / 99] for step in range(8)]
        write_text(curves / f"quantize-{bits}.csv", _csv(["step", "module", "total"], rows))
        write_text(curves / f"extend-{bits}.csv", _csv(["step", "total"], [[step, 0.2] for step in range(4)]))
        probe += f"999,{bits},0.9977,14.6,0.02,0.04,18,25,26\n1,{bits},0.0413,0.0413,0.001,0.1,18,25.9,26\n"
    write_text(curves / "retrain.csv", _csv(["step", "total"], [[step, 1 / (1 + step)] for step in range(9)]))
    write_text(curves / "probe.csv", probe)
    return Inputs(
        "sample", BITS, test_set, reference, evaluated, metrics, curves, build / "receipts", build / "packages"
    )


@pytest.fixture()
def spoilable(finished: Inputs, tmp_path: Path) -> Inputs:
    """A copy of the finished run."""
    root = finished.metrics.parent
    shutil.copytree(root, tmp_path / "run")
    moved = {name: tmp_path / "run" / getattr(finished, name).relative_to(root) for name in FOLDERS}
    return finished._replace(**moved)


def _csv(header: list[str], rows: list[list[object]]) -> str:
    return "\n".join(",".join(str(cell) for cell in row) for row in [header, *rows]) + "\n"


def read_rows(path: Path) -> list[dict[str, str]]:
    """A CSV file as dictionaries."""
    with path.open() as handle:
        return list(csv.DictReader(handle))


def read_json_file(path: Path) -> dict[str, object]:
    """JSON without the package's own reader."""
    value: dict[str, object] = json.loads(path.read_text())
    return value
