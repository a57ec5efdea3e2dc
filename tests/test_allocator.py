"""Large tensors in large pages: counted by the kernel, with and without, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qartsr.allocator import prefer_large_pages

_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_COUNT = """
import resource, sys
from qartsr.allocator import prefer_large_pages
if sys.argv[1] == "with":
    prefer_large_pages()
import torch
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    torch.ones(20 << 20)  # 80 MB, 20,480 pages of 4 kB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(
    not _PAGES.is_file() or "[madvise]" not in _PAGES.read_text(),
    reason="this kernel gives large pages always or never",
)
def test_large_tensors_take_few_pages() -> None:
    command = [sys.executable, "-c", _COUNT]
    environment = {key: value for key, value in os.environ.items() if key != "THP_MEM_ALLOC_ENABLE"}
    plain, large = (
        int(subprocess.run([*command, how], env=environment, capture_output=True, text=True, check=True).stdout)
        for how in ("without", "with")
    )
    assert plain > 80_000 and large < plain / 2


def test_commands_collect_rarely() -> None:
    code = "import gc; from qartsr.cli import main; main(['inspect', 'no/file']); print(gc.get_threshold()[0])"
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout == "10000\n" and "no/file" in ran.stderr


def test_other_systems_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows' C library cannot be asked for as Linux' is."""
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setattr("ctypes.CDLL", None)
    prefer_large_pages()
