"""A model of clips: the frame before in the UNet's channels, beginning as the image model that it came from."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from qartsr.engines import choose
from qartsr.errors import QartsrError
from qartsr.models import State, fold_constants, load_model, run_segments, save_model
from qartsr.models.sd_unet.model import SDUNet
from qartsr.models.sd_unet.video import video_backbone
from qartsr.packing import load_package, write_package
from tests.packing.tiny import quantize, recipe, tiny_model


def learned(seed: int = 1) -> SDUNet:
    """A model of clips whose memory matters."""
    model = video_backbone(tiny_model())
    generator = torch.Generator().manual_seed(seed)
    weight = model.unet.conv_in.weight
    weight.data += 0.1 * torch.randn(weight.shape, generator=generator)
    return model.requires_grad_(False)


def frames(count: int = 2, batch: int = 2) -> Tensor:
    return torch.rand(batch, 3 * count, 16, 24, generator=torch.Generator().manual_seed(count)) * 2 - 1


def test_it_begins_as_the_image_model_whatever_came_before() -> None:
    image, video, lq = tiny_model(), video_backbone(tiny_model()), frames()
    assert (image.facts.frames, video.facts.frames) == (1, 2)
    assert torch.allclose(video(lq), image(lq[:, 3:]), atol=1e-5)
    assert torch.allclose(video.restore(lq), image.restore(lq[:, 3:]), atol=1e-5)
    with pytest.raises(QartsrError, match="a model of clips already"):
        video_backbone(video)


def test_the_frame_before_comes_first_and_only_the_last_is_restored() -> None:
    model, lq = learned(), frames()
    z = model.encode(lq)
    assert torch.equal(z, torch.cat([model.encode(lq[:, :3]), model.encode(lq[:, 3:])], 1))
    noise = model.unet(z, torch.full((2,), model.timestep), encoder_hidden_states=model.context.expand(2, -1, -1))
    assert torch.equal(model(lq), model.decode(model.step(z[:, 4:], noise.sample)))
    assert not torch.allclose(model(lq), model(torch.cat([lq[:, 3:], lq[:, 3:]], 1)), atol=1e-3)


def test_an_image_stands_for_both_frames() -> None:
    model, lq = learned(), frames()[:, 3:]
    assert torch.allclose(model(lq), model(torch.cat([lq, lq], 1)), atol=1e-5)


@pytest.mark.parametrize("count", [1, 2])
def test_units_are_the_model_and_rows_stay_samples(count: int) -> None:
    model, lq = learned(), frames(count)
    state = State(lq)
    for unit in model.segments():
        state = run_segments(model, state, [unit])
        assert state.hidden.shape[0] == 2
    assert torch.allclose(state.hidden, model(lq), atol=1e-5)


@pytest.mark.long
def test_folder_package_and_engines_keep_it(tmp_path: Path) -> None:
    model = learned()
    save_model(model, tmp_path / "model")
    again = load_model(tmp_path / "model")
    assert again.facts.frames == 2 and torch.allclose(again(frames()), model(frames()), atol=1e-5)
    fold_constants(again)
    plan = quantize(again, "w8a8", recipe())
    write_package(tmp_path / "p.safetensors", again, plan, {"profile": "test", "data": {"sha256": "ab"}})
    packed, lq = load_package(tmp_path / "p.safetensors"), frames()
    expected = packed(lq)
    assert packed.facts.frames == 2 and torch.allclose(expected, again(lq), atol=1e-4)
    if find_spec("openvino") is None:
        pytest.skip("the engine openvino is an extra")
    fast = choose("openvino", packed, torch.device("cpu")).engine.prepare(packed)
    assert isinstance(fast, nn.Module) and (fast(lq) - expected).abs().max() < 0.1 * expected.abs().max()
