"""Losses inside the network: their values by hand, and that without them nothing changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from qartsr.config.method import ModelPhase
from qartsr.config.training import ImageLossConfig, RoleRates
from qartsr.models import OneStepSR
from qartsr.training.distillation import inside, plain

RATES = RoleRates(transform=0, skip=0, adapter=0, quantizer=0)


def _config(latent: float, feature: float) -> ModelPhase:
    loss = ImageLossConfig(lpips=0.0, mse=1.0)
    return ModelPhase(steps=1, batch=1, rates=RATES, loss=loss, latent_loss=latent, feature_loss=feature)


@pytest.fixture()
def lq() -> Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_without_weights_the_forward_pass_is_the_models(model: OneStepSR, lq: Tensor) -> None:
    assert inside(model, lq, _config(0, 0)) is plain
    image, losses = plain(model, lq, torch.arange(3))
    assert torch.equal(image, model(lq)) and losses == {}


@torch.no_grad()
def test_the_teacher_itself_has_no_error(model: OneStepSR, lq: Tensor) -> None:
    index = torch.tensor([2, 0])
    image, losses = inside(model, lq, _config(1, 1))(model, lq[index], index)
    assert torch.allclose(image, model(lq[index]), atol=1e-5)
    assert all(float(loss) < 1e-9 for loss in losses.values())


@torch.no_grad()
def test_latent_loss_is_the_relative_error_of_z_h(model: OneStepSR, lq: Tensor) -> None:
    forward = inside(model, lq, _config(0.5, 0))
    truth = model.denoise(model.encode(lq))
    model.unet.conv_out.bias += 0.1
    noisy = model.denoise(model.encode(lq))
    _, losses = forward(model, lq, torch.arange(3))
    expected = 0.5 * (noisy - truth).square().mean() / truth.var()
    assert set(losses) == {"latent_loss"} and torch.allclose(losses["latent_loss"], expected, rtol=1e-4)
