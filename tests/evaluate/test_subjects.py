"""Evaluation of a model: the files it leaves, and its scores against independent arithmetic."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from qartsr.config.training import LPIPSConfig
from qartsr.errors import QartsrError
from qartsr.evaluate import Row, Scores, evaluate_quantized, evaluate_reference, meter, open_scenes
from qartsr.files import sha256_tree, write_json
from qartsr.images import as_picture, write_image
from qartsr.losses import LPIPS
from qartsr.metrics import Meter
from qartsr.metrics.niqe import UndefinedError
from qartsr.models import OneStepSR
from qartsr.upscale import upscale_image
from qartsr.upscale.memory import ClipRestorer
from tests.clips.make import moving
from tests.evaluate.conftest import SCENES, read_json_file, read_rows
from tests.metrics import reference as truth
from tests.models.test_video import learned


@pytest.fixture()
def measure() -> Meter:
    return Meter(["psnr", "psnr_rgb"])


def _pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_reference_writes_outputs_errors_and_scores(
    model: OneStepSR, test_set: Path, measure: Meter, tmp_path: Path
) -> None:
    bicubic, fp = evaluate_reference(model, test_set, tmp_path / "reference", measure)
    assert set(fp.averages()) == {"psnr", "psnr_rgb"}
    assert set(bicubic.averages()) == {"psnr", "psnr_rgb", "psnr_to_fp", "psnr_rgb_to_fp"}
    for name in SCENES:
        lr = Image.open(test_set / "test" / "LR" / f"{name}.png")
        expected = np.asarray(lr.resize((4 * lr.width, 4 * lr.height), Image.Resampling.BICUBIC))
        assert np.array_equal(_pixels(tmp_path / "reference" / "bicubic" / "images" / f"{name}.png"), expected)
        assert _pixels(tmp_path / "reference" / "fp" / "errors" / f"{name}.png").shape == expected.shape
    parameters = sum(p.numel() for p in model.parameters()) + sum(b.numel() for b in model.buffers())
    assert read_json_file(tmp_path / "reference" / "model.json") == {"parameters": parameters, "bytes": 4 * parameters}


def test_scores_are_those_of_the_written_images(
    model: OneStepSR, test_set: Path, measure: Meter, tmp_path: Path
) -> None:
    bicubic, _ = evaluate_reference(model, test_set, tmp_path / "reference", measure)
    files = [tmp_path / folder / "bicubic.json" for folder in ("metrics", "shown")]
    bicubic.write(tmp_path / "reference" / "bicubic", *files)
    rows = read_rows(tmp_path / "reference" / "bicubic" / "per_image.csv")
    assert [row["image"] for row in rows] == list(SCENES)
    for row in rows:
        image = _pixels(tmp_path / "reference" / "bicubic" / "images" / f"{row['image']}.png")
        fp = _pixels(tmp_path / "reference" / "fp" / "images" / f"{row['image']}.png")
        hr = _pixels(test_set / "test" / "HR" / f"{row['image']}.png")
        assert float(row["psnr"]) == pytest.approx(truth.psnr(image, hr), abs=1e-4)
        assert float(row["psnr_to_fp"]) == pytest.approx(truth.psnr(image, fp), abs=1e-4)
        assert float(row["psnr_rgb"]) == pytest.approx(truth.psnr_rgb(image, hr), abs=1e-4)
        assert float(row["psnr_rgb_to_fp"]) == pytest.approx(truth.psnr_rgb(image, fp), abs=1e-4)
    stored: Any = read_json_file(tmp_path / "metrics" / "bicubic.json")["photographs"]
    each = [float(row["psnr"]) for row in rows]
    assert stored["psnr"] == pytest.approx(np.mean(each), abs=1e-5)
    assert {name: values["pictures"] for name, values in stored["sets"].items()} == {"photographs": 1, "wallpapers": 1}
    assert [values["psnr"] for values in stored["sets"].values()] == pytest.approx(each, abs=1e-5)


def test_an_equal_model_is_80_db_from_fp_and_another_is_not(
    model: OneStepSR, test_set: Path, measure: Meter, tmp_path: Path
) -> None:
    evaluate_reference(model, test_set, tmp_path / "reference", measure)
    equal = evaluate_quantized(model, test_set, tmp_path / "reference", tmp_path / "equal", measure)
    assert equal.averages()["psnr_to_fp"] == pytest.approx(80, abs=1e-5)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.vae.decoder.conv_out.weight.mul_(2)
    scores = evaluate_quantized(other, test_set, tmp_path / "reference", tmp_path / "other", measure)
    assert scores.averages()["psnr_to_fp"] < 70


def test_same_inputs_same_bytes(model: OneStepSR, test_set: Path, measure: Meter, tmp_path: Path) -> None:
    for run in ("a", "b"):
        scores = evaluate_reference(model, test_set, tmp_path / run, measure)[1]
        scores.write(tmp_path / run / "fp", tmp_path / run / "fp.json", tmp_path / run / "shown.json")
    assert sha256_tree(tmp_path / "a") == sha256_tree(tmp_path / "b")


def test_a_metric_without_a_value_on_one_image_is_left_out_of_all(
    model: OneStepSR, test_set: Path, tmp_path: Path
) -> None:
    """One of the two test images is wider than 120 pixels."""

    def choosy(image: torch.Tensor, reference: torch.Tensor) -> float:
        if image.shape[-1] > 120:
            raise UndefinedError("too wide")
        return 1.0

    bicubic, _ = evaluate_reference(model, test_set, tmp_path / "reference", Meter(["psnr"], {"choosy": choosy}))
    assert set(bicubic.averages()) == {"psnr", "psnr_to_fp", "psnr_rgb_to_fp"}
    assert bicubic.unavailable == {"choosy": "is not defined on astronaut: too wide"}
    assert [row.scores.get("choosy") for row in bicubic.rows] == [None, 1.0]
    assert bicubic.averages(some=True)["choosy"] == 1 and "choosy" in bicubic.by_set()["wallpapers"]
    assert bicubic.as_csv().splitlines()[1].split(",")[2] == ""


def test_sets_have_their_own_means(tmp_path: Path) -> None:
    sets = {"a": "one", "b": "two", "c": "two"}
    rows = tuple(Row(name, sets[name], {"psnr": value}) for name, value in zip("abc", (20.0, 30.0, 33.0), strict=True))
    scores = Scores("photographs", rows, {})
    means = {"one": {"pictures": 1, "psnr": 20.0}, "two": {"pictures": 2, "psnr": 31.5}}
    scores.write(tmp_path, tmp_path / "metrics.json", tmp_path / "shown.json")
    assert read_json_file(tmp_path / "shown.json") == {"psnr_db": 27.667}  # 83 / 3, as DVC shows it
    assert read_json_file(tmp_path / "metrics.json") == {"photographs": {"psnr": pytest.approx(83 / 3), "sets": means}}
    assert scores.tracked()["two/psnr"] == 31.5 and scores._replace(rows=rows[1:]).tracked() == {"psnr": 31.5}


def test_clips_are_run_with_the_frame_before_and_measured_over_their_frames(tmp_path: Path, measure: Meter) -> None:
    entries, model = [], learned()
    frames = [as_picture(Image.fromarray(frame)) for frame in moving(3, (12, 8))]
    for number, frame in enumerate(frames):
        files = {kind: f"test/{kind}/{number}.png" for kind in ("hr", "lr")}
        for kind, picture in (("hr", frame.resize((48, 32))), ("lr", frame)):
            write_image(tmp_path / files[kind], picture)
        entries.append({"name": f"c-{number}", "set": "c", "clip": "c", **files})
    write_json(tmp_path / "manifest.json", {"name": "clips", "test": entries})
    _, scores = evaluate_reference(model, tmp_path, tmp_path / "out", measure)
    restore = ClipRestorer(lambda frame, memory: upscale_image(model, frame, memory=memory))
    for number, (before, frame) in enumerate(zip([None, *frames], frames, strict=False)):
        made = _pixels(tmp_path / "out" / "fp" / "images" / f"c-{number}.png")
        np.testing.assert_array_equal(made, np.asarray(restore(frame, before)))
    means = scores.averages()
    assert means["ewarp_tvl1"] > 0 and 0 < means["psnr_neighbours"] < 80
    assert scores.by_set()["c"] == {"pictures": 3, **means}
    assert "ewarp" in means or "fetch-metric-weights ewarp" in scores.unavailable["ewarp"]


def test_a_clip_of_one_frame_has_no_measure_over_time(model: OneStepSR, tmp_path: Path) -> None:
    for kind, size in (("hr", (32, 32)), ("lr", (8, 8))):
        write_image(tmp_path / f"{kind}.png", Image.new("RGB", size))
    files = {kind: f"{kind}.png" for kind in ("hr", "lr")}
    write_json(tmp_path / "manifest.json", {"name": "x", "test": [{"name": "a", "set": "c", "clip": "c", **files}]})
    _, scores = evaluate_reference(model, tmp_path, tmp_path / "out", Meter(["psnr"], {"nan": lambda a, b: np.nan}))
    assert set(scores.averages()) == {"psnr"} and scores.unavailable["nan"] == "is not defined on a: its value is nan"
    for name in ("ewarp_tvl1", "psnr_neighbours"):
        assert "is not defined on c: " in scores.unavailable[name] and "two frames" in scores.unavailable[name]


def test_lr_of_another_scale_is_refused(model: OneStepSR, test_set: Path, measure: Meter, tmp_path: Path) -> None:
    hr = str(test_set / "test" / "HR" / "astronaut.png")
    write_json(tmp_path / "manifest.json", {"name": "x", "test": [{"name": "a", "hr": hr, "lr": hr}]})
    with pytest.raises(QartsrError, match="not 4 times"):
        evaluate_reference(model, tmp_path, tmp_path / "out", measure)


def test_an_empty_test_set_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "manifest.json", {"name": "x", "test": []})
    with pytest.raises(QartsrError, match="no test images"):
        open_scenes(tmp_path)


def test_random_lpips_is_the_distance_of_the_loss(test_set: Path) -> None:
    config = LPIPSConfig(backbone="random", seed=3)
    measure = meter(["psnr", "lpips"], config)
    assert "lpips_random" in measure.names
    assert meter(["psnr"], config).names == ("psnr",)
    scene = open_scenes(test_set).items[0]
    hr = scene.hr()
    blurred = hr.resize((32, 27)).resize(hr.size)
    tensors = [torch.from_numpy(np.array(i)).permute(2, 0, 1)[None].float() / 127.5 - 1 for i in (blurred, hr)]
    expected = LPIPS(config)(*tensors).item()
    assert measure.measure(blurred, hr)["lpips_random"] == pytest.approx(expected, rel=1e-4)
