"""The only writer of initial values."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from qartsr.layer import QuantLayer
from qartsr.quantize.apply import quant_layers
from qartsr.quantize.statistics import InputStatistics, Statistics
from qartsr.quantizers import RangeStats, weighted_stats


@torch.no_grad()
def initialise(model: nn.Module, statistics: Statistics, names: Iterable[str] | None = None) -> None:
    """Set every part of the quantized layers (or those in ``names``) from their weights and their inputs' statistics.

    Order matters: the skip may live in the transform's basis, and both quantizers see transformed tensors.
    """
    for name, layer in quant_layers(model, names).items():
        found = statistics[name]
        layer.transform.calibrate(found.absmax.to(layer.weight.device), layer.weight)
        layer.skip.calibrate(layer.weight, layer.phi())
        layer.adapter.calibrate(layer.weight, layer.phi())
        layer.weight_quantizer.calibrate(layer.scaled_weight())
        layer.input_quantizer.calibrate(_transformed(layer, found))
        layer.bias_quantizer.calibrate(layer.total_bias())


def _transformed(layer: QuantLayer, found: InputStatistics) -> RangeStats:
    """The statistics of T_x(x), which is monotone in every channel."""
    phi, delta = (factor.cpu().float() for factor in layer.transform.input_factors())
    low, high = (found.minimum - delta) / phi, (found.maximum - delta) / phi
    values = (found.centres() - delta[:, None]) / phi[:, None]
    stats = weighted_stats(values, found.counts, low.amin(), high.amax())
    return RangeStats(*(tensor.to(layer.weight.device, layer.weight.dtype) for tensor in stats))
