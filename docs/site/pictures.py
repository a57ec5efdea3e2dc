"""The strips of docs/pictures.md: ``python docs/site/pictures.py BUILD OUT``, BUILD as the pipeline leaves it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from qartsr.evaluate.scenes import open_scenes

SIDE, GAP = 232, 6
SUBJECTS = ("reference/bicubic", "reference/fp", "w4a4", "w3a3", "w2a2")


def window(hr: Image.Image) -> tuple[int, int, int, int]:
    """Where the truth has most detail: the largest variance of luma, on a grid of half windows."""
    luma = np.asarray(hr.convert("L"), float)
    places = [
        (float(luma[top : top + SIDE, left : left + SIDE].var()), left, top)
        for top in range(0, hr.height - SIDE + 1, SIDE // 2)
        for left in range(0, hr.width - SIDE + 1, SIDE // 2)
    ]
    _, left, top = max(places)
    return left, top, left + SIDE, top + SIDE


def main(build: Path, out: Path) -> None:
    """One strip for every test picture: bicubic, FP, W4A4, W3A3, W2A2 and the original, pixel for pixel."""
    out.mkdir(parents=True, exist_ok=True)
    scenes = open_scenes(build / "data")
    for scene in scenes.items:
        hr = scene.hr()
        box = window(hr)
        pictures = [Image.open(build / "evaluated" / name / "images" / f"{scene.name}.png") for name in SUBJECTS]
        strip = Image.new("RGB", (6 * SIDE + 5 * GAP, SIDE), "white")
        for place, picture in enumerate([*pictures, hr]):
            strip.paste(picture.convert("RGB").crop(box), (place * (SIDE + GAP), 0))
        strip.save(out / f"{scene.name}.jpg", quality=90, subsampling=0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
