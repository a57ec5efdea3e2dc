"""Every tensor the official code recorded, in every case: relative difference at most 1e-4 in fp32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from qartsr.models import OneStepSR
from qartsr.models.sd_unet.pretrained import text_encoder, tokens
from qartsr.upscale.official import restore
from qartsr.upscale.official.image import network_input, network_size
from qartsr.upscale.official.network import draw
from tests.parity.cases import CASES, IDS, PAIRS, PROCESS_SIZE, PROMPT, Case, close, relative, seed, tensors
from tests.parity.conftest import Run


@pytest.fixture(scope="module")
def input_ids(parity: Path) -> Tensor:
    return tokens(*text_encoder(parity / "sd21_tiny"), PROMPT)


@pytest.mark.parametrize(("case", "image"), PAIRS, ids=IDS)
def test_every_recorded_tensor(
    parity: Path,
    models: dict[bool, OneStepSR],
    run: Callable[[Case, str], Run],
    input_ids: Tensor,
    case: Case,
    image: str,
) -> None:
    expected, model = tensors(parity, case, image), models[case.merge]
    _, lq, noise, trace, calls = run(case, image)
    assert torch.equal(noise, expected["noise_encode"])
    ours = {
        "lq": lq,
        "input_ids": input_ids,
        "prompt_embeds": model.context,
        "posterior_mean": trace.mean,
        "posterior_logvar": trace.logvar,
        "posterior_std": torch.exp(0.5 * trace.logvar),
        "noise_encode": noise,
        "z_L": trace.z_l,
        "unet_timestep": torch.tensor([model.timestep]),
        "timestep": torch.tensor([model.timestep]),
        "unet_tiles_in": torch.cat([tile for tile, _ in calls]),
        "unet_tiles_out": torch.cat([tile for _, tile in calls]),
        "model_pred": trace.noise,
        "z_H": trace.z_h,
        "pred_original_sample": trace.z_h,
        "decoder_input": trace.z_h / model.facts.scaling,
        "decoded_raw": trace.decoded,
    }
    assert set(expected) - {"noise_sched"} <= set(ours)
    assert ("unet_tiles_in" in expected) == (len(calls) > 1)
    compared = [name for name in expected if name in ours]
    far = {name: relative(ours[name], expected[name]) for name in compared if not close(ours[name], expected[name])}
    assert not far


@pytest.mark.parametrize(("case", "image"), PAIRS, ids=IDS)
def test_noise_from_the_seed_alone(parity: Path, case: Case, image: str) -> None:
    """The script's scheduler draws too, second, with an effect below 1e-9."""
    expected = tensors(parity, case, image)
    generator = torch.Generator().manual_seed(seed(parity, case, image))
    for name in ("noise_encode", "noise_sched"):
        drawn = torch.randn(expected["noise_encode"].shape, generator=generator)
        assert torch.equal(expected.get(name, drawn), drawn)


def test_merged_equals_unmerged(models: dict[bool, OneStepSR]) -> None:
    lq = torch.rand(1, 3, 72, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noise = draw(models[True], lq, 0)
    merged, beside = (restore(models[merge], lq, noise, CASES[0].tiling) for merge in (True, False))
    assert all(close(a, b) for a, b in zip(merged, beside, strict=True))


def test_the_mode_is_the_mean(models: dict[bool, OneStepSR]) -> None:
    lq = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    trace = restore(models[True], lq, None, CASES[0].tiling)
    assert torch.equal(trace.z_l, trace.mean * models[True].facts.scaling)
    with torch.no_grad():
        assert close(models[True](lq), trace.decoded)


def test_the_input_is_the_official_to_the_last_bit(parity: Path) -> None:
    for case in (CASES[0], CASES[4]):
        for image in case.images:
            source = network_size(Image.open(parity / case.inputs / f"{image}.png").convert("RGB"), PROCESS_SIZE)
            assert source.tobytes() == Image.open(parity / "inputs_resized" / f"{image}.png").convert("RGB").tobytes()
            assert torch.equal(network_input(source), tensors(parity, case, image)["lq"])
