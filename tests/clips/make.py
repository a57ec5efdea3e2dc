"""Small real clips: a window that moves over the repository's photographs, encoded here."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.house.project import ROOT

PHOTOGRAPHS = ("brushes", "cables", "clock")


@cache
def _photograph(name: str) -> Any:
    with Image.open(ROOT / "photographs" / f"{name}.webp") as image:
        return np.asarray(image.convert("RGB").resize((240, 160)))


def moving(count: int, size: tuple[int, int] = (24, 16), cuts: Sequence[int] = ()) -> list[Any]:
    """RGB frames (H, W, 3); a cut changes the photograph."""
    shots = [sum(number >= cut for cut in cuts) for number in range(count)]
    made = []
    for number, shot in enumerate(shots):
        photograph, left, top = _photograph(PHOTOGRAPHS[shot]), 60 + number, 40 + number // 2
        made.append(np.ascontiguousarray(photograph[top : top + size[1], left : left + size[0]]))
    return made


def write(
    path: Path,
    frames: Sequence[Any],
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    look: tuple[int, int, int, int] = (1, 1, 1, 1),
    times: Sequence[int] | None = None,
    sound: str | None = None,
    options: dict[str, str] | None = None,
    rotation: int = 0,
) -> Path:
    """Encode ``frames`` at 25 frames per second, or at ``times`` in ms. ``look``: range, matrix, primaries, curve."""
    import av

    base = Fraction(1, 25) if times is None else Fraction(1, 1000)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.codec_context.time_base = pixels, base
        context = stream.codec_context
        context.color_range, context.colorspace, context.color_primaries, context.color_trc = look
        if rotation:
            stream.set_display_rotation(rotation)
        container.metadata["title"] = "A clip"
        voice: Any = container.add_stream(sound, rate=16000) if sound else None
        if voice:
            voice.metadata["language"] = "eng"
        for number, pixel in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixel, "rgb24").reformat(
                format=pixels, dst_colorspace=5 if look[1] == 6 else 1, dst_color_range=look[0]
            )
            frame.colorspace, frame.color_range = look[1], look[0]
            frame.pts, frame.time_base = number if times is None else times[number], base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if voice:
            _speak(container, voice, len(frames) * 640)
    return path


def _speak(container: Any, voice: Any, samples: int) -> None:
    import av

    for begin in range(0, samples, 1024):
        wave = (np.sin(np.arange(begin, begin + 1024) / 7) * 9000).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(wave, "s16", "mono")
        frame.sample_rate, frame.pts = 16000, begin
        container.mux(voice.encode(frame))
    container.mux(voice.encode(None))


def sound_only(path: Path) -> Path:
    """A file with sound alone."""
    import av

    with av.open(str(path), "w") as container:
        _speak(container, container.add_stream("aac", rate=16000), 16000)
    return path


def pictures(path: Path) -> list[Any]:
    """Decoded frames by FFmpeg's own conversion to RGB."""
    import av

    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def facts(path: Path) -> dict[str, Any]:
    """What a player is told, and the packets of sound."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        base = Fraction(stream.time_base or 1)
        told = {
            "codec": context.name,
            "rate": stream.average_rate,
            "look": (context.color_range, context.colorspace, context.color_primaries, context.color_trc),
            "title": container.metadata.get("title"),
            "aspect": stream.sample_aspect_ratio,
            "times": [round(float(frame.pts * base), 3) for frame in container.decode(stream)],
            "voice": [voice.metadata.get("language") for voice in container.streams.audio],
        }
    with av.open(str(path)) as container:
        heard = [packet for packet in container.demux() if packet.stream.type == "audio" and packet.size]
        told["sound"] = [bytes(packet) for packet in heard]
        told["heard"] = [round(float(packet.pts * packet.time_base), 3) for packet in heard]
    return told
