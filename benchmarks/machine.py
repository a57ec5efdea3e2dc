"""The machine and the versions a number was measured with, and the peak memory of this process (Linux)."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "diffusers", "safetensors", "numpy")


def machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo").read_text()
    fields = dict(re.findall(r"^(model name|cpu family|model|flags)\s*: (.*)$", cpuinfo, re.MULTILINE))
    wanted = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16")
    return {
        "cpu": f"{fields.get('model name', platform.machine())} (family {fields.get('cpu family')})",
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "instructions": [flag for flag in wanted if flag in fields.get("flags", "").split()],
        "system": f"{platform.system()} {platform.machine()}",
    }


def slug() -> str:
    """``amd-epyc-2cores``: for file names."""
    found = machine()
    name = re.sub(r"\(.*", "", found["cpu"]).strip().lower()
    return re.sub(r"[^a-z0-9]+", "-", f"{name} {found['cores']}cores").strip("-")


def versions(*more: str) -> dict[str, str]:
    """Of Python and packages; one that is missing costs no figures."""
    return {"python": platform.python_version(), **{name: _version(name) for name in (*_PACKAGES, *more)}}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def reset_peak() -> float:
    """Forget the peak; returns the resident bytes now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> float:
    """The most resident bytes since :func:`reset_peak`."""
    return _status("VmHWM")


def _status(key: str) -> float:
    found = re.search(rf"^{key}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024.0
