"""PSNR and SSIM on luma, written out in float64 numpy: slow, obvious, independent of pyiqa."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

Array = NDArray[np.float64]


def luma(image: NDArray[np.uint8]) -> Array:
    """(H, W, 3) 8-bit RGB -> BT.601 studio-swing Y in [16/255, 235/255]."""
    red, green, blue = np.moveaxis(image.astype(np.float64) / 255, -1, 0)
    return (65.481 * red + 128.553 * green + 24.966 * blue + 16) / 255


def psnr(image: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    """10 log10(1 / (mse + 1e-8))."""
    return float(10 * np.log10(1 / (np.mean((luma(image) - luma(reference)) ** 2) + 1e-8)))


def psnr_rgb(image: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    """The same over the three channels of 0 to 1."""
    error = (image.astype(np.float64) - reference.astype(np.float64)) / 255
    return float(10 * np.log10(1 / (np.mean(error**2) + 1e-8)))


def ssim(image: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    """Wang et al. 2004: 11 x 11 Gaussian of sigma 1.5, valid region, rounded luma in [0, 255]."""
    x, y = (np.round(luma(picture) * 255) for picture in (image, reference))
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def mean(values: Array) -> Array:
        height, width = values.shape[0] - 10, values.shape[1] - 10
        total = np.zeros((height, width))
        for i in range(11):
            for j in range(11):
                total += window[i, j] * values[i : i + height, j : j + width]
        return total

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mx, my = mean(x), mean(y)
    vx, vy, cxy = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    contrast = np.maximum((2 * cxy + c2) / (vx + vy + c2), 0)
    return float(np.mean((2 * mx * my + c1) / (mx**2 + my**2 + c1) * contrast))


def drealsr(root: Path) -> Path:
    """OSEDiff's published outputs with their figures; skips where they are absent."""
    folder = Path(os.environ.get("QARTSR_DATA", root.parent / "shared" / "data")) / "drealsr"
    if not folder.is_dir():
        pytest.skip(f"the published OSEDiff outputs are not at {folder}; set QARTSR_DATA to the folder above drealsr")
    return folder
