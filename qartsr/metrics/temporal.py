"""Flicker: what changes between frames beyond what moved.

E*_warp as QuantVSR's code computes it (after Lai et al., 2018): ``ewarp`` by the flow of RAFT (2003.12039), whose
weights are to be fetched, and with nothing to fetch ``ewarp_tvl1`` by that of TV-L1 (Zach et al., 2007), another
number, which no published one compares with. It needs no ground truth, and blur lowers it: read it beside PSNR only.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from qartsr.errors import QartsrError
from qartsr.metrics.weights import RAFT, availability, kept

Frame = np.ndarray[Any, np.dtype[np.float32]]
"""(H, W, 3) from 0 to 1"""
Flow = np.ndarray[Any, np.dtype[np.float32]]
"""(2, H, W): rows, columns, from a frame's pixels to the same in another"""


Motion = Callable[[Frame, Frame], Flow]
"""(from, to) -> the flow between two frames"""
_UPDATES = 20


def ewarp(frames: Sequence[Frame], motion: Motion | None = None) -> float:
    """1000 times the mean over neighbours of the squared warping error per pixel kept (three channels summed).

    As published: frames are halved, the flow is RAFT's between them (``motion``; default: :func:`raft` on the CPU).
    Raises ValueError for fewer than two frames, and for frames of less than 256 pixels, which RAFT does not take.
    """
    return _ewarp(frames, frames, motion or raft())


def ewarp_tvl1(frames: Sequence[Frame], guide: Sequence[Frame] | None = None) -> float:
    """The same by TV-L1's flow.

    Parameters
    ----------
    guide: frames whose flow is taken, such as the originals, so that models are compared on one flow (default: the
        frames themselves). They are halved as well.

    Raises ValueError for fewer than two frames.
    """
    return _ewarp(frames, guide or frames, _tvl1)


def _ewarp(frames: Sequence[Frame], guide: Sequence[Frame], motion: Motion) -> float:
    if len(frames) < 2:
        raise ValueError("a warping error needs two frames")
    halves, guides = [halved(frame) for frame in frames], [halved(frame) for frame in guide]
    errors = []
    for number in range(len(halves) - 1):
        forward, back = motion(guides[number], guides[number + 1]), motion(guides[number + 1], guides[number])
        errors.append(warping_error(halves[number], halves[number + 1], forward, back))
    return 1000 * float(np.mean(errors))


def raft(device: torch.device | str = "cpu") -> Motion:
    """The flow of torchvision's RAFT with the weights "things" of its authors, as QuantVSR's code takes it: 20 updates.

    Raises ValueError where the weights are not here, QartsrError where they are damaged.
    """
    available, reason = availability("ewarp")
    if not available:
        raise ValueError(f"it {reason}")
    from torchvision.models.optical_flow import raft_large

    with torch.random.fork_rng(devices=[]):
        network = raft_large(weights=None, progress=False)
    try:
        network.load_state_dict(torch.load(kept(RAFT), map_location="cpu", weights_only=True))
    except Exception as error:  # unpickling damaged bytes may raise anything
        do = "delete it and run `qartsr fetch-metric-weights ewarp`"
        raise QartsrError(f"is damaged ({type(error).__name__})", str(kept(RAFT)), do) from error
    network = network.to(device).eval()

    @torch.inference_mode()
    def motion(first: Frame, second: Frame) -> Flow:
        height, width = first.shape[:2]
        pair = [torch.from_numpy(frame).to(device).permute(2, 0, 1)[None] * 2 - 1 for frame in (first, second)]
        down, right = -height % 8, -width % 8
        around = (right // 2, right - right // 2, down // 2, down - down // 2)
        padded = [torch.nn.functional.pad(frame, around, mode="replicate") for frame in pair]
        found = network(*padded, num_flow_updates=_UPDATES)[-1][0]
        inside = found[:, around[2] : around[2] + height, around[0] : around[0] + width]
        rows_columns: Flow = inside.flip(0).cpu().numpy()  # torchvision's are columns, rows
        return rows_columns

    return motion


def psnr_neighbours(frames: Sequence[Frame]) -> float:
    """Mean PSNR (dB, RGB, at most 80) of every frame to the one before: how alike neighbours are, motion included.

    Raises ValueError for fewer than two frames.
    """
    if len(frames) < 2:
        raise ValueError("neighbours need two frames")
    pairs = itertools.pairwise(frames)
    return float(np.mean([min(80.0, -10 * np.log10(max(float(np.square(a - b).mean()), 1e-12))) for a, b in pairs]))


def warping_error(first: Frame, second: Frame, forward: Flow, back: Flow) -> float:
    """Squared difference of ``first`` and the warped ``second``, summed over channels, by the pixels kept.

    ``forward`` leads from ``first`` to ``second``. Left out is what is occluded,
    |f + b'|^2 > 0.01 (|f|^2 + |b'|^2) + 0.5 with b' the flow back, warped, the edges of motion,
    |grad f|^2 > 0.01 |f|^2 + 0.002, and what leaves the frame.
    0 when nothing is kept.
    """
    warped, inside = _warp(second, forward)
    returned, _ = _warp(np.moveaxis(back, 0, 2), forward)
    away = np.moveaxis(returned, 2, 0)
    occluded = _square(forward + away) > 0.01 * (_square(forward) + _square(away)) + 0.5
    gradient = sum(np.square(part) for axis in forward for part in np.gradient(axis))
    kept = inside & ~occluded & ~(gradient > 0.01 * _square(forward) + 0.002)
    difference = np.square(warped - first).sum(2)
    return float(difference[kept].sum() / kept.sum()) if kept.any() else 0.0


def halved(frame: Frame) -> Frame:
    """Means of 2 x 2 pixels; an odd last row or column is left out."""
    height, width = (side // 2 * 2 for side in frame.shape[:2])
    even = frame[:height, :width].astype(np.float32)
    mean: Frame = even.reshape(height // 2, 2, width // 2, 2, -1).mean((1, 3))
    return mean


def _square(flow: Flow) -> Any:
    return np.square(flow).sum(0)


def _tvl1(first: Frame, second: Frame) -> Flow:
    from skimage.registration import optical_flow_tvl1

    grey = [frame @ np.array([0.299, 0.587, 0.114], np.float32) for frame in (first, second)]
    flow: Any = optical_flow_tvl1
    return np.asarray(flow(grey[0], grey[1]), np.float32)


def _warp(image: Any, flow: Flow) -> tuple[Any, Any]:
    """(H, W, C) seen from where ``flow`` leads, bilinear, and where that is inside."""
    from scipy.ndimage import map_coordinates

    height, width = image.shape[:2]
    places = np.mgrid[:height, :width].astype(np.float32) + flow
    inside = (places >= 0).all(0) & (places[0] <= height - 1) & (places[1] <= width - 1)
    channels = [map_coordinates(channel, places, order=1, mode="nearest") for channel in np.moveaxis(image, 2, 0)]
    return np.stack(channels, 2), inside
