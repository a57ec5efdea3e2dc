"""What a step of backbone training sees of its batch: (hr, lq), each float (n, 3, crop, crop) in [-1, 1]."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

import torch
from torch import Tensor

from qartsr.config.data import BicubicConfig, DegradationConfig
from qartsr.data import Pair, Stream, crop_batch, load_pairs
from qartsr.data.clips import Motion, Scenes, moving_clips
from qartsr.data.degradation import degrade
from qartsr.data.pairs import enlarged, to_unit
from qartsr.training.determinism import generator
from qartsr.training.distributed import Share

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


class Prefetcher(Generic[Key, Item]):
    """``make(key)`` of what is asked for now, and meanwhile of what will be. With 0 threads: when asked only."""

    def __init__(self, make: Callable[[Key], Item], threads: int) -> None:
        self._make = make
        self._pool = ThreadPoolExecutor(threads, "qartsr-loader") if threads else None
        self._begun: dict[Key, Future[Item]] = {}

    def __enter__(self) -> Prefetcher[Key, Item]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def take(self, now: Sequence[Key], later: Sequence[Key]) -> list[Item]:
        """The items of ``now``, in order; those of ``later`` are begun."""
        if self._pool is None:
            return [self._make(key) for key in now]
        for key in [*now, *later]:
            if key not in self._begun:
                self._begun[key] = self._pool.submit(self._make, key)
        return [self._begun.pop(key).result() for key in now]


Batches = Callable[[Share], tuple[Tensor, Tensor]]
Source = Callable[[str], AbstractContextManager[Batches]]
"""Batches of the run with this title: other titles, other dice."""


def source(data: Path, degradation: DegradationConfig, seed: int, loaders: int, frames: int = 1) -> Source:
    """Batches of a data folder's train split. Bicubic: images held in memory. Else: read and degraded one by one.

    For a model of clips, ``frames`` 2, :func:`moving`: bicubic whatever the degradation.
    """
    if frames > 1:
        scenes = Scenes(load_pairs(data, "train"))
        return lambda title: nullcontext(moving(scenes, seed, title))
    if isinstance(degradation, BicubicConfig):
        pairs = load_pairs(data, "train")
        return lambda title: nullcontext(cropped(pairs, seed, title))
    stream = Stream(data, degradation)
    return lambda title: degraded(stream, seed, title, loaders)


def calibration(source: Source, crop: int, device: torch.device) -> list[Tensor]:
    """Four batches of network inputs, (8, 3, crop, crop) in [-1, 1], for the ranges of the probe's activations."""
    with source("probe") as batch:
        return [batch(Share(number, 8, crop, 0, 8))[1].to(device) for number in range(4)]


def cropped(pairs: Sequence[Pair], seed: int, title: str) -> Batches:
    """Textured crops of whole images and of their LR; see :func:`qartsr.data.crop_batch`."""

    def batch(share: Share) -> tuple[Tensor, Tensor]:
        whole = crop_batch(list(pairs), share.batch, share.crop, generator(seed, title, share.number))
        hr, lq = (images[share.start : share.stop] for images in whole)
        return hr, lq

    return batch


MOTION = Motion(2, 12.0, 0.5, 0.03, 0.1)
"""Of the clips that a model of clips is retrained on."""


def moving(scenes: Scenes, seed: int, title: str) -> Batches:
    """Pairs of frames of moving clips: lq (n, 6, crop, crop) has the frame before first, hr is the last one's."""

    def batch(share: Share) -> tuple[Tensor, Tensor]:
        dice = generator(seed, title, share.number)
        clips = moving_clips(scenes, share.batch, share.crop, MOTION, dice)
        part = slice(share.start, share.stop)
        return clips.hr[part, 1], clips.lq[part].flatten(1, 2)

    return batch


def mixed(pairs: Sequence[Pair], other: DegradationConfig, share: float, seed: int, title: str) -> Batches:
    """As :func:`cropped`, but a ``share`` of the samples has its LR made anew from the HR crop by ``other``."""
    plain = cropped(pairs, seed, title)

    def batch(part: Share) -> tuple[Tensor, Tensor]:
        hr, lq = plain(part)
        for index in range(part.start, part.stop):
            dice = generator(seed, title, part.number, index, "mixed")
            if float(torch.rand((), generator=dice)) < share:
                crop = ((hr[index - part.start] + 1) * 127.5).round().to(torch.uint8)
                lq[index - part.start] = to_unit(enlarged(degrade(crop, other, dice)))
        return hr, lq

    return batch


@contextmanager
def degraded(stream: Stream, seed: int, title: str, loaders: int) -> Iterator[Batches]:
    """Crops degraded one by one, each with dice of its own; made ahead by ``loaders`` threads."""

    def sample(share: Share) -> tuple[Tensor, Tensor]:
        return stream.sample(share.crop, generator(seed, title, share.number, share.start))

    def batch(share: Share) -> tuple[Tensor, Tensor]:
        singles = [share._replace(start=index, stop=index + 1) for index in range(share.start, share.stop)]
        later = [single._replace(number=share.number + 1) for single in singles]
        hr, lq = zip(*ahead.take(singles, later), strict=True)
        return to_unit(torch.stack(hr)), to_unit(torch.stack(lq))

    with Prefetcher(sample, loaders) as ahead:
        yield batch
