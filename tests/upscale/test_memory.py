"""Peak memory is that of a tile: nothing float grows with the image but a band of a tile's height."""

from __future__ import annotations

import gc
import subprocess
import sys
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from qartsr.upscale import upscale_image
from tests.packing.tiny import tiny_model
from tests.upscale.test_tiles import Normalising

TILE, OVERLAP, WIDTH = 64, 16, 24


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation makes, in elements, by its dtype."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[torch.dtype, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.seen[tensor.dtype] = max(self.seen.get(tensor.dtype, 0), tensor.numel())
        return result


def picture(height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, WIDTH, 3)).astype(np.uint8))


def largest(kind: str, height: int) -> dict[torch.dtype, int]:
    with Largest() as recorded:
        upscale_image(tiny_model(kind), picture(height), TILE, OVERLAP)
    return recorded.seen


@pytest.mark.parametrize("kind", ["none", "adain", "wavelet"])
def test_no_float_tensor_grows_with_the_image(kind: str) -> None:
    small, large = largest(kind, 48), largest(kind, 96)
    assert large[torch.float32] == small[torch.float32]
    assert large[torch.float64] <= max(small[torch.float64], 4 * 96)  # weights along one axis
    pixels = 3 * 4 * 4 * 96 * WIDTH
    assert max(count for dtype, count in large.items() if not dtype.is_floating_point) < pixels // 4


@pytest.mark.parametrize(("kind", "bytes_per_pixel"), [("none", 8), ("wavelet", 8), ("adain", 14)])
def test_no_float_array_grows_with_the_image(kind: str, bytes_per_pixel: int) -> None:
    """Peak of NumPy's arrays by pixel of the output: 3 bytes an image of 8 bits has, 12 one in single precision.

    The network's own are tensors, so a norm that all tiles share will do.
    """
    tall, taller = 160, 320
    growth = (_arrays(kind, taller) - _arrays(kind, tall)) / (4 * 4 * (taller - tall) * WIDTH)
    assert 3 <= growth < bytes_per_pixel


def _arrays(kind: str, height: int) -> int:
    image, model = picture(height), Normalising(kind, nn.GroupNorm(1, 3))
    upscale_image(model, picture(16), TILE, OVERLAP)  # what the first picture imports is not counted
    gc.collect()
    tracemalloc.start()
    try:
        upscale_image(model, image, TILE, OVERLAP)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "bytes_per_pixel"), [("none", 12), ("wavelet", 12), ("adain", 18)])
def test_8k_by_8k(kind: str, bytes_per_pixel: int) -> None:
    """Above what a small image needs: the process's peak, over the 67 million pixels of the output."""
    small, large = _peak(kind, 64), _peak(kind, 2048)
    assert (large - small) / 8192**2 < bytes_per_pixel


def _peak(kind: str, side: int) -> int:
    """Peak memory in bytes of a process that upscales an image of this side through a network that does nothing."""
    code = f"""
import resource
import numpy as np, torch
from PIL import Image
from qartsr.upscale import upscale_image
torch.set_num_threads(1)
class Nothing(torch.nn.Module):
    multiple, factor, align, context = 16, 8, {kind!r}, torch.zeros(())
    def forward(self, lq):
        return lq
image = Image.fromarray(np.random.default_rng(0).integers(0, 256, ({side}, {side}, 3)).astype(np.uint8))
result = upscale_image(Nothing(), image)
assert result.size == ({side * 4}, {side * 4})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return int(result.stdout)
