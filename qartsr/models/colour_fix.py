"""Colour fix of a restored image against the upsampled low-resolution image (OSEDiff, StableSR).

Images are (B, 3, H, W) in [-1, 1]; both fixes are differentiable and commute with the affine map to [0, 1],
AdaIN up to its epsilon, which is stated for [0, 1] and scaled here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 5
_KERNEL = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16


def align(kind: str, image: Tensor, lq: Tensor) -> Tensor:
    """Give ``image`` the colours of ``lq`` (same shape). ``kind``: none, adain or wavelet; ValueError otherwise."""
    return _FIXES[kind](image, lq)


def _none(image: Tensor, lq: Tensor) -> Tensor:
    return image


def _adain(image: Tensor, lq: Tensor) -> Tensor:
    """Per-channel mean and standard deviation of ``lq`` (unbiased variance + 1e-5 on the [0, 1] scale)."""
    mean, std = _moments(image)
    target_mean, target_std = _moments(lq)
    return (image - mean) / std * target_std + target_mean


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    epsilon = 4e-5  # 1e-5 on [0, 1] is 4e-5 on [-1, 1]
    return x.mean((2, 3), keepdim=True), (x.var((2, 3), keepdim=True) + epsilon).sqrt()


def _wavelet(image: Tensor, lq: Tensor) -> Tensor:
    """High frequencies of ``image``, low frequencies of ``lq``: blurring is linear, so one pass over the difference."""
    return image + low_frequencies(lq - image)


def low_frequencies(x: Tensor) -> Tensor:
    """Five blurs of ``x`` (B, C, H, W) with radius 1, 2, 4, 8, 16."""
    for level in range(LEVELS):
        x = blur(x, 2**level)
    return x


def blur(x: Tensor, radius: int) -> Tensor:
    """An a-trous blur of ``x`` (B, C, H, W): (1, 2, 1) / 4 along both axes, ``radius`` apart, borders repeated."""
    kernel = _KERNEL.to(x).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(x, (radius,) * 4, mode="replicate"), kernel, groups=x.shape[1], dilation=radius)


_FIXES = {"none": _none, "adain": _adain, "wavelet": _wavelet}
