"""How good a floating-point model is while it is trained: on images of the test split, one at a time."""

from __future__ import annotations

import torch

from qartsr.data.pairs import Pair, to_unit
from qartsr.metrics.luma import psnr_y
from qartsr.models import Backbone


def psnr(model: Backbone, pair: Pair) -> float:
    """PSNR (Y, dB) of the restored 8-bit image against HR."""
    with torch.no_grad():
        image = model.restore(to_unit(pair.lq)[None].to(model.device))
    restored = ((image + 1) * 127.5).round().clamp(0, 255)[0].cpu()
    return psnr_y(restored / 255, pair.hr.float() / 255)
