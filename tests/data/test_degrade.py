from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qartsr.config.data import BicubicConfig, DegradationConfig, RealESRGANConfig
from qartsr.data import degrade
from qartsr.data.degradation import FIRST, SECOND, Order, _filtered, bell_kernel, noisy
from qartsr.data.pairs import image_tensor
from qartsr.data.photographs import photograph_file
from qartsr.data.rng import RandomDraws

BOTH: list[DegradationConfig] = [BicubicConfig(), RealESRGANConfig()]
GREY_LEVEL = 100


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def photograph() -> torch.Tensor:
    return image_tensor(Image.open(photograph_file("chelsea")))[:, 40:168, 120:280].contiguous()


@pytest.mark.parametrize("config", BOTH, ids=lambda c: c.kind)
def test_output_is_8_bit_and_a_quarter_as_large(photograph: torch.Tensor, config: DegradationConfig) -> None:
    for seed in range(4):
        lr = degrade(photograph, config, seeded(seed))
        assert lr.dtype == torch.uint8 and lr.shape == (3, 32, 40) and lr.is_contiguous()


@settings(max_examples=15)
@given(st.integers(0, 2**31), st.integers(2, 16), st.integers(2, 16))
def test_real_esrgan_takes_any_size_down_to_8_pixels(seed: int, height: int, width: int) -> None:
    hr = torch.randint(0, 256, (3, 4 * height, 4 * width), generator=seeded(seed)).to(torch.uint8)
    assert degrade(hr, RealESRGANConfig(), seeded(seed)).shape == (3, height, width)


def test_bicubic_is_pillows(photograph: torch.Tensor) -> None:
    picture = Image.fromarray(photograph.permute(1, 2, 0).numpy())
    expected = np.array(picture.resize((40, 32), Image.Resampling.BICUBIC))
    lr = degrade(photograph, BicubicConfig(), seeded(0))
    np.testing.assert_array_equal(lr.permute(1, 2, 0).numpy(), expected)


def test_real_esrgan_is_decided_by_the_generator_alone(photograph: torch.Tensor) -> None:
    before = torch.random.get_rng_state()
    first = degrade(photograph, RealESRGANConfig(), seeded(5))
    torch.rand(3)
    np.random.default_rng().random()
    assert torch.equal(first, degrade(photograph, RealESRGANConfig(), seeded(5)))
    assert not torch.equal(first, degrade(photograph, RealESRGANConfig(), seeded(6)))
    torch.random.set_rng_state(before)
    degrade(photograph, RealESRGANConfig(), seeded(7))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_real_esrgan_keeps_the_picture_and_loses_more_than_bicubic(photograph: torch.Tensor) -> None:
    """Brightness and coarse structure survive on average; every draw is further from bicubic than rounding."""
    reference = degrade(photograph, BicubicConfig(), seeded(0)).float()
    drawn = [degrade(photograph, RealESRGANConfig(), seeded(seed)).float() for seed in range(24)]
    errors = [float((lr - reference).square().mean().sqrt()) for lr in drawn]
    assert min(errors) > 2 and max(errors) < 90 and max(errors) > 2 * min(errors)
    mean = torch.stack(drawn).mean(0)
    assert float((mean.mean((1, 2)) - reference.mean((1, 2))).abs().max()) < 3
    assert float(torch.corrcoef(torch.stack([mean.flatten(), reference.flatten()]))[0, 1]) > 0.9


@pytest.mark.parametrize("shape", [(3, 18, 16), (3, 16, 15), (1, 3, 16, 16), (3, 0, 16)])
@pytest.mark.parametrize("config", BOTH, ids=lambda c: c.kind)
def test_sides_that_are_no_multiple_of_4_are_a_programming_error(
    shape: tuple[int, ...], config: DegradationConfig
) -> None:
    with pytest.raises(ValueError, match="multiples of 4"):
        degrade(torch.zeros(shape, dtype=torch.uint8), config, seeded(0))


@pytest.mark.parametrize("side", [7, 40])
def test_filter_is_correlation_with_reflected_or_repeated_borders(side: int) -> None:
    x = torch.rand(1, 3, side, side + 3, generator=seeded(0))
    kernel = bell_kernel("gauss", 13, (2.0, 0.7), 0.5, 1.0)
    mode = "mirror" if side > 10 else "nearest"
    expected = [scipy.ndimage.correlate(c.numpy().astype(float), kernel.numpy(), mode=mode) for c in x[0]]
    np.testing.assert_allclose(_filtered(x, kernel)[0].numpy(), np.stack(expected), atol=1e-5)


def _residuals(order: Order, draws: int = 80) -> list[tuple[bool, float]]:
    """(equal in all channels, standard deviation on 0..255) of the noise on a flat grey of 100."""
    flat = torch.full((1, 3, 48, 48), GREY_LEVEL / 255)
    found = []
    for seed in range(draws):
        noise = (noisy(flat, order, RandomDraws(seeded(seed))) - flat)[0] * 255
        found.append((bool((noise[0] == noise[1]).all()), float(noise[0].std())))
    return found


@pytest.mark.parametrize("order", [FIRST, SECOND])
def test_noise_is_as_strong_and_as_often_grey_as_osediff_wants(order: Order) -> None:
    """Gaussian half of the time (the Poisson half is switched off here), of uniform strength, grey in 40 %."""
    gaussian = _residuals(order._replace(poisson=(0.0, 0.0)))
    strong = [std for _, std in gaussian if std > 0]
    assert len(strong) / len(gaussian) == pytest.approx(0.5, abs=0.17)
    assert min(strong) >= 0.9 * order.noise[0] and 0.6 * order.noise[1] < max(strong) <= 1.1 * order.noise[1]
    assert np.mean([grey for grey, std in gaussian if std > 0]) == pytest.approx(0.4, abs=0.2)


def test_poisson_noise_has_the_variance_of_its_rate() -> None:
    """256 grey levels, rates v / 255 * 256 counts: variance v / 255 / 256 times the squared factor, on [0, 1]."""
    ramp = (torch.arange(256).float() / 255).view(1, 1, 1, 256).expand(1, 3, 512, 256)
    order = FIRST._replace(noise=(0.0, 0.0), poisson=(2.0, 2.0))
    seeds = (seed for seed in range(50) if not torch.equal(noisy(ramp, order, RandomDraws(seeded(seed))), ramp))
    noise = (noisy(ramp, order, RandomDraws(seeded(next(seeds)))) - ramp)[0, 0]
    for level in (60, 128, 180):  # far enough from 0 and 255 that nothing is clipped
        assert float(noise[:, level].var()) == pytest.approx(4 * level / 255 / 256, rel=0.25)
        assert float(noise[:, level].mean()) == pytest.approx(0, abs=0.02)


def test_the_settings_are_osediffs() -> None:
    """dataloaders/params_realesrgan.yml of OSEDiff, by hand."""
    assert FIRST == (1.0, (0.2, 3), (0.2, 0.7, 0.1), (0.15, 1.5), (1, 30), (0.05, 3))
    assert SECOND == (0.8, (0.2, 1.5), (0.3, 0.4, 0.3), (0.3, 1.2), (1, 25), (0.05, 2.5))
