"""The image loss against closed forms, and LPIPS with seeded random features."""

from __future__ import annotations

import copy
import subprocess
import sys
import warnings
from pathlib import Path

import lpips
import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from qartsr.config.training import ImageLossConfig, LPIPSConfig
from qartsr.errors import QartsrError
from qartsr.losses import LPIPS, ImageLoss, lpips_name

RANDOM = LPIPSConfig(backbone="random", seed=0)


def _images(seed: int, size: int = 64) -> Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_terms_are_the_textbook_formulas() -> None:
    a, b = _images(0), _images(1)
    losses = ImageLoss(ImageLossConfig(lpips=0.5, mse=2.0, l1=3.0), RANDOM)(a, b)
    difference = a.double().numpy() - b.double().numpy()
    assert losses["mse"].item() == pytest.approx(np.mean(difference**2), rel=1e-5)
    assert losses["l1"].item() == pytest.approx(np.mean(np.abs(difference)), rel=1e-5)
    expected = 0.5 * losses["lpips_random"] + 2 * losses["mse"] + 3 * losses["l1"]
    assert losses["total"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_zero_weight_is_not_built() -> None:
    loss = ImageLoss(ImageLossConfig(lpips=0.0, mse=0.0, l1=1.0), LPIPSConfig(backbone="vgg"))
    assert list(loss.parameters()) == []
    assert set(loss(_images(0), _images(1))) == {"l1", "total"}


def test_no_terms_is_a_zero_that_adds_up() -> None:
    total = ImageLoss(ImageLossConfig(lpips=0.0, mse=0.0, l1=0.0), RANDOM)(_images(0), _images(1))["total"]
    assert total.item() == 0 and total.shape == ()


def test_random_lpips_agrees_with_its_definition_in_float64(official: nn.Module) -> None:
    """Unit-normalised features, squared difference, summed over channels and layers, averaged over positions."""
    a, b = _images(0), _images(1)
    features, scaling = copy.deepcopy(official.net).double(), official.scaling_layer
    expected = 0.0
    for one, other in zip(features(scaling(a).double()), features(scaling(b).double()), strict=True):
        one, other = (f / f.square().sum(1, keepdim=True).sqrt() for f in (one, other))
        expected += (one - other).square().sum(1).mean().item()
    assert LPIPS(LPIPSConfig(backbone="random", seed=3))(a, b).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("size", [32, 70])
def test_random_lpips_is_the_official_baseline(official: nn.Module, size: int) -> None:
    """Its value and its gradient, in every bit; each image of a batch by itself."""
    a, b = _images(0, size).requires_grad_(), _images(1, size)
    ours, theirs = LPIPS(LPIPSConfig(backbone="random", seed=3)).network(a, b), official(a, b).flatten()
    assert ours.shape == (2,) and torch.equal(ours, theirs)
    gradients = (torch.autograd.grad(distance.mean(), a)[0] for distance in (ours, theirs))
    assert torch.equal(*gradients)


@pytest.fixture(scope="module")
def official() -> nn.Module:
    """The baseline of the ``lpips`` package on untrained features."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips 0.1.4 calls torchvision with a deprecated argument
        torch.manual_seed(3)
        network: nn.Module = lpips.LPIPS(net="alex", pnet_rand=True, lpips=False, verbose=False)
    return network.requires_grad_(False)


def test_random_lpips_is_a_seeded_distance() -> None:
    a, b = _images(0), _images(1)
    assert LPIPS(RANDOM)(a, a).item() == 0
    assert LPIPS(RANDOM)(a, b).item() > 0
    assert LPIPS(RANDOM)(a, b).item() == LPIPS(RANDOM)(a, b).item()
    assert LPIPS(RANDOM)(a, b).item() != LPIPS(LPIPSConfig(seed=1))(a, b).item()


@pytest.mark.parametrize("size", [32, 64, 70])
def test_gradient_reaches_the_image_and_never_the_features(size: int) -> None:
    distance = LPIPS(RANDOM)
    image = _images(0, size).requires_grad_()
    distance(image, _images(1, size)).backward()
    assert image.grad is not None and image.grad.abs().sum() > 0 and image.grad.isfinite().all()
    assert not any(parameter.requires_grad for parameter in distance.parameters())


def test_building_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    LPIPS(RANDOM)
    assert torch.equal(before, torch.get_rng_state())


def test_names_never_pass_random_features_for_lpips() -> None:
    assert [lpips_name(LPIPSConfig(backbone=b)) for b in ("random", "alex", "vgg")] == [
        "lpips_random",
        "lpips",
        "lpips_vgg",
    ]


@pytest.mark.parametrize(("backbone", "file", "fetch"), [("alex", "alexnet-", "lpips"), ("vgg", "vgg16-", "lpips-vgg")])
def test_missing_weights_name_the_file_and_the_command(
    backbone: str, file: str, fetch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(QartsrError, match=f"{file}.*qartsr fetch-metric-weights {fetch}`"):
        LPIPS(LPIPSConfig(backbone=backbone))


def test_pretrained_lpips_loads_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code path of the real weights, with untrained AlexNet weights in the file's place."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"not a checkpoint")
    with pytest.raises(QartsrError, match="damaged"):
        LPIPS(LPIPSConfig(backbone="alex"))
    torch.save(torchvision.models.alexnet(weights=None).state_dict(), file)
    distance = LPIPS(LPIPSConfig(backbone="alex"))
    assert distance(_images(0), _images(0)).item() == 0 < distance(_images(0), _images(1)).item()


def test_random_lpips_opens_no_connection() -> None:
    code = """
import sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "urllib.Request"):
        raise SystemExit("tried to open a connection")
sys.addaudithook(refuse)
from qartsr.config.training import LPIPSConfig
from qartsr.losses import LPIPS
LPIPS(LPIPSConfig())
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
