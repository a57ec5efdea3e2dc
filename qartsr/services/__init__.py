"""Local servers for demo and tests, as real processes: an S3 store, MLflow, Prefect.

Production needs none of this: the same environment variables then name real services.
"""

from qartsr.services.environment import env_lines
from qartsr.services.stack import NAMES, start, status, stop

__all__ = ["NAMES", "env_lines", "start", "status", "stop"]
