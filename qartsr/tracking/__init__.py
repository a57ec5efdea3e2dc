"""What a stage tells MLflow while it works."""

from qartsr.tracking.open import PARENT, commit, open_run
from qartsr.tracking.run import NO_RUN, NullRun, Run, Tracker

__all__ = ["NO_RUN", "PARENT", "NullRun", "Run", "Tracker", "commit", "open_run"]
