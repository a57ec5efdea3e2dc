"""A random model is a model: it loads, it runs, and its folder is the one save_model writes."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from qartsr import OneStepSRPipeline
from qartsr import synthetic as folder_module
from qartsr.errors import QartsrError
from qartsr.files import sha256_tree
from qartsr.models import load_model, save_model
from qartsr.synthetic import ARCHITECTURES, blank, folder_size, random_model, random_tensor, write_random_model


def write(folder: Path, seed: int = 0, precision: Any = "fp32", replace: bool = False) -> list[int]:
    written: list[int] = []
    write_random_model(folder, ARCHITECTURES["sample"](), seed, precision, replace, written.append)
    return written


def test_the_folder_is_that_of_save_model(tmp_path: Path) -> None:
    write(tmp_path / "a")
    save_model(load_model(tmp_path / "a"), tmp_path / "b")
    assert sha256_tree(tmp_path / "a") == sha256_tree(tmp_path / "b")


def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write(tmp_path / name, seed)
    first, again, other = (sha256_tree(tmp_path / name) for name in "abc")
    assert first == again != other


def test_in_memory_and_on_disk_are_one_model(tmp_path: Path) -> None:
    write(tmp_path / "a", seed=5)
    lq = torch.rand(1, 3, 32, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1
    stored, built = load_model(tmp_path / "a"), random_model(ARCHITECTURES["sample"](), seed=5)
    assert not any(value.is_meta for value in built.state_dict().values())
    with torch.no_grad():
        assert torch.equal(stored(lq), built(lq))


def test_the_output_is_finite_and_follows_the_input() -> None:
    model = random_model(ARCHITECTURES["sample"](), seed=0)
    noise = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        first, second = model(noise)
    assert first.isfinite().all() and 0.1 < float(first.std()) < 10
    assert float((first - second).std()) > 0.1


def test_half_precision_takes_half_and_loads(tmp_path: Path) -> None:
    counted = sum(write(tmp_path / "a", precision="fp16"))
    files = sum(path.stat().st_size for path in (tmp_path / "a").rglob("*.safetensors"))
    model = load_model(tmp_path / "a")
    assert files == counted == folder_size(model, "fp16") < 0.51 * folder_size(model, "fp32")
    assert model.unet.conv_in.weight.dtype == torch.float32
    image = OneStepSRPipeline.from_pretrained(tmp_path / "a", device="cpu")(Image.new("RGB", (20, 12), "gray"))
    assert image.size == (80, 48)
    assert np.asarray(image).std() > 0


def test_an_existing_folder_is_respected(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    write(tmp_path / "a")
    with pytest.raises(QartsrError, match="holds a model already"):
        write(tmp_path / "a", seed=1)
    before = sha256_tree(tmp_path / "a")
    write(tmp_path / "a", seed=1, replace=True)
    assert sha256_tree(tmp_path / "a") != before


@pytest.mark.parametrize("replace", [False, True])
def test_what_is_no_model_is_never_replaced(tmp_path: Path, replace: bool) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "to-keep").write_text("x")
    with pytest.raises(QartsrError, match="holds no model"):
        write(tmp_path / "letters", replace=replace)
    with pytest.raises(QartsrError, match="is a file"):
        write(tmp_path / "letters" / "to-keep", replace=replace)
    assert (tmp_path / "letters" / "to-keep").read_text() == "x"


class Usage(NamedTuple):
    """What shutil.disk_usage answers."""

    free: int


def test_a_small_disk_is_noticed_before_the_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1000))
    with pytest.raises(QartsrError, match=r"needs 0\.02 GB where 0\.00 GB are free"):
        write(tmp_path / "deep" / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a")
    before = sha256_tree(tmp_path / "a")

    def full(name: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
        if name.startswith("vae.decoder"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return random_tensor(name, shape, seed)

    monkeypatch.setattr(folder_module, "random_tensor", full)
    with pytest.raises(QartsrError, match="No space left on device") as caught:
        write(tmp_path / "a", seed=1, replace=True)
    assert "\n" not in str(caught.value)
    assert sha256_tree(tmp_path / "a") == before
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_full_size_model_by_shape() -> None:
    """Stable Diffusion 2.1-base: nothing is allocated."""
    model = blank(ARCHITECTURES["osediff"]())
    assert all(value.is_meta for value in model.state_dict().values())
    assert sum(value.numel() for value in model.parameters()) == 865_910_724 + 83_653_863
    assert model.context.shape == (1, 77, 1024)
    assert (model.timestep, model.facts.scaling, model.facts.multiple) == (1, 0.18215, 16)
    assert folder_size(model, "fp32") == pytest.approx(4 * 949.64e6, rel=1e-4)
    assert model.unet.config.attention_head_dim == [5, 10, 20, 20]
    layer = random_tensor("unet.conv_in.weight", tuple(model.unet.conv_in.weight.shape), seed=0)
    assert float(layer.std()) == pytest.approx(1 / 6, rel=0.03)
