"""What a run takes of its machine, under the names that MLflow gives to system metrics."""

from __future__ import annotations

import time
from types import ModuleType

_SECONDS = 10.0
_MEGABYTE = 1e6


class Machine:
    """Looks now and then; sees nothing where psutil is not installed (extras ``pipeline`` and ``services``)."""

    def __init__(self) -> None:
        self._psutil, self.looks, self._last = _psutil(), 0, time.monotonic()
        self.look()  # the first look at processors begins their count

    def due(self) -> bool:
        """Whether the last look is some time ago."""
        return time.monotonic() - self._last >= _SECONDS

    def look(self) -> dict[str, float]:
        """Percent of all processors since the last look, memory of the machine and of this process."""
        if self._psutil is None:
            return {}
        self._last, self.looks = time.monotonic(), self.looks + 1
        memory, own = self._psutil.virtual_memory(), self._psutil.Process().memory_info().rss
        return {
            "system/cpu_utilization_percentage": self._psutil.cpu_percent(),
            "system/system_memory_usage_megabytes": memory.used / _MEGABYTE,
            "system/system_memory_usage_percentage": memory.percent,
            "system/process_memory_megabytes": own / _MEGABYTE,
        }


def _psutil() -> ModuleType | None:
    try:
        import psutil
    except ModuleNotFoundError:
        return None
    module: ModuleType = psutil
    return module
