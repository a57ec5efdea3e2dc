"""What stands behind the page: its pixels are the pipeline's, its numbers closed forms."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qartsr.api import OneStepSRPipeline
from qartsr.errors import QartsrError
from qartsr.evaluate.pictures import error_map
from qartsr.models import save_model
from qartsr.packing import write_package
from qartsr.release import Receipt
from qartsr.release.leaderboard import leaderboard
from qartsr.web.compare import (
    BICUBIC,
    FP,
    ORIGINAL,
    Choice,
    Limits,
    Models,
    batch,
    choices,
    compare,
    windows,
)
from tests.packing.tiny import quantize, recipe, tiny_model
from tests.release.conftest import _ship

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two packages and their floating-point model."""
    root = tmp_path_factory.mktemp("house")
    save_model(tiny_model(), root / "build" / "retrained")
    for bits in ("w4a4", "w2a2"):
        model, file = tiny_model(), root / "build" / "packages" / bits / "model.safetensors"
        write_package(file, model, quantize(model, bits, recipe()), {"profile": "test"})
    return root


@pytest.fixture(scope="module")
def models() -> Models:
    return Models(lambda source: OneStepSRPipeline.from_pretrained(source, engine="simulated"))


@pytest.fixture()
def here(house: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(house)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)
    return house


def picture(file: Path, width: int = 12, height: int = 8) -> Path:
    Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(file)
    return file


def test_one_picture_through_several_models(here: Path, models: Models, tmp_path: Path) -> None:
    file, original = picture(tmp_path / "in.png"), picture(tmp_path / "original.png", 48, 32)
    found, note = choices([])
    assert [choice.label for choice in found] == ["w2a2 (build/packages)", "w4a4 (build/packages)"]
    assert "MLFLOW_TRACKING_URI" in note
    (tmp_path / "out").mkdir()
    shares = list[float]()
    *before, last = compare(models, file, found, tmp_path / "out", fp="build/retrained", original=original,
                            report=lambda share, what: shares.append(share))  # fmt: skip
    assert [len(each.rows) for each in before] == [1, 2] and shares == sorted(shares) and shares[-1] == 1
    assert [row.model for row in last.rows] == [FP, *(choice.label for choice in found)]
    assert list(last.layers)[:2] == [BICUBIC, ORIGINAL] and len(last.layers) == 2 + 3 + 3 + 2
    assert len(set(last.layers.values())) == len(last.layers)

    made = {choice.label: models.get(choice.source)(file) for choice in found}
    fp, truth = (np.asarray(Image.open(place)) for place in (last.layers[FP], original))
    weights = np.array([65.481, 128.553, 24.966]) / 255
    for row in last.rows[1:]:
        kept = np.asarray(Image.open(last.layers[row.model]))
        assert kept.tobytes() == made[row.model].tobytes()
        for value, other in ((row.psnr_to_fp, fp), (row.psnr, truth)):
            error = (((kept.astype(float) - other) @ weights / 255) ** 2).mean()
            assert value == pytest.approx(10 * np.log10(1 / (error + 1e-8)), abs=1e-6)
        assert row.bytes == Path(dict(found)[row.model], "model.safetensors").stat().st_size and row.seconds > 0
        shown = Image.open(last.layers[f"{row.model} against {FP}"])
        assert shown.tobytes() == error_map(made[row.model], Image.fromarray(fp)).tobytes()
    assert last.rows[0].psnr_to_fp is None and last.rows[0].psnr is not None

    cut = windows(last, [BICUBIC, FP], 1.0, 0.0, 4, side=16)
    assert np.array_equal(np.asarray(cut[1][0])[::2, ::2], fp[:8, -8:]) and cut[1][1] == FP


@pytest.mark.parametrize(
    ("chosen", "size", "original", "sentence"),
    [
        (0, (4, 4), None, "models: 0 are chosen; choose 1 to 1"),
        (2, (4, 4), None, "models: 2 are chosen"),
        (1, (33, 32), None, "in.png: has more than 1,024 pixels; send a smaller one"),
        (1, (4, 4), (16, 17), "the original: has 16x17 pixels; give one of 16x16"),
    ],
)
def test_limits(
    here: Path, models: Models, tmp_path: Path, chosen: int, size: tuple[int, int],
    original: tuple[int, int] | None, sentence: str,
) -> None:  # fmt: skip
    file, limits = picture(tmp_path / "in.png", *size), Limits(pixels=1024, models=1)
    truth = None if original is None else picture(tmp_path / "o.png", *original)
    with pytest.raises(QartsrError, match=sentence):
        next(compare(models, file, choices([])[0][:chosen], tmp_path, original=truth, limits=limits))


def test_a_batch_loses_only_what_cannot_be_read(here: Path, models: Models, tmp_path: Path) -> None:
    for folder in ("a", "b", "out"):
        (tmp_path / folder).mkdir()
    files = [picture(tmp_path / "a" / "x.png"), picture(tmp_path / "b" / "x.png"), tmp_path / "broken.jpg"]
    files[-1].write_bytes(b"nothing")
    done = batch(models, files, "build/packages/w4a4", tmp_path / "out")
    assert [name for name, _ in done.lines] == ["x.png", "x.png", "broken.jpg"]
    assert done.lines[0][1] == "48 x 32" and done.lines[2][1].startswith("broken.jpg: ")
    assert str(tmp_path) not in str(done.lines)
    assert done.archive is not None
    with zipfile.ZipFile(done.archive) as archive:
        assert sorted(archive.namelist()) == ["x-1.png", "x.png"]
        with archive.open("x.png") as first, Image.open(first) as image:
            assert image.tobytes() == models.get("build/packages/w4a4")(files[0]).tobytes()
    with pytest.raises(QartsrError, match="files: 3 are given; give 1 to 2"):
        batch(models, files, "build/packages/w4a4", tmp_path / "out", limits=Limits(files=2))


def test_few_models_stay_loaded() -> None:
    loaded = list[str]()
    models = Models(lambda source: (loaded.append(source), source)[1], kept=2)  # type: ignore[arg-type, return-value]
    for source in "aabaca":
        models.get(source)
    assert loaded == ["a", "b", "c"]
    models.get("b")
    assert loaded == ["a", "b", "c", "b"], "the one that was not used for longest had gone"


def test_the_leaderboard_is_the_registry(servers: dict[str, str], tmp_path: Path) -> None:
    worse, better = (_ship(tmp_path, f"board-{psnr}", psnr=psnr) for psnr in (29.0, 31.5))
    mine = [each for each in leaderboard() if each.model.startswith("qartsr-board")]
    assert [(each.model, each.version) for each in mine] == [(each.model, each.version) for each in (better, worse)]
    assert (mine[0].psnr, mine[0].fp_psnr, mine[0].bits, mine[0].bytes) == (31.5, 30.25, "w4a4", 5000)
    found, note = choices([])
    assert note == "" and _label_of(better) in [choice.label for choice in found]
    assert Choice(_label_of(better), f"models:/{better.model}/{better.version}") in found


def _label_of(receipt: Receipt) -> str:
    return f"{receipt.model} version {receipt.version}"


def test_nothing_behind_the_page_needs_gradio() -> None:
    code = "import sys; sys.modules['gradio'] = None; import qartsr.web.compare, qartsr.cli.web"
    subprocess.run([sys.executable, "-c", code], check=True)
