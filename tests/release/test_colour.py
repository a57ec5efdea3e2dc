"""A model that destroys colour is measured, published and refused, though its luma would pass."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow.tracking import MlflowClient
from PIL import Image
from skimage import data

from qartsr.config import load_params
from qartsr.errors import QartsrError
from qartsr.evaluate import evaluate_quantized, evaluate_reference
from qartsr.files import read_json, sha256_file, write_json
from qartsr.metrics import Meter
from qartsr.models import OneStepSR, load_model, save_model
from qartsr.release import package_tags, promote, publish
from tests.release.conftest import BITS, aliases

pytestmark = pytest.mark.services
LUMA = (65.481 / 219, 128.553 / 219, 24.966 / 219)
DAMAGE = {
    "grey": ([LUMA, LUMA, LUMA], (0, 0, 0)),
    "swapped": ([(0, 0, 1), (0, 1, 0), (1, 0, 0)], (0, 0, 0)),
    "shifted": ([(1, 0, 0), (0, 1, 0), (0, 0, 1)], (0.4, 0, -0.4)),
}


@pytest.fixture(scope="module")
def fp(root: Path) -> OneStepSR:
    """The shipped backbone without its colour fix, which would paint over some of the damage."""
    model = load_model(root / "weights" / "sample").eval()
    model.align = "none"
    return model


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with one colourful test picture."""
    folder = tmp_path_factory.mktemp("data")
    hr = Image.fromarray(data.coffee()).crop((180, 100, 276, 196))
    hr.save(folder / "hr.png")
    hr.resize((24, 24), Image.Resampling.BICUBIC).save(folder / "lr.png")
    entry = {"name": "coffee", "hr": "hr.png", "lr": "lr.png"}
    write_json(folder / "manifest.json", {"name": "photographs", "test": [entry]})
    return folder


@pytest.fixture(scope="module")
def reference(fp: OneStepSR, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    scores = evaluate_reference(fp, pictures, folder, Meter(["psnr", "psnr_rgb"]))
    scores[1].write(folder, folder / "fp.json", folder / "shown.json")
    return folder


def _damaged(fp: OneStepSR, kind: str) -> OneStepSR:
    """The three channels of the last layer mixed and shifted; the output is in [-1, 1]."""
    model, (mixing, shift) = copy.deepcopy(fp), DAMAGE[kind]
    last, mix = model.vae.decoder.conv_out, torch.tensor(mixing, dtype=torch.float32)
    with torch.no_grad():
        last.weight.copy_(torch.einsum("ij,jkhw->ikhw", mix, last.weight))
        last.bias.copy_(mix @ last.bias + torch.tensor(shift))
    return model


def _published(model: OneStepSR, profile: str, name: str, pictures: Path, reference: Path, out: Path) -> None:
    """Evaluated, described and registered as the stages do it; the bytes are those of the model's own VAE."""
    scores = evaluate_quantized(model, pictures, reference, out / "evaluated", Meter(["psnr", "psnr_rgb"]))
    scores.write(out / "evaluated", out / "metrics.json", out / "shown.json")
    save_model(model, out / "model")
    (out / "package").mkdir()
    file = out / "package" / "model.safetensors"
    file.write_bytes(next((out / "model" / "vae").glob("*.safetensors")).read_bytes())
    (out / "package" / "README.md").write_text("# a card")
    quality: Any = {"metrics": read_json(out / "metrics.json"), "fp": read_json(reference / "fp.json")}
    write_json(
        out / "package" / "summary.json", {"sha256": sha256_file(file), "bits": BITS, "method": "none", **quality}
    )
    publish(file, name, package_tags(out / "package", profile), "qartsr")


@pytest.mark.parametrize("kind", DAMAGE)
def test_lost_colour_is_refused(
    kind: str, fp: OneStepSR, pictures: Path, reference: Path, profile: str, name: str, client: MlflowClient,
    root: Path, tmp_path: Path,
) -> None:  # fmt: skip
    """The limits of the shipped configuration; only those on luma are lifted, so colour alone decides."""
    gate = load_params(root / "params.yaml").promote.model_copy(update={"max_psnr_loss": {BITS: 100.0}})
    _published(fp, profile, name, pictures, reference, tmp_path / "whole")
    promote(profile, BITS, gate)
    _published(_damaged(fp, kind), profile, name, pictures, reference, tmp_path / "damaged")
    with pytest.raises(QartsrError, match=f"{name} version 2: is not promoted: its .*RGB PSNR to FP's output is"):
        promote(profile, BITS, gate)
    assert aliases(client, name) == {"champion": 1}
