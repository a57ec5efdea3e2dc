"""A model folder gives back the same model, the same bytes, and clear errors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from qartsr.errors import QartsrError
from qartsr.files import sha256_tree
from qartsr.models import OneStepSR, architecture, load_model, save_model, skeleton


def test_round_trip_is_exact_and_deterministic(model: OneStepSR, tmp_path: Path) -> None:
    save_model(model, tmp_path / "a")
    again = load_model(tmp_path / "a")
    save_model(again, tmp_path / "b")
    lq = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again.restore(lq), model.restore(lq))
    assert sha256_tree(tmp_path / "a") == sha256_tree(tmp_path / "b")


def test_skeleton_has_the_same_architecture(model: OneStepSR) -> None:
    assert architecture(skeleton(architecture(model))) == architecture(model)


@pytest.mark.parametrize("part", ["unet/diffusion_pytorch_model.safetensors", "vae/config.json", "qartsr.json"])
def test_a_missing_or_truncated_part_is_named(model: OneStepSR, tmp_path: Path, part: str) -> None:
    save_model(model, tmp_path / "m")
    path = tmp_path / "m" / part
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(QartsrError, match=path.name):
        load_model(tmp_path / "m")
    path.unlink()
    with pytest.raises(QartsrError, match=path.name):
        load_model(tmp_path / "m")


def test_weights_that_do_not_fit_are_refused(model: OneStepSR, tmp_path: Path) -> None:
    save_model(model, tmp_path / "m")
    config = tmp_path / "m" / "unet" / "config.json"
    config.write_text(config.read_text().replace('"in_channels": 16', '"in_channels": 8'))
    with pytest.raises(QartsrError, match=r"does not fit its config\.json"):
        load_model(tmp_path / "m")
