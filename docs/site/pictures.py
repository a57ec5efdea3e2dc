"""docs/pictures.md and its strips: ``python docs/site/pictures.py BUILD DOCS``, BUILD as the pipeline leaves it."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from qartsr.evaluate.scenes import open_scenes

SIDE, GAP = 232, 6
SUBJECTS = ("reference/bicubic", "reference/fp", "w4a4", "w3a3", "w2a2")
_HEAD = """# Pictures at every bit-width

From left to right bicubic, full precision, W4A4, W3A3, W2A2 and the original: of every test picture of `make demo` the
window with most detail, pixel for pixel (JPEG, quality 90). Below each, PSNR of the whole picture on luma and on RGB,
in dB, from the run's `build/evaluated`. None of these was trained on. Page and strips are written by
`python docs/site/pictures.py build docs` after a run; credits: [data](data.md).
"""


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


def figures(build: Path, metric: str) -> dict[str, list[str]]:
    """Of every picture, in the order of the subjects, two decimals."""
    found: dict[str, list[str]] = {}
    for name in SUBJECTS:
        with (build / "evaluated" / name / "per_image.csv").open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                found.setdefault(row["image"], []).append(f"{float(row[metric]):.2f}")
    return found


def main(build: Path, docs: Path) -> None:
    """One strip for every test picture: bicubic, FP, W4A4, W3A3, W2A2 and the original, pixel for pixel."""
    out, page = docs / "images" / "pictures", [_HEAD]
    out.mkdir(parents=True, exist_ok=True)
    luma, rgb = figures(build, "psnr"), figures(build, "psnr_rgb")
    scenes = open_scenes(build / "data")
    for scene in scenes.items:
        hr = scene.hr()
        box = window(hr)
        pictures = [Image.open(build / "evaluated" / name / "images" / f"{scene.name}.png") for name in SUBJECTS]
        strip = Image.new("RGB", (6 * SIDE + 5 * GAP, SIDE), "white")
        for place, picture in enumerate([*pictures, hr]):
            strip.paste(picture.convert("RGB").crop(box), (place * (SIDE + GAP), 0))
        strip.save(out / f"{scene.name}.jpg", quality=90, subsampling=0)
        alt = f"{scene.name}: bicubic, full precision, W4A4, W3A3, W2A2, original"
        page.append(f"## {scene.name}\n\n![{alt}](images/pictures/{scene.name}.jpg)\n")
        rows = [f"| {kind} | {' | '.join(of[scene.name])} |" for kind, of in (("luma", luma), ("RGB", rgb))]
        page.append("\n".join(["| dB | bicubic | FP | W4A4 | W3A3 | W2A2 |", "|---|--:|--:|--:|--:|--:|", *rows, ""]))
    (docs / "pictures.md").write_text("\n".join(page), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
