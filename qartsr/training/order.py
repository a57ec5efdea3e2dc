"""In which order RPQ's modules become quantized: the paper's, its reverse, or by how much each one hurts the image."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from qartsr.config.method import ModuleOrder
from qartsr.models import Backbone, Segment, run_segments
from qartsr.quantize import Plan, Statistics, quantize
from qartsr.training.cuts import Cuts

_BATCH = 8


def module_order(
    kind: ModuleOrder, teacher: Backbone, plan: Plan, statistics: Statistics, cuts: Cuts, sequence: tuple[Segment, ...]
) -> list[int]:
    """Indices into ``sequence``: ``reverse`` is the paper's (QArtSR, section 3.3), from the output to the input.

    ``sensitive_first`` and ``sensitive_last`` sort by :func:`sensitivities`; ties keep the order of inference.
    """
    indices = list(range(len(sequence)))
    if kind == "reverse":
        return indices[::-1]
    if kind == "forward":
        return indices
    found = sensitivities(teacher, plan, statistics, cuts, sequence)
    return sorted(indices, key=lambda index: found[index], reverse=kind == "sensitive_first")


@torch.no_grad()
def sensitivities(
    teacher: Backbone, plan: Plan, statistics: Statistics, cuts: Cuts, sequence: tuple[Segment, ...]
) -> list[float]:
    """MSE of the image over all samples with one module alone quantized, calibrated and untrained, for each module."""
    found = []
    for index, unit in enumerate(sequence):
        student = quantize(teacher, plan, statistics, unit.layers)
        error, count = 0.0, 0
        for part in torch.arange(cuts.samples).split(_BATCH):
            image = run_segments(student, cuts.load(index, part), sequence[index:]).hidden
            error += float(F.mse_loss(image, cuts.load(len(sequence), part).hidden, reduction="sum"))
            count += image.numel()
        found.append(error / count)
        del student  # before the next copy
    return found
