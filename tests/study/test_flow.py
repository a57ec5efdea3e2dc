"""A flow in several steps, with input bits of their own at each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from experiments.study.flow import InSteps, bits_by_step, followed, mean_squares
from qartsr.config import load_config, parse_bits
from qartsr.config.experiment import Experiments
from qartsr.models.sd3_dit import SD3DiT, sample_dit
from qartsr.models.sd_unet import sample_backbone
from qartsr.quantize import look, plan, quantize
from qartsr.quantizers.gaussian import KAPPA
from tests.house.project import ROOT


@pytest.fixture(scope="module")
def params() -> Experiments:
    return load_config(Experiments, ROOT / "experiments" / "dit" / "params.yaml")


@pytest.fixture(scope="module")
def lq() -> Tensor:
    return torch.rand(2, 3, 32, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def student(params: Experiments, lq: Tensor) -> Iterator[SD3DiT]:
    teacher = sample_dit(sample_backbone(999, "none", 1).vae, "none", 1).eval().requires_grad_(False)
    torch.nn.init.normal_(teacher.transformer.proj_out.weight, std=0.02, generator=torch.Generator().manual_seed(1))
    decided = plan(teacher, params.methods["qdit4sr"].planned(params.common), parse_bits("w4a4"), lq)
    yield quantize(teacher, decided, look(teacher, decided, lq))


def test_one_step_is_the_models_own(student: SD3DiT, lq: Tensor) -> None:
    with torch.no_grad():
        assert torch.allclose(InSteps(student, 1).restore(lq), student(lq), atol=1e-5)


def test_steps_go_from_one_end_to_the_other(lq: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A velocity x / t has its end at x (1 - 1/4) (1 - 1/3) (1 - 1/2) 0, whatever the number of steps: 0."""
    model, times = sample_dit(sample_backbone(999, "none", 1).vae, "none", 1).eval(), list[float]()

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        times.append(float(t[0]))
        return x * 1000 / t.view(-1, 1, 1, 1)

    monkeypatch.setattr(model, "velocity", velocity)
    with torch.no_grad():
        z_l = model.encode(lq)
        assert InSteps(model, 4).denoise(z_l).abs().max() < 1e-6
    assert times == [1000, 750, 500, 250]


def test_bits_follow_the_schedule(student: SD3DiT, lq: Tensor) -> None:
    inputs = followed(student)
    own = {name: each.levels for name, each in inputs.items()}
    assert {own.pop(f"transformer.{end}") for end in ("pos_embed.proj", "proj_out")} == {255}
    assert set(own.values()) == {15}
    name, layer = next((name, each) for name, each in inputs.items() if each.levels == 15)
    seen: list[int] = []
    handle = layer.register_forward_pre_hook(lambda module, given: seen.append(module.levels))
    InSteps(student, 3, {name: (2, 5, 8)}).restore(lq)
    handle.remove()
    assert seen == [3, 31, 255] and layer.levels == 15


def test_what_is_shared_out_is_measured_at_every_step(student: SD3DiT, lq: Tensor) -> None:
    squares = mean_squares(student, 3, lq)
    assert squares.keys() == followed(student).keys() and {len(each) for each in squares.values()} == {3}
    assert not [name for name in squares if name.startswith("vae.")], "the VAE is in floating point"
    uniform = bits_by_step(student, squares, 1)
    assert {name: set(bits) for name, bits in uniform.items()} == {
        name: {each.levels.bit_length()} for name, each in followed(student).items()
    }
    name = next(name for name, each in followed(student).items() if each.levels == 15)
    (moving,) = bits_by_step(student, {name: (9.0, 1.0, 1.0)}, 3).values()
    assert sum(moving) <= 12 and moving[0] > moving[1]
    errors = []
    for most in (1, 2, 3):
        given = bits_by_step(student, squares, most)
        errors.append(sum(KAPPA[given[name][n]] * v for name, each in squares.items() for n, v in enumerate(each)))
    assert errors[0] >= errors[1] >= errors[2] > 0
