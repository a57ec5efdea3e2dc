"""How long stages took, noted beside what they made, for the report."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from qartsr.errors import QartsrError
from qartsr.files import write_json

TIMES = Path("build/times")
"""In a DVC project's folder; no output of DVC's, so nothing is stale for it."""


def note_time(seconds: float) -> None:
    """Write what the stage took that DVC is running; DVC names it and its project in the environment."""
    root, name = os.environ.get("DVC_ROOT", ""), os.environ.get("DVC_STAGE", "").rpartition(":")[2]
    if root and name:
        ended = datetime.now(UTC).isoformat(timespec="seconds")
        values = {"stage": name, "seconds": round(seconds, 1), "ended": ended}
        with suppress(QartsrError, OSError):  # what was made is there; the page can do without
            write_json(Path(root) / TIMES / f"{name.replace('/', '-')}.json", values)
