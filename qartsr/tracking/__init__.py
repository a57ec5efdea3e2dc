"""What a stage tells MLflow while it works."""

from qartsr.tracking.open import open_run
from qartsr.tracking.run import NO_RUN, NullRun, Run, Tracker

__all__ = ["NO_RUN", "NullRun", "Run", "Tracker", "open_run"]
