"""A small data folder of real photographs, and images written for the occasion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qartsr.config.data import DataConfig, PhotographsConfig
from qartsr.data import write_dataset

SMALL = DataConfig(images=PhotographsConfig(train=("coins", "chelsea"), test=("coffee",)))

Painter = Callable[..., Path]


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two training photographs, one test photograph, bicubic."""
    out = tmp_path_factory.mktemp("small") / "data"
    write_dataset(SMALL, 0, out)
    return out


@pytest.fixture()
def paint() -> Painter:
    """Writes a random image: ``paint(path, width, height, seed)``."""

    def write(path: Path, width: int, height: int, seed: int = 0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return write
