"""What a stage tells MLflow while it works."""

from qartsr.tracking.open import PARENT, changed, commit, open_run
from qartsr.tracking.run import NO_RUN, NullRun, Run, Tracker
from qartsr.tracking.times import TIMES, note_time

__all__ = ["NO_RUN", "PARENT", "TIMES", "NullRun", "Run", "Tracker", "changed", "commit", "note_time", "open_run"]
