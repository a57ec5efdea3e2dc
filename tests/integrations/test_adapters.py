"""Adapters hand over what their programs hand them, and nothing is lost on the way but rounding to 16 bits."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from integrations.comfyui import NODE_CLASS_MAPPINGS
from integrations.descriptor import QartsrDescriptor
from qartsr import OneStepSRPipeline
from qartsr.models import save_model
from tests.house.project import ROOT
from tests.packing.tiny import tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m"
    save_model(tiny_model("none"), path)
    return path


@pytest.fixture(scope="module")
def levels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 65536, (9, 10, 3)).astype(np.uint16)


def test_a_descriptor_is_called_on_a_tensor(folder: Path, levels: np.ndarray) -> None:
    model = QartsrDescriptor.load(folder, "cpu")
    image = torch.from_numpy(levels / 65535).permute(2, 0, 1)[None]
    found = model(image)
    assert found.shape == (1, 3, 36, 40) and found.dtype == image.dtype and model.scale == 4
    expected = OneStepSRPipeline.from_pretrained(folder, device="cpu")(levels).wide
    np.testing.assert_allclose(found[0].permute(1, 2, 0), expected / 65535, atol=1e-6)
    with pytest.raises(ValueError, match="expected"):
        model(image[0])


def test_a_comfyui_node_takes_a_batch(folder: Path, levels: np.ndarray) -> None:
    node = NODE_CLASS_MAPPINGS["UpscaleWithQartsr"]
    assert set(node.INPUT_TYPES()["required"]) == {"image", "package", "engine"} and node.RETURN_TYPES == ("IMAGE",)
    batch = torch.from_numpy((levels / 65535).astype(np.float32)).expand(2, -1, -1, -1)
    (found,) = getattr(node(), node.FUNCTION)(batch, str(folder), "auto")
    assert found.shape == (2, 36, 40, 3) and bool((found[0] == found[1]).all())


def test_a_model_folder_runs_in_plain_diffusers(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of the documents, line by line, against the pipeline."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").symlink_to(folder)
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8))
    picture.save("photo.png")
    text = (ROOT / "docs" / "serving.md").read_text()
    (example,) = re.findall(r"```python\n(import torch\nfrom diffusers.*?)```", text, re.DOTALL)
    exec(example, {})
    expected = OneStepSRPipeline.from_pretrained(folder, device="cpu")(picture)
    with Image.open("photo_x4.png") as found:
        assert np.abs(np.asarray(found).astype(int) - np.asarray(expected)).max() <= 1
