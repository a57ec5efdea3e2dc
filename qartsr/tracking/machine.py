"""What a run takes of its machine, under the names that MLflow gives to system metrics."""

from __future__ import annotations

import shutil
import subprocess
import time
from contextlib import suppress
from types import ModuleType

_INTERVAL = 10.0
_MEGABYTE = 1e6
_GPU = {
    "utilization.gpu": "utilization_percentage",
    "memory.used": "memory_usage_megabytes",
    "power.draw": "power_usage_watts",
}
"""nvidia-smi's name -> MLflow's."""


class Machine:
    """Looks now and then; sees nothing where psutil is not installed (extras ``pipeline`` and ``services``)."""

    def __init__(self) -> None:
        self._smi = shutil.which("nvidia-smi")
        self._psutil, self.looks, self._last = _psutil(), 0, time.monotonic()
        self.look()  # the first look at processors begins their count

    def due(self) -> bool:
        """Whether the last look is some time ago."""
        return time.monotonic() - self._last >= _INTERVAL

    def look(self) -> dict[str, float]:
        """Percent of all processors since the last look, memory of the machine and of this process; the GPUs'."""
        self._last, self.looks = time.monotonic(), self.looks + 1
        if self._psutil is None:
            return self._gpus()
        memory, own = self._psutil.virtual_memory(), self._psutil.Process().memory_info().rss
        return {
            "system/cpu_utilization_percentage": self._psutil.cpu_percent(),
            "system/system_memory_usage_megabytes": memory.used / _MEGABYTE,
            "system/system_memory_usage_percentage": memory.percent,
            "system/process_memory_megabytes": own / _MEGABYTE,
            "system/disk_available_megabytes": self._psutil.disk_usage(".").free / _MEGABYTE,
            **self._gpus(),
        }

    def _gpus(self) -> dict[str, float]:
        """By the driver's own tool, where there is one."""
        if self._smi is None:
            return {}
        asked = [self._smi, f"--query-gpu={','.join(_GPU)}", "--format=csv,noheader,nounits"]
        try:
            lines = subprocess.run(asked, capture_output=True, text=True, timeout=5, check=True).stdout.splitlines()
        except (OSError, subprocess.SubprocessError):
            return {}
        found = {}
        for number, line in enumerate(lines):
            for name, value in zip(_GPU.values(), line.split(","), strict=False):
                with suppress(ValueError):  # [N/A]
                    found[f"system/gpu_{number}_{name}"] = float(value)
        return found


def _psutil() -> ModuleType | None:
    try:
        import psutil
    except ModuleNotFoundError:
        return None
    module: ModuleType = psutil
    return module
