"""VSD against closed forms: networks that always predict the same noise, and float64."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from qartsr.config.retrain import VSDConfig
from qartsr.errors import QartsrError
from qartsr.models.sd_unet.schedule import eq6
from qartsr.training.determinism import generator
from qartsr.training.distributed import Share
from qartsr.training.vsd import VSD
from tests.training.tiny import ADAPTERS, DISTILLATION, embedding, one_step, unet, vsd

WHOLE = Share(3, 4, 32, 0, 4)


def latent(batch: int = 4) -> Tensor:
    return torch.randn(batch, 4, 8, 8, generator=generator(0, "latent"))


def constant(teacher: UNet2DConditionModel, noise: Tensor) -> UNet2DConditionModel:
    """Make it predict ``noise`` (4,), whatever it sees."""
    with torch.no_grad():
        teacher.conv_out.weight.zero_()
        teacher.conv_out.bias.copy_(noise)
    return teacher


@pytest.fixture()
def unequal() -> VSD:
    """Teacher and student predict constants 0.3 and -0.2."""
    pair = vsd(teacher=constant(unet(7), torch.full((4,), 0.3)))
    student_out = copy.deepcopy(pair.student.conv_out)  # the weights are shared: give the student its own
    with torch.no_grad():
        student_out.base_layer.bias = torch.nn.Parameter(torch.full((4,), -0.2), requires_grad=False)
        student_out.lora_A["default_decoder"].weight.zero_()
    pair.student.conv_out = student_out
    return pair


def test_gradient_equals_the_closed_form(unequal: VSD) -> None:
    """x0 differs by sqrt(1 - abar) / sqrt(abar) (e_teacher - e_student), and z_t is known from the same dice."""
    z_h = latent().requires_grad_()
    loss = unequal.score(z_h, WHOLE)["vsd"]
    loss.backward()
    dice = generator(0, "tiny", 3, "score")
    t = torch.randint(20, 980, (4,), generator=dice)
    noise = torch.randn(4, 4, 8, 8, generator=dice).double()
    levels = [eq6(int(index)) for index in t]
    signal = torch.tensor([level.signal for level in levels], dtype=torch.float64).view(4, 1, 1, 1)
    spread = torch.tensor([level.noise for level in levels], dtype=torch.float64).view(4, 1, 1, 1)
    z = z_h.detach().double()
    teacher = z + spread / signal * (noise - 0.3)
    weight = (z - teacher).abs().mean((1, 2, 3), keepdim=True)
    gradient = spread / signal * (0.3 - -0.2) / weight
    expected = 2 * gradient.expand_as(z) / z.numel()
    assert z_h.grad is not None
    assert torch.allclose(z_h.grad.double(), expected, rtol=1e-4, atol=0)
    assert float(loss.detach()) == pytest.approx(float(gradient.expand_as(z).square().mean()), rel=1e-4)


def test_a_student_like_its_teacher_gives_no_gradient() -> None:
    """Without guidance a fresh student predicts what the teacher predicts."""
    z_h = latent().requires_grad_()
    alike = vsd(VSDConfig(weight=1.0, guidance=1.0))
    alike.score(z_h, WHOLE)["vsd"].backward()
    assert z_h.grad is not None
    assert z_h.grad.abs().max() < 1e-6


def test_guidance_equals_float64() -> None:
    ours, exact = vsd(), unet(7).double()
    z_t, t = latent(2), torch.tensor([20, 979])
    with torch.no_grad():
        found = ours.guided(z_t, t)
        prompt, negative = (
            exact(z_t.double(), t, encoder_hidden_states=embedding(name).double().expand(2, -1, -1)).sample
            for name in ("context", "negative")
        )
    expected = negative + 7.5 * (prompt - negative)
    assert not torch.allclose(prompt, negative)
    assert torch.allclose(found.double(), expected, atol=1e-4)


@pytest.mark.parametrize("timestep", [1, 20, 499, 979])
def test_clean_latent_is_eq_6(timestep: int) -> None:
    """Noising and cleaning with the true noise gives Z_H back; and both equal the one-step model's own step."""
    model, z_h = one_step(), latent(1).double()
    model.timestep = timestep
    level = eq6(timestep)
    noise = torch.randn(z_h.shape, generator=generator(0, "noise"), dtype=torch.float64)
    z_t = level.signal * z_h + level.noise * noise
    found = vsd().clean(z_t, torch.tensor([timestep]), noise)
    assert torch.allclose(found, z_h, atol=1e-5)
    assert torch.allclose(found, model.step(z_t, noise), atol=1e-5)


def test_gradients_go_where_they_are_meant() -> None:
    pair, z_h = vsd(), latent().requires_grad_()
    pair.score(z_h, WHOLE)["vsd"].backward()
    assert z_h.grad is not None and z_h.grad.any()
    assert all(p.grad is None for network in (pair.teacher, pair.student) for p in network.parameters())
    z_h.grad = None
    pair.follow(z_h, WHOLE)["diffusion"].backward()
    assert z_h.grad is None
    touched = {name for name, p in pair.student.named_parameters() if p.grad is not None}
    assert touched == {name.removeprefix("student.") for name, _ in pair.trained()}
    assert all(".lora_A." in name or ".lora_B." in name for name in touched)
    assert all(p.grad is None for p in pair.teacher.parameters())


def test_the_student_costs_its_adapters_only() -> None:
    pair = vsd()
    own = {p.data_ptr() for p in pair.student.parameters()} - {p.data_ptr() for p in pair.teacher.parameters()}
    assert len(own) == len(pair.trained())


def test_the_student_follows_z_h() -> None:
    """Its diffusion loss on a narrow distribution falls; the teacher stays."""
    pair, z_h = vsd(), torch.ones(4, 4, 8, 8)
    before = {name: value.clone() for name, value in pair.teacher.state_dict().items()}
    optimizer = torch.optim.AdamW([p for _, p in pair.trained()], lr=1e-2)
    losses = []
    for number in range(40):
        loss = pair.follow(z_h, Share(number, 4, 32, 0, 4))["diffusion"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    assert all(torch.equal(value, before[name]) for name, value in pair.teacher.state_dict().items())


@pytest.mark.parametrize("kind", ["score", "follow"])
def test_an_image_meets_the_same_noise_whoever_holds_it(kind: str) -> None:
    pair, z_h = vsd(), latent()

    def loss(start: int, stop: int) -> float:
        (value,) = getattr(pair, kind)(z_h[start:stop], WHOLE._replace(start=start, stop=stop)).values()
        return float(value.detach())

    assert (loss(0, 2) + loss(2, 4)) / 2 == pytest.approx(loss(0, 4), rel=1e-4)


def test_prompts_of_another_model_are_refused() -> None:
    with pytest.raises(QartsrError, match="the negative prompt's"):
        VSD(unet(7), embedding("context"), torch.zeros(1, 77, 12), DISTILLATION, ADAPTERS, (0, "tiny"))
