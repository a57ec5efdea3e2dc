"""Where a model runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qartsr.errors import QartsrError

if TYPE_CHECKING:
    import torch


def floating(model: object) -> bool:
    """Whether it is a model of torch modules and computes in floating point throughout: nothing in it has a grid."""
    from torch import nn

    from qartsr.layer import QuantLayer
    from qartsr.packing import PackedLayer

    return isinstance(model, nn.Module) and not any(
        isinstance(module, PackedLayer | QuantLayer) for module in model.modules()
    )


def choose_device(name: str) -> torch.device:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``; auto is the GPU where there is one. Raises QartsrError."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise QartsrError(f"unknown device {name!r}", "device", "choose auto, cpu, cuda or cuda:N") from error
    missing = device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    if device.type not in ("cpu", "cuda") or missing:
        raise QartsrError(f"device {name!r} is not available here", "device", "choose auto or cpu")
    return device
