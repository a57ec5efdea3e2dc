"""QArtSR: low-bit quantization of one-step diffusion image super-resolution.

``from qartsr import OneStepSRPipeline`` loads what it needs then; ``import qartsr`` alone loads nothing (PEP 562).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qartsr.api import OneStepSRPipeline, QartsrError

__all__ = ["OneStepSRPipeline", "QartsrError"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from qartsr import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
