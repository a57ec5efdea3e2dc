"""A clip to read: what it is, found by looking through it once, and then its frames, one at a time.

A clip is surveyed whole before anything is made of it: what cannot be worked with, damage in the last minute too, is
told before hours of work and not after. That costs one decoding, little beside what is done with each frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qartsr.clips.clip import RGB, Clip, Look, no_frames
from qartsr.clips.cuts import SIDE, FrameDifferences
from qartsr.clips.folder import folder_frames, survey_folder
from qartsr.errors import QartsrError

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7}
"""What FFmpeg calls a matrix of YUV (AVColorSpace), and what its scaler calls it; 5 and 6 are both Rec. 601."""
_REC709, _REC601, _UNKNOWN = 1, 6, 2
_BT2020, _CURVES = 9, {16: "PQ", 18: "HLG"}
_FULL = 2
"""AVCOL_RANGE_JPEG: 0 to 255."""


def survey(path: Path, start: Fraction | None = None, end: Fraction | None = None, fps: Fraction | None = None) -> Clip:
    """Look through the video file, or the folder of frames, ``path``.

    Parameters
    ----------
    start, end: seconds from the clip's beginning; frames that begin in [start, end) are of the clip. None: no limit.
    fps: frames per second, for a folder and for a file without time stamps, and for none else.

    Raises QartsrError for what is broken, has no picture, is HDR or deeper than 8 bits, interlaced or without time
    stamps, and for a range without frames.
    """
    if start is not None and end is not None and end <= start:
        raise QartsrError("the range ends before it begins", str(path), "choose --to after --from")
    return survey_folder(path, start, end, fps) if path.is_dir() else _survey_file(path, start, end, fps)


def frames(clip: Clip, begin: int = 0) -> Iterator[RGB]:
    """Upright RGB frames from number ``begin`` on, (H, W, 3); a frame's bytes do not depend on ``begin``."""
    made = folder_frames(clip) if clip.path.is_dir() else _file_frames(clip)
    for number, make in enumerate(made):
        if number == clip.count:
            return
        if number >= begin:
            yield make()


def _survey_file(path: Path, start: Fraction | None, end: Fraction | None, fps: Fraction | None) -> Clip:
    differences, stamps = FrameDifferences(), list[int]()
    with opened(path) as (container, stream):
        beginning = Fraction(container.start_time or 0, 1_000_000)
        base = 1 / fps if fps else Fraction(stream.time_base or 1)
        first_frame: VideoFrame | None = None
        last = 0
        for number, frame in enumerate(_decoded(path, container, stream, start)):
            stamp = _stamp(path, frame, number, fps)
            time = stamp * base - (0 if fps else beginning)
            if start is not None and time < start:
                continue
            if end is not None and time >= end:
                break
            if stamps and stamp <= stamps[-1]:
                do = "mend the file, for example with `ffmpeg -i IN -c copy OUT`"
                raise QartsrError(f"its time stamps go back after {float(time):.2f} s", str(path), do)
            _demand_usable(path, frame, float(time))
            first_frame = first_frame or frame
            _demand_same_size(path, frame, first_frame, float(time))
            stamps.append(stamp)
            last = 1 if fps else int(frame.duration or 0)
            small = frame.reformat(width=SIDE, height=SIDE, format="gray", interpolation="AREA")
            differences.add(small.to_ndarray().astype(np.uint8))
        if first_frame is None:
            raise no_frames(path)
        last = last or _usual_step(stamps, stream, base)
        times = tuple(stamp - stamps[0] for stamp in (*stamps, stamps[-1] + last))
        offset = stamps[0] * base - (0 if fps else beginning)
        size = _upright_size(first_frame)
        look = _look(first_frame, stream)
        begin = Fraction(0) if start is None else offset
        return Clip(path, size, base, times, offset, begin, end, differences.cuts(), look, None if fps else stamps[0])


def _stamp(path: Path, frame: VideoFrame, number: int, fps: Fraction | None) -> int:
    if fps:
        if frame.pts is not None and frame.dts is not None:
            do = "leave out --fps, which is for folders and files without time stamps"
            raise QartsrError("has time stamps of its own", str(path), do)
        return number
    if frame.pts is None:
        do = "give --fps if its frames follow at a constant rate"
        raise QartsrError("its frames have no time stamps, so nobody can say how long each is shown", str(path), do)
    return frame.pts


def _usual_step(stamps: list[int], stream: VideoStream, base: Fraction) -> int:
    if len(stamps) > 1:
        return int(np.median([after - before for before, after in pairwise(stamps)]))
    return max(1, round(1 / ((stream.average_rate or 25) * base)))


def _file_frames(clip: Clip) -> Iterator[Any]:
    """A function per frame that makes it RGB, so that what is skipped costs its decoding only."""
    with opened(clip.path) as (container, stream):
        wanted = clip.first is None
        skipped = round(clip.offset / clip.time_base) if clip.first is None else 0
        start = clip.begin if clip.first is not None else None
        for number, frame in enumerate(_decoded(clip.path, container, stream, start)):
            wanted = wanted or frame.pts == clip.first
            if wanted and number >= skipped:
                yield lambda frame=frame: _rgb(frame, clip.look)


def _decoded(
    path: Path, container: InputContainer, stream: VideoStream, start: Fraction | None
) -> Iterator[VideoFrame]:
    """Frames in the order in which they are shown, from the key frame before ``start`` on."""
    import av

    if start:  # what lies before the first key frame may be missed, and is not damaged for that
        container.seek(int(start * 1_000_000) + (container.start_time or 0), backward=True)
    else:
        stream.codec_context.options = {"err_detect": "+explode"}  # to hide damage is for players
    packets, last = 0, Fraction(0)
    try:
        for packet in container.demux():
            if packet.pts is not None:
                last = max(last, (packet.pts + (packet.duration or 0)) * Fraction(packet.time_base))
            if packet.stream is not stream:
                continue
            packets += packet.size > 0
            for frame in stream.decode(packet):
                if frame.is_corrupt and not start:
                    raise _broken(path, f"a frame at {frame.time or 0:.2f} s is damaged")
                yield frame
    except av.error.FFmpegError as error:
        raise _broken(path, f"after {float(last):.2f} s: {(error.strerror or 'unreadable').lower()}") from error
    if not start and packets < stream.frames:
        raise _broken(path, f"it ends after {packets} of {stream.frames} frames")
    length = Fraction(container.duration or 0, 1_000_000)
    if "matroska" in container.format.name and last + 1 < length:
        raise _broken(path, f"it ends after {float(last):.2f} of {float(length):.2f} s")


def _broken(path: Path, why: str) -> QartsrError:
    return QartsrError(f"cannot be read as a clip ({why})", str(path), "check that the file is whole")


@contextmanager
def opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The file and the stream of its moving picture. Raises QartsrError for a file that has none."""
    import av

    try:
        container = av.open(str(path))
    except av.error.FFmpegError as error:
        raise _broken(path, (error.strerror or "unreadable").lower()) from error
    with container:
        videos = [stream for stream in container.streams.video if not stream.disposition & _COVER]
        if not videos:
            what = "has sound but no moving picture" if container.streams.audio else "has no moving picture"
            raise QartsrError(what, str(path), "name a video file")
        stream = videos[0]
        if not stream.width or not stream.height or stream.codec_context is None:
            raise _broken(path, "no picture can be found in it")
        stream.thread_type = "AUTO"
        yield container, stream


_COVER = 0x0400
"""AV_DISPOSITION_ATTACHED_PIC: the cover of a song."""


def _demand_usable(path: Path, frame: VideoFrame, time: float) -> None:
    """8 bits, standard range, whole frames."""
    do = "convert it to 8-bit SDR first (ffmpeg: zscale, tonemap, format=yuv420p)"
    curve = _CURVES.get(int(frame.color_trc))
    if curve or frame.colorspace in (_BT2020, _BT2020 + 1) or frame.color_primaries == _BT2020:
        raise QartsrError(f"is HDR video ({curve or 'Rec. 2020'})", str(path), do)
    deep = max(component.bits for component in frame.format.components)
    if deep > 8:
        raise QartsrError(f"has {deep} bits per channel ({frame.format.name})", str(path), do)
    if frame.interlaced_frame:
        do = "deinterlace it first (ffmpeg -i IN -vf bwdif OUT)"
        raise QartsrError(f"is interlaced (the frame at {time:.2f} s)", str(path), do)


def _demand_same_size(path: Path, frame: VideoFrame, first: VideoFrame, time: float) -> None:
    if (frame.width, frame.height) != (first.width, first.height):
        what = f"changes from {first.width}x{first.height} to {frame.width}x{frame.height} at {time:.2f} s"
        raise QartsrError(what, str(path), "cut it there, and give one piece at a time (--from, --to)")


def _upright_size(frame: VideoFrame) -> tuple[int, int]:
    return (frame.height, frame.width) if frame.rotation % 180 else (frame.width, frame.height)


def _look(frame: VideoFrame, stream: VideoStream) -> Look:
    """As the file says; what it leaves open as players take it: Rec. 601 up to 576 lines, else Rec. 709."""
    guess = _REC601 if frame.height <= 576 else _REC709
    rgb = frame.format.is_rgb or frame.format.has_palette
    matrix = int(frame.colorspace) if frame.colorspace in _MATRICES and not rgb else (_REC709 if rgb else guess)
    full = frame.color_range == _FULL or frame.format.name.startswith("yuvj")
    aspect = Fraction(stream.sample_aspect_ratio or 1) or Fraction(1)
    upright = 1 / aspect if frame.rotation % 180 else aspect
    return Look(full and not rgb, matrix, int(frame.color_primaries), int(frame.color_trc), upright)


def _rgb(frame: VideoFrame, look: Look) -> RGB:
    from av.video.reformatter import Interpolation

    fine = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
    given = {}
    if not frame.format.is_rgb and not frame.format.has_palette:
        given = {"src_colorspace": _MATRICES[look.matrix], "src_color_range": _FULL if look.full else 1}
    made = frame.reformat(format="rgb24", interpolation=fine, dst_color_range=_FULL, **given)
    return np.ascontiguousarray(np.rot90(made.to_ndarray(), frame.rotation // 90))
