"""Memory for large arrays in pages of 2 MB, and no giving back of what is used again at once."""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of <malloc.h>


def prefer_large_pages() -> None:
    """Large tensors in large pages, if torch is not loaded yet, and freed memory of up to 32 MB kept for the next.

    By default Linux hands out a network's activations in zeroed pages of 4 kB, and glibc gives them back when they are
    freed: up to half of the processor time of a torch network on a picture of some megapixels. Larger blocks still go
    back, so a process does not stay as large as its largest picture. What the environment says
    (``THP_MEM_ALLOC_ENABLE``) goes first; other C libraries and systems are left as they are. Results do not change.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch asks the kernel for them, from 2 MB on
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 32 << 20)
        mallopt(_TRIM_THRESHOLD, -1)
