"""Experiments on clips: frames with the one before, measured as one; from samples to tables on a tiny model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import ValidationError

from experiments import backbones, compare, samples, tables
from experiments.study.clip_table import clip_ablation
from experiments.study.measure import Judge
from experiments.study.sets import Windows, load_inputs, load_windows, write_pairs, write_windows
from qartsr.config import load_config
from qartsr.config.data import BicubicConfig, CalibrateConfig, ClipsConfig, DataConfig, RealESRGANConfig
from qartsr.config.experiment import Experiments
from qartsr.config.experiment import TestSetConfig as SetConfig
from qartsr.config.training import LPIPSConfig
from qartsr.data import write_dataset
from qartsr.files import read_json
from qartsr.models import save_model
from qartsr.models.sd_unet.video import video_backbone
from tests.training.tiny import one_step

FILES = ("photographs/clips/towers.mkv", "photographs/clips/tower.mkv")


def _sets(root: Path) -> dict[str, SetConfig]:
    clips = ClipsConfig(files=tuple(str(root / name) for name in FILES), frames=3)
    return {
        "clean": SetConfig(images="clips", clips=clips, degradation=BicubicConfig(), stands_for="REDS4"),
        "hard": SetConfig(images="clips", clips=clips, degradation=RealESRGANConfig(), stands_for="MVSR4x"),
    }


def test_every_frame_has_the_one_before_in_its_first_channels(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    sets = _sets(root)
    write_windows(tmp_path, sets, 64, tmp_path)
    for windows in load_windows(tmp_path, sets).values():
        assert windows.hr.shape == (6, 3, 64, 64) and windows.lq.shape == (6, 6, 64, 64)
        assert windows.units == {"tower": slice(0, 3), "towers": slice(3, 6)}
        for first in (0, 3):
            clip = windows.lq[first : first + 3]
            assert torch.equal(clip[0, :3], clip[0, 3:]) and torch.equal(clip[1:, :3], clip[:-1, 3:])
            assert not torch.equal(clip[1, :3], clip[1, 3:])


def test_a_clip_is_measured_as_one(root: Path) -> None:
    """Of frames that stand still, neighbours are alike (80 dB at most), and nothing changes that did not move."""
    still = torch.randint(0, 255, (1, 3, 48, 48), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    hr = still.repeat(3, 1, 1, 1)
    windows = {"one": Windows(("a-00000", "a-00001", "a-00002"), hr, torch.cat([hr, hr], 1), 3)}
    judge = Judge(windows, LPIPSConfig(), video_backbone(one_step()))
    scores = judge.scores({"one": hr})["one"]["a"]
    assert scores["psnr_neighbours"] == 80 and scores["ewarp_tvl1"] == 0 and scores["ssim"] == 1
    flickering = hr.clone()
    flickering[1] = 255 - hr[1]
    worse = judge.scores({"one": flickering})["one"]["a"]
    assert worse["ewarp_tvl1"] > 1 and worse["psnr_neighbours"] < 20
    assert set(judge.bicubic()["one"]) == {"a"}


def test_clips_stay_whole_when_pairs_are_kept_apart(root: Path, tmp_path: Path) -> None:
    write_dataset(_photographs(), 0, tmp_path / "data")
    pairs = CalibrateConfig(pairs=6, lr_size=8, frames=2, length=2)
    write_pairs(tmp_path / "data", pairs, BicubicConfig(), 0, tmp_path)
    trained, held = load_inputs(tmp_path, 0, 2)
    assert trained.shape == (4, 6, 32, 32) and held.shape[0] == 2
    assert torch.equal(held[1, :3], held[0, 3:]) and not torch.equal(trained[-1, 3:], held[0, :3])


def test_the_configuration_is_valid_and_its_slips_are_named(root: Path) -> None:
    file = root / "experiments" / "video" / "params.yaml"
    assert load_config(Experiments, file).budget.length == 5
    values: Any = yaml.safe_load(file.read_text())
    for key, wrong, said in (
        (("budget", "pairs"), 41, "clips of 5"),
        (("sets", "clean", "images"), "photographs", "name their files"),
        (("sets", "clean", "clips", "files"), ["a/x.mkv", "b/x.mkv"], "the same name"),
        (("budget", "frames"), 1, "all are clips for a model of clips"),
        (("methods", "quantvsr", "rank_policy", "frames"), 4, "neither 1 nor budget.length"),
        (("tables", "ablation"), ["unknown"], "table3 does not train"),
        (("tables", "ablation_bits"), "w8a8", "not among table3_bits"),
    ):
        given: Any = yaml.safe_load(file.read_text())
        place = given
        for name in key[:-1]:
            place = place[name]
        place[key[-1]] = wrong
        with pytest.raises(ValidationError, match=said):
            Experiments.model_validate(given)
    assert set(values["tables"]["ablation"]) <= set(values["methods"])


def test_the_published_ablation_stands_beside() -> None:
    """QuantVSR's own figures at W4A4, and none for a row that it does not have."""
    means = {"all": {"psnr": 30.0, "lpips_random": 0.1, "ewarp_tvl1": 1.0}}
    cell = {"title": "T", "rate": 0.0, "tried": {}, "tried_with": 0, "seeds": {"0": {"samples": 0, "means": means}}}
    table = clip_ablation(
        {(row, "w4a4"): cell for row in ("quantvsr", "own")}, ("quantvsr", "own"), "w4a4", means["all"]
    )
    assert table.lines[1].values["paper_ewarp"].mean == 1.76 and table.lines[1].values["paper_psnr"].mean == 22.76
    assert "paper_psnr" not in table.lines[2].values


def _photographs() -> DataConfig:
    return DataConfig.model_validate({"images": {"source": "photographs", "train": ["camera"], "test": ["chelsea"]}})


@pytest.mark.slow
def test_from_samples_to_tables(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    values: Any = yaml.safe_load((root / "experiments" / "video" / "params.yaml").read_text())
    rows = ["qartsr", "quantvsr", "quantvsr-plain", "no-branch"]
    values |= {"seeds": [0], "crop": 48}
    values["tables"] = {"table3": rows, "table3_bits": ["w4a4"], "ablation": ["no-branch", "quantvsr"]}
    values["budget"] |= {"steps": 16, "batch": 1, "pairs": 10, "lr_size": 8, "rates": [1e-3], "more_rates": 0}
    values["backbones"]["retrain"] |= {"steps": 1, "batch": 1, "crop": 32}
    values["sets"].pop("degraded")
    values["sets"]["clean"]["clips"] |= {"frames": 2, "files": [str(root / name) for name in FILES]}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    write_dataset(_photographs(), 0, tmp_path / "data")
    save_model(video_backbone(one_step()), tmp_path / "model")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def run(module: Any, *words: str, **folders: str) -> None:
        named = [word for key, folder in folders.items() for word in (f"--{key}", str(tmp_path / folder))]
        monkeypatch.setattr(sys, "argv", ["stage", "--params", str(tmp_path / "params.yaml"), *words, *named])
        module.main()

    run(samples, data="data", out="samples")
    run(backbones, model="model", data="data", out="backbones", work="work")
    given = {"backbones": "backbones", "samples": "samples"}
    for row in rows:
        run(compare, "--method", row, "--bits", "w4a4", out=f"compared/{row}-w4a4", work="work", **given)
    run(tables, compared="compared", out="clips", **given)
    found = read_json(tmp_path / "compared/quantvsr-w4a4/results.json")
    assert found["seeds"]["0"]["means"]["all"]["ewarp_tvl1"] > 0
    assert "22.76" in (tmp_path / "clips/clips.md").read_text()
