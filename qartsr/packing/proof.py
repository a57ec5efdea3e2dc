"""Before a package leaves the house: it computes what the trained model computes."""

from __future__ import annotations

import torch

from qartsr.errors import QartsrError
from qartsr.models import OneStepSR

_SIDE = 64
_SAMPLES = 2


@torch.no_grad()
def prove_equal(packed: OneStepSR, trained: OneStepSR, seed: int) -> None:
    """Run both on two seeded 64 x 64 images. Raises QartsrError unless the outputs are equal, bit for bit."""
    generator = torch.Generator().manual_seed(seed)
    side = -(-_SIDE // trained.multiple) * trained.multiple
    lq = torch.rand(_SAMPLES, 3, side, side, generator=generator) * 2 - 1
    worst = float((packed(lq) - trained(lq)).abs().max())
    if worst != 0.0:
        raise QartsrError(
            f"computes something else than the trained model (outputs differ by up to {worst:.3g})",
            "the package",
            "report this as a bug: packing must lose nothing",
        )
