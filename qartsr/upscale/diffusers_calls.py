"""What diffusers' users expect of a pipeline: batches of values from 0 to 1, a generator, a callback."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from qartsr.errors import QartsrError
from qartsr.images import Picture

if TYPE_CHECKING:
    import torch

Floats = np.ndarray[Any, np.dtype[np.float32]]


class More(TypedDict, total=False):
    """Arguments that diffusers has for every pipeline."""

    generator: torch.Generator | None
    callback_on_step_end: Callable[..., object] | None


def both(pipe: Any, report: Callable[[int, int], None], callback: Callable[..., object]) -> Callable[[int, int], None]:
    """``report``, then ``callback`` with the pipeline, the run, the timestep and {}."""

    def told(done: int, total: int) -> None:
        report(done, total)
        callback(pipe, done - 1, getattr(pipe.model, "timestep", None), {})

    return told


def drawn(generator: torch.Generator) -> int:
    """A seed."""
    import torch

    return int(torch.randint(1 << 62, (1,), generator=generator, device=generator.device))


def as_array(pictures: Sequence[Picture]) -> Floats:
    """float32 (B, H, W, C), C as in the mode: L 1, LA 2, RGB 3, RGBA 4; 16 bits are used where there are any.

    Raises QartsrError for pictures of several sizes or modes, which make no array, and for none.
    """
    kinds = {(picture.size, picture.mode) for picture in pictures}
    if len(kinds) != 1:
        what = "pictures of several sizes or modes make no array" if kinds else "no picture makes no array"
        raise QartsrError(what, "output_type", "ask for 'pil', or for one after the other")
    return np.stack([_floats(picture) for picture in pictures])


def _floats(picture: Picture) -> Floats:
    wide = picture.still_wide()
    values = np.asarray(picture) / np.float32(255) if wide is None else wide / np.float32(65535)
    return (values[..., None] if values.ndim == 2 else values).astype(np.float32)
