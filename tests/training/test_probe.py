"""The probe's two error measures obey Eq. 6: with a floating-point latent, dZ_H = -kappa d(epsilon)."""

from __future__ import annotations

import pytest
import torch

from experiments.study.measure import restored
from qartsr.data.pairs import Pair
from qartsr.errors import DivergedError
from qartsr.models import OneStepSR
from qartsr.models.sd_unet.schedule import eq6
from qartsr.training.probe import probe, psnr


@pytest.mark.parametrize("timestep", [1, 499])
def test_errors_are_bound_by_eq_6(model: OneStepSR, timestep: int) -> None:
    model.timestep = timestep
    noise = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 64, 64), generator=noise, dtype=torch.uint8)
    lq = image.float() / 127.5 - 1
    low, high = probe(model, ["w2a2", "w8a8"], [lq[None]], [Pair("noise", image, image)])
    with torch.no_grad():
        z_l = model.encode(lq[None])
        noise_norm = model.predict(z_l).norm()
        latent_norm = model.denoise(z_l).norm()
    kappa = eq6(timestep).amplification
    assert low.kappa == pytest.approx(kappa)
    assert low.zh_error == pytest.approx(float(kappa * low.eps_error * noise_norm / latent_norm), rel=1e-3)
    assert high.zh_error < low.zh_error


def test_a_model_that_gives_no_numbers_is_named(model: OneStepSR) -> None:
    """8 bits would hide it."""
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    model.vae.decoder.conv_out.bias.data.fill_(float("nan"))
    with pytest.raises(DivergedError, match="no numbers; train with a lower learning rate"):
        psnr(model, Pair("flat", image, image))
    with pytest.raises(DivergedError, match="no numbers; train with a lower learning rate"):
        restored(model, image[None])
