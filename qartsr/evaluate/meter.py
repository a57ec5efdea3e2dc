"""The meter that a configuration asks for: pyiqa's metrics and, beside ``lpips``, the LPIPS of the training loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from qartsr.config.training import LPIPSConfig
from qartsr.losses import LPIPS, lpips_name
from qartsr.metrics import Meter, Metric


def meter(names: Sequence[str], lpips: LPIPSConfig, device: torch.device | str = "cpu") -> Meter:
    """Metrics ``names``; where ``lpips`` is among them and the loss uses random features, ``lpips_random`` as well.

    Random features are no substitute for LPIPS: both stand in the result under their own names, and plain ``lpips``
    is unavailable while its weights are missing.
    """
    extra = "lpips" in names and lpips.backbone == "random"
    return Meter(names, {lpips_name(lpips): _distance(LPIPS(lpips).to(device))} if extra else {}, device)


def _distance(network: LPIPS) -> Metric:
    def distance(image: Tensor, reference: Tensor) -> float:
        with torch.no_grad():
            return float(network(2 * image - 1, 2 * reference - 1))

    return distance
