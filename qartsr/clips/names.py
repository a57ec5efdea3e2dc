"""Which file is a clip, by its name; nothing is loaded for that."""

from __future__ import annotations

from pathlib import Path

FILMS = (".mp4", ".m4v", ".mov", ".mkv")
"""What is written."""
CLIPS = (
    *FILMS, ".webm", ".avi", ".mpg", ".mpeg", ".m2v", ".ts", ".mts", ".m2ts", ".vob", ".wmv", ".asf", ".flv", ".f4v",
    ".ogv", ".3gp", ".3g2", ".mxf", ".y4m", ".h264", ".264", ".h265", ".265", ".ivf", ".nut", ".dv",
)  # fmt: skip
"""What is taken for a clip to read."""


def is_clip(path: Path) -> bool:
    """Whether ``path`` is called as a video file is."""
    return path.suffix.lower() in CLIPS


def is_film(path: Path) -> bool:
    """Whether ``path`` is called as a video file that can be written is."""
    return path.suffix.lower() in FILMS
