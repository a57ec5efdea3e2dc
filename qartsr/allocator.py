"""Memory of programs: large arrays in pages of 2 MB, freed blocks kept for the next, garbage looked for more rarely."""

from __future__ import annotations

import ctypes
import gc
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of <malloc.h>
_KEPT, _SINGLE = 1 << 30, 32 << 20


def prefer_large_pages() -> None:
    """Large tensors in large pages, if torch is not loaded yet, and freed memory kept for the next, on Linux.

    By default Linux hands out a network's activations in zeroed pages of 4 kB, and glibc gives them back when they are
    freed: up to half of the processor time of a torch network on a picture of some megapixels (docs/log.md). Blocks of
    more than 32 MB still go back, and of the rest what exceeds 1 GB at the heap's end. What the environment says
    (``THP_MEM_ALLOC_ENABLE``) goes first; other C libraries and systems are left as they are. Results do not change.
    """
    if sys.platform != "linux":
        return
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch asks the kernel for them, from 2 MB on
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _SINGLE)
        mallopt(_TRIM_THRESHOLD, _KEPT)


def collect_rarely() -> None:
    """Look for garbage in cycles after 10,000 new objects instead of 700.

    Torch and its friends are a million objects that stay; looked through again and again while they load, they take
    some 8 % of a command's start (docs/log.md). What a program makes later is mostly freed without the collector.
    """
    gc.set_threshold(10_000, 20, 20)
