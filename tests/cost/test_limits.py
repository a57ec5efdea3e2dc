"""The goals for the bytes of a full-size package, everything needed to run included."""

from __future__ import annotations

import pytest

from qartsr.config import parse_bits
from qartsr.cost import package_size, qartsr_method
from qartsr.quantize import plan
from qartsr.synthetic import ARCHITECTURES, blank

LIMITS = {"w4a4": 495e6, "w3a3": 385e6, "w2a2": 270e6}


@pytest.mark.slow
@pytest.mark.parametrize("rank", [4, 16])
@pytest.mark.parametrize("bits", LIMITS)
def test_full_size_packages_keep_within_their_limits(bits: str, rank: int) -> None:
    """Stable Diffusion 2.1's UNet and VAE; small packages are compared with real files in test_package_size.py."""
    model = blank(ARCHITECTURES["osediff"]())
    decided = plan(model, qartsr_method("osediff", rank), parse_bits(bits))
    assert package_size(model, decided, {"profile": "osediff"}) <= LIMITS[bits]
