"""Seeds and threads: same inputs, same parameters, same machine, same bytes."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from qartsr.config.schema import ComputeConfig
from qartsr.errors import QartsrError


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator that depends on the seed and on what it is for (phase, step), and on nothing else."""
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def prepare(compute: ComputeConfig, threads: int) -> torch.device:
    """Set thread count and determinism; return the device. Raises QartsrError when a GPU is asked for and missing."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    available = torch.cuda.is_available()
    if compute.device.startswith("cuda") and not available:
        raise QartsrError("no CUDA device is available", "compute.device", "set it to auto or cpu")
    name = ("cuda" if available else "cpu") if compute.device == "auto" else compute.device
    return torch.device(name)


def sample(count: int, batch: int, step: int, seed: int, phase: str) -> Tensor:
    """(batch,) indices into ``count`` samples; every sample is seen once per epoch."""
    positions = range(step * batch, (step + 1) * batch)
    return torch.stack(
        [_permutation(count, position // count, seed, phase)[position % count] for position in positions]
    )


def _permutation(count: int, epoch: int, seed: int, phase: str) -> Tensor:
    return torch.randperm(count, generator=generator(seed, phase, "epoch", epoch))
