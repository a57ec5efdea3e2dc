"""What one request may take from the others."""

from __future__ import annotations

from typing import NamedTuple

MAX_PIXELS, MAX_WAITING, MAX_BYTES, MAX_SECONDS = 1 << 22, 64, 64 << 20, 600.0
"""Of a request; 4 million pixels in are 67 million out. Requests that may wait. Bytes of a body. Until the answer."""


class Limits(NamedTuple):
    """Of a server."""

    pixels: int = MAX_PIXELS
    """of a request, all its images together"""
    waiting: int = MAX_WAITING
    """requests that wait for their turn"""
    bytes: int = MAX_BYTES
    """of a body"""
    seconds: float = MAX_SECONDS
    """from a request's arrival to its answer"""
