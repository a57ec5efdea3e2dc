"""What ``from qartsr import ...`` gives: the pipeline, joined with the model registry that it does not know itself."""

from pathlib import Path

from qartsr.errors import QartsrError
from qartsr.upscale.model_source import register_resolver
from qartsr.upscale.pipeline import OneStepSRPipeline

__all__ = ["OneStepSRPipeline", "QartsrError"]


def _fetch(address: str) -> Path:
    from qartsr.release import fetch  # configuration and the network: only for an address

    return fetch(address)


def _pull(address: str) -> Path:
    from qartsr.upscale.hub import pull

    return pull(address)


register_resolver("models", _fetch)
register_resolver("hf", _pull)
