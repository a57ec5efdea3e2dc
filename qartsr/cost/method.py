"""QArtSR's recipe, as the complete parameter sets in ``configs/`` have it (a test compares them)."""

from __future__ import annotations

from typing import Any

from qartsr.config.parts import MethodConfig
from qartsr.models.sd_unet.architectures import EDGE_LAYERS

RANK = 4
"""Of the low-rank branch: the only round number that fits the parameters of Table 2 (docs/cost.md)."""
_RANGES = {"sample": "mse", "osediff": "minmax"}
_ADAPTER = {"sample": 16, "osediff": 32}


def qartsr_method(profile: str, rank: int = RANK) -> MethodConfig:
    """The method of profile ``sample`` or ``osediff`` with a low-rank branch of ``rank``; 0: without."""
    skip: dict[str, Any] = {"kind": "svd", "rank": rank, "basis": "weight"} if rank else {"kind": "none"}
    return MethodConfig.model_validate(
        {
            "name": "qartsr",
            "layer": {
                "weight": {"kind": "lbq", "granularity": "channel", "init": _RANGES[profile]},
                "input": {"kind": "lbq", "granularity": "tensor", "init": _RANGES[profile]},
                "bias": {"bits": 8},
                "transform": {"kind": "channel_scale", "alpha": 0.3},
                "skip": skip,
                "adapter": {"kind": "lora", "rank": _ADAPTER[profile]},
            },
            "edge_bits": 8,
            "edge_layers": EDGE_LAYERS[profile],
            "float_layers": (),
        }
    )
