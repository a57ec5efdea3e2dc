"""What ``from qartsr import ...`` gives: the pipeline, joined with the model registry that it does not know itself."""

from qartsr.errors import QartsrError
from qartsr.release import fetch
from qartsr.upscale.pipeline import OneStepSRPipeline
from qartsr.upscale.sources import register_resolver

__all__ = ["OneStepSRPipeline", "QartsrError"]

register_resolver("models", fetch)
