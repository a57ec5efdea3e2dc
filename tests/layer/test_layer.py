"""The layer without quantizers is the original; the originals never train; what diffusers asks of a layer."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qartsr.config.parts import LayerRecipe
from qartsr.layer import QuantLayer, build_layer, op_of

MODULES: dict[str, Any] = {
    "3x3": lambda: nn.Conv2d(6, 5, 3, padding=1),
    "3x3 stride 2": lambda: nn.Conv2d(6, 5, 3, stride=2, padding=1),
    "3x3 unpadded": lambda: nn.Conv2d(6, 5, 3, stride=2),
    "1x1": lambda: nn.Conv2d(6, 5, 1),
    "1x3 odd": lambda: nn.Conv2d(6, 5, (1, 3), stride=(1, 2), padding=(0, 2), bias=False),
    "dilated": lambda: nn.Conv2d(6, 5, 3, padding=2, dilation=2),
    "linear": lambda: nn.Linear(6, 5),
    "linear without bias": lambda: nn.Linear(6, 5, bias=False),
}
TRANSFORMS = ("none", "channel_scale", "channel_affine", "channel_search")
SKIPS: tuple[dict[str, Any], ...] = (
    {"kind": "none"},
    {"kind": "svd", "rank": 2},
    {"kind": "svd", "rank": 99, "basis": "scaled"},
    {"kind": "hsvd", "rank": 4},
    {"kind": "hsvd", "rank": 3, "local": 1.0, "basis": "scaled"},
)
ADAPTERS = ("none", "lora")
NONE = {"kind": "none"}


def _input(module: nn.Module, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (2, 6, 9, 8) if isinstance(module, nn.Conv2d) else (2, 4, 6)
    return torch.randn(shape, generator=generator, dtype=dtype)


def _layer(module: nn.Module, **parts: Any) -> QuantLayer:
    recipe = {"weight": NONE, "input": NONE, "bias": {"bits": 0}, **parts}
    layer = build_layer(module, "layer", LayerRecipe.model_validate(recipe), 4, 4)
    with torch.no_grad():
        layer.transform.calibrate(torch.linspace(0.1, 3, 6), layer.weight)
        if hasattr(layer.transform, "delta") and isinstance(layer.transform.delta, nn.Parameter):
            layer.transform.delta.copy_(torch.linspace(-1, 1, 6))
        layer.skip.calibrate(layer.weight, layer.phi())
        layer.adapter.calibrate(layer.weight, layer.phi())
    return layer


@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize(("transform", "skip", "adapter"), list(itertools.product(TRANSFORMS, range(5), ADAPTERS)))
def test_without_quantizers_it_is_the_original(kind: str, transform: str, skip: int, adapter: str) -> None:
    module = MODULES[kind]().double()
    parts = {"transform": {"kind": transform}, "skip": SKIPS[skip], "adapter": {"kind": adapter}}
    layer, x = _layer(module, **parts), _input(module)
    torch.testing.assert_close(layer(x), module(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["3x3", "linear"])
def test_more_bits_come_closer(kind: str) -> None:
    module = MODULES[kind]()
    x = _input(module, torch.float32)
    errors = []
    for bits in (2, 4, 6, 8):
        recipe = LayerRecipe.model_validate(
            {"weight": {"kind": "lbq", "granularity": "channel"}, "input": {"kind": "lbq"}}
        )
        layer = build_layer(module, "layer", recipe, bits, bits)
        layer.weight_quantizer.calibrate(layer.scaled_weight())
        layer.input_quantizer.calibrate(x)
        errors.append((layer(x) - module(x)).square().mean().item())
    assert all(a > b for a, b in itertools.pairwise(errors)) and errors[-1] < 1e-3


def test_a_learned_bias_is_added_before_the_bias_quantizer() -> None:
    module, x = MODULES["3x3"](), _input(MODULES["3x3"](), torch.float32)
    layer, plain = _layer(module, bias={"bits": 0, "learnable": True}), _layer(module)
    assert torch.equal(layer(x), plain(x))  # from 0
    with torch.no_grad():
        dict(layer.named_parameters())["alignment.shift"].copy_(torch.arange(5.0))
    torch.testing.assert_close(layer(x), plain(x) + torch.arange(5.0)[:, None, None])
    torch.testing.assert_close(layer.total_bias(), module.bias + torch.arange(5.0))


@pytest.mark.parametrize("kind", MODULES)
def test_patches_are_what_the_weight_sees(kind: str) -> None:
    module = MODULES[kind]().double()
    x, op, shape = _input(module), op_of(module), tuple(module.weight.shape)
    padded = op.pad(x)
    index = torch.arange(op.positions(padded, shape)).flip(0)
    patches = op.patches(padded, shape, index)
    assert patches.shape[1:] == shape[1:]
    bias = 0 if module.bias is None else module.bias
    expected = op.channels_last(module(x)).reshape(-1, 5)[index]
    torch.testing.assert_close(patches.flatten(1) @ module.weight.flatten(1).T + bias, expected)


def test_adapter_zero_leaves_the_quantized_output_unchanged() -> None:
    module = MODULES["3x3"]()
    x = _input(module, torch.float32)
    outputs = []
    for adapter in ADAPTERS:
        layer = _layer(module, weight={"kind": "lbq"}, input={"kind": "lbq"}, adapter={"kind": adapter})
        outputs.append(layer(x))
    assert torch.equal(*outputs)


@pytest.mark.parametrize("kind", ["3x3", "linear"])
def test_only_parts_train(kind: str) -> None:
    module = MODULES[kind]()
    parts: dict[str, Any] = {
        "weight": {"kind": "lbq", "granularity": "channel"},
        "input": {"kind": "lbq"},
        "bias": {"bits": 8},
        "transform": {"kind": "channel_affine"},
        "skip": {"kind": "svd", "rank": 1},  # of a higher rank this little layer's residual rounds to 0
        "adapter": {"kind": "lora"},
    }
    layer = _layer(module, **parts)
    before = layer.weight.clone(), None if layer.bias is None else layer.bias.clone()
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.01)
    for _ in range(2):  # F2 has no gradient while F1 is zero
        optimizer.zero_grad()
        layer(_input(module, torch.float32)).square().sum().backward()
        optimizer.step()
    assert torch.equal(layer.weight, before[0]) and not layer.weight.requires_grad
    assert layer.bias is not None and before[1] is not None and torch.equal(layer.bias, before[1])
    assert {name for name, p in layer.named_parameters() if p.grad is None or not p.grad.any()} == set()
    owners = {name.partition(".")[0] for name, _ in layer.named_parameters()}
    assert owners == {"weight_quantizer", "input_quantizer", "transform", "skip", "adapter"}
    assert module.weight.grad is None


def test_padding_is_zero_of_x_not_of_the_transformed_x() -> None:
    """A constant input 1 under delta = 1: padding after the transform would lose the border."""
    module = nn.Conv2d(6, 5, 3, padding=1).double()
    layer = _layer(module, transform={"kind": "channel_affine"})
    x = torch.ones(1, 6, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(layer(x), module(x), rtol=0, atol=1e-10)


def test_residual_is_live() -> None:
    """R = W - L1 L2 follows L in training."""
    layer = _layer(MODULES["linear"](), skip={"kind": "svd", "rank": 2})
    with torch.no_grad():
        layer.skip.factors()[0].mul_(0.5)
    torch.testing.assert_close(layer.main() + layer.skip.matrix(), layer.weight)


def test_it_answers_like_the_original() -> None:
    for kind in ("3x3", "linear without bias"):
        module = MODULES[kind]().eval()
        layer = _layer(module)
        assert layer.weight.dtype == module.weight.dtype and layer.weight.data.device == module.weight.device
        assert torch.equal(layer.weight, module.weight) and layer.training == module.training
        assert (layer.bias is None) == (module.bias is None)


def test_unknown_layers_are_refused() -> None:
    for module, word in (
        (nn.Conv2d(4, 4, 3, groups=2), "grouped"),
        (nn.Conv2d(4, 4, 3, padding="same"), "padded"),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), "padded"),
        (nn.Conv1d(4, 4, 3), "neither"),
    ):
        with pytest.raises(ValueError, match=word):
            op_of(module)
