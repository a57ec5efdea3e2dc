"""Rows of the picture of crops: one test image of every set, restored by every method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors.numpy import load_file

Row = tuple[str, list[NDArray[Any]]]


def crop_rows(compared: Path, samples: Path, sets: Sequence[str], methods: Sequence[str], bits: str) -> list[Row]:
    """(name, pictures (H, W, 3)): network input, every method, HR. The first image of each set, of the first seed."""
    restored = {method: load_file(compared / f"{method}-{bits}" / "images.safetensors") for method in methods}
    rows: list[Row] = []
    for name in sets:
        windows = load_file(samples / "sets" / f"{name}.safetensors")
        first = min(key.partition("/")[0] for key in windows)
        pictures = [windows[f"{first}/l"], *(restored[m][name][0] for m in methods), windows[f"{first}/h"]]
        rows.append((name, [picture.transpose(1, 2, 0) for picture in pictures]))
    return rows
