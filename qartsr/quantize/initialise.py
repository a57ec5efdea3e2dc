"""Initial values of quantized layers from calibration, and the verb of this room: a calibrated, quantized copy."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor

from qartsr.errors import QartsrError
from qartsr.layer import QuantLayer
from qartsr.models import Backbone
from qartsr.quantize.calibration import InputStatistics, Statistics, observe
from qartsr.quantize.layers import apply, quant_layers
from qartsr.quantize.plan import Plan, patches_needed
from qartsr.quantizers import (
    NoQuantizer,
    OwnRange,
    RangeStats,
    Sliced,
    SlicedOwn,
    TokenGaussian,
    joined_stats,
    stats_of,
    weighted_stats,
)

_FOLLOWING = (NoQuantizer, OwnRange, SlicedOwn, TokenGaussian)
"""Input quantizers that need no statistics: what comes is all they look at."""


@torch.no_grad()
def initialise(model: Backbone, statistics: Statistics, names: Iterable[str] | None = None) -> None:
    """Set every part of the quantized layers (or those in ``names``) from their weights and their inputs' statistics.

    Order matters: the skip may live in the transform's basis, both quantizers see transformed tensors, and rounding
    needs the weight's grid. Raises QartsrError where a part needs patches and the statistics have none.
    """
    for name, layer in quant_layers(model, names).items():
        found = statistics[name]
        absmax = found.absmax.to(layer.weight.device)
        layer.transform.calibrate(absmax, layer.weight)
        layer.adapter.calibrate(layer.weight, layer.phi())  # starts at nothing, in any basis
        candidates = layer.transform.candidates(absmax, layer.weight)
        if len(candidates):
            layer.transform.adopt(_best(candidates, layer, found, name))
        _calibrate(layer, found)
        weight = layer.transform.weight(layer.main())
        layer.rounding.calibrate(
            weight, layer.weight_quantizer, layer.transform.input(_patches(layer, found)).flatten(1)
        )
        layer.bias_quantizer.calibrate(layer.total_bias())


def _calibrate(layer: QuantLayer, found: InputStatistics) -> None:
    """All that follows from a transform."""
    layer.skip.calibrate(layer.weight, layer.phi())
    layer.weight_quantizer.calibrate(layer.transform.weight(layer.main()))
    if not isinstance(layer.input_quantizer, _FOLLOWING):
        stats = (_mixed if layer.transform.mixes else _transformed)(layer, found)
        layer.input_quantizer.calibrate(stats if layer.headroom == 1 else stats.widened(layer.headroom))


def _best(candidates: Tensor, layer: QuantLayer, found: InputStatistics, name: str) -> Tensor:
    """The candidate phi whose quantized layer comes closest to the original on the patches; of equals the first."""
    patches = _patches(layer, found)
    if not len(patches):
        raise QartsrError("a search for phi has no inputs of this layer", name, "observe with the plan's patches")
    errors = []
    for phi in candidates:
        layer.transform.adopt(phi)
        _calibrate(layer, found)
        errors.append(_error(layer, patches))
    return candidates[int(torch.stack(errors).argmin())]


def _error(layer: QuantLayer, patches: Tensor) -> Tensor:
    """Mean squared error of the layer's outputs, rounding to nearest, bias left out."""
    main = layer.main()
    quantized = layer.weight_quantizer(layer.transform.weight(main)).flatten(1)
    inputs = layer.input_quantizer(layer.transform.input(patches)).flatten(1)
    skipped = patches.flatten(1) @ (layer.weight - main).flatten(1).T
    return (inputs @ quantized.T + skipped - patches.flatten(1) @ layer.weight.flatten(1).T).square().mean()


def _patches(layer: QuantLayer, found: InputStatistics) -> Tensor:
    """(N, C, k, k) or (N, C), shaped like the weight; N = 0 where none were kept."""
    return found.patches.to(layer.weight).reshape(-1, *layer.weight.shape[1:])


def _parts(layer: QuantLayer) -> list[slice]:
    """All input channels, or each part of a split."""
    quantizer = layer.input_quantizer
    if isinstance(quantizer, Sliced):
        return [slice(quantizer.boundary), slice(quantizer.boundary, None)]
    return [slice(None)]


def _mixed(layer: QuantLayer, found: InputStatistics) -> RangeStats:
    """The statistics of T_x(x) where channels are mixed: of the patches."""
    patches = _patches(layer, found)
    if not len(patches):
        do = "observe the model with the patches its plan asks for"
        raise QartsrError("a rotated input's range has no inputs of a layer", "method.layer.transform", do)
    turned = layer.transform.input(patches)
    return joined_stats([stats_of(turned[:, part], 1) for part in _parts(layer)])


def _transformed(layer: QuantLayer, found: InputStatistics) -> RangeStats:
    """The statistics of T_x(x), which is monotone in every channel: of all channels, or of each part of a split."""
    phi, delta = (factor.cpu().float() for factor in layer.transform.input_factors())
    low, high = (found.minimum - delta) / phi, (found.maximum - delta) / phi
    values = (found.centres() - delta[:, None]) / phi[:, None]
    parts = _parts(layer)
    stats = joined_stats(
        [weighted_stats(values[part], found.counts[part], low[part].amin(), high[part].amax()) for part in parts]
    )
    return RangeStats(*(tensor.to(layer.weight.device, layer.weight.dtype) for tensor in stats))


Model = TypeVar("Model", bound=Backbone)
_BATCH = 8


def look(model: Backbone, plan: Plan, lq: Tensor) -> Statistics:
    """What the plan's parts need to know of every layer's input; ``lq`` (N, 3, H, W) in [-1, 1] is run in batches."""
    return observe(model, lq.split(_BATCH), patches_needed(plan))


def quantize(model: Model, plan: Plan, statistics: Statistics, names: Iterable[str] | None = None) -> Model:
    """A copy of ``model`` with the planned layers quantized and calibrated; with ``names`` only these of them.

    ``model`` stays as it is. Raises QartsrError where the plan or the statistics are another model's.
    """
    copied = copy.deepcopy(model)
    chosen = [layer.name for layer in plan.layers] if names is None else list(names)
    apply(copied, plan, chosen)
    initialise(copied, statistics, chosen)
    return copied
