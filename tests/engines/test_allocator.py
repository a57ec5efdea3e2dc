"""Large tensors in large pages: counted by the kernel, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_COUNT = """
import resource
from qartsr.runtime.allocator import prefer_large_pages
prefer_large_pages()
import torch
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    torch.ones(20 << 20)  # 80 MB
for _ in range(400):
    torch.ones(1 << 18)  # 1 MB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(
    not _PAGES.is_file() or "[never]" in _PAGES.read_text(), reason="this kernel has no large pages to give"
)
def test_large_tensors_take_few_pages_and_small_ones_none_anew() -> None:
    """Of pages of 4 kB it would be 82,000 and 102,000."""
    out = subprocess.run([sys.executable, "-c", _COUNT], capture_output=True, text=True, check=True).stdout
    assert int(out) < 20_000
