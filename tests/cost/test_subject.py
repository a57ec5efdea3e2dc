"""What can be asked about, and the recipe it gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from qartsr.config import load_params
from qartsr.cost import cost_of, qartsr_method, subject
from qartsr.errors import QartsrError
from qartsr.models import OneStepSR, architecture, save_model


@pytest.mark.parametrize("profile", ["sample", "osediff"])
def test_the_recipe_is_that_of_the_complete_parameter_sets(root: Path, profile: str) -> None:
    params = load_params(root / "configs" / f"{profile}.yaml")
    assert qartsr_method(profile) == params.method.planned(params.common)


def test_rank_zero_is_no_branch() -> None:
    assert qartsr_method("sample", 0).layer.skip.kind == "none"


def test_a_folder_is_described_without_its_weights(model: OneStepSR, tmp_path: Path) -> None:
    save_model(model, tmp_path / "m")
    for weights in (tmp_path / "m").rglob("diffusion_pytorch_model.safetensors"):
        weights.unlink()
    found = subject(str(tmp_path / "m"))
    assert found.architecture == architecture(model)
    rows = cost_of(found, 64, [], 4).rows
    assert rows[0].params_m == cost_of(subject("sample"), 64, [], 4).rows[0].params_m


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(QartsrError, match="osediff, dloral, sample, tsdsr or a model folder"):
        subject("unheard-of")
    with pytest.raises(QartsrError, match=r"qartsr\.json"):
        subject(str(tmp_path))


def test_an_unusable_context_is_named(model: OneStepSR, tmp_path: Path) -> None:
    save_model(model, tmp_path / "m")
    context = tmp_path / "m" / "context.safetensors"
    for content in (b"", b"\0" * 100):
        context.write_bytes(content)
        with pytest.raises(QartsrError, match="context"):
            subject(str(tmp_path / "m"))


@pytest.mark.parametrize("size", [0, -64, 7, 65])
def test_a_size_the_model_cannot_take(size: int) -> None:
    with pytest.raises(QartsrError, match="give a multiple of 8"):
        cost_of(subject("sample"), size, [], 4)
