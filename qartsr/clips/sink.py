"""A clip to write: segments that are encoded one by one, and joined with the sound of the source into one file.

A segment begins with a key frame and needs no other, so it can be encoded when its frames are there and never again:
work that is interrupted loses no more than the segment at hand, and the file does not show where.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from qartsr.clips.clip import RGB, Clip
from qartsr.clips.source import opened
from qartsr.errors import QartsrError
from qartsr.files import replacing

if TYPE_CHECKING:
    from av import Packet
    from av.container import InputContainer, OutputContainer
    from av.stream import Stream

SEGMENT = 48
"""Frames of a segment, and most between two key frames."""
CRF = 16
"""Of H.264, visually lossless."""
_LONGEST = 16384
_CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
_FORGOTTEN = ("encoder", "major_brand", "minor_version", "compatible_brands", "handler_name", "vendor_id", "rotate")
_COUNTED = ("DURATION", "BPS", "NUMBER_OF_", "_STATISTICS_")
"""Beginnings of what Matroska says of a stream's bytes."""


class Encoding(NamedTuple):
    """How frames become packets."""

    codec: str
    pixels: str
    options: Mapping[str, str]
    container: str


def encoding_of(target: Path, crf: int | None) -> Encoding:
    """H.264 in MP4 and QuickTime files; in Matroska FFV1, which loses nothing, or H.264 where ``crf`` is given."""
    container = _CONTAINERS[target.suffix.lower()]
    if container == "matroska" and crf is None:
        return Encoding("ffv1", "bgr0", {"level": "3", "g": "1", "slicecrc": "1"}, container)
    quality = str(CRF if crf is None else crf)
    options = {"crf": quality, "preset": "medium", "threads": "4", "g": str(SEGMENT)}
    return Encoding("libx264", "yuv420p", options, container)


def demand_writable(clip: Clip, target: Path, encoding: Encoding, scale: int) -> tuple[str, ...]:
    """Raise QartsrError for what ``target`` cannot hold, before the work; returns what will be left out, in words."""
    import av

    longest = scale * max(clip.size)
    if encoding.codec == "libx264" and longest > _LONGEST:
        raise QartsrError(f"H.264 cannot hold {longest} pixels in a row", str(target), "write .mkv without --crf")
    if clip.path.is_dir():
        return ()
    with ExitStack() as stack:
        container, _ = stack.enter_context(opened(clip.path))
        probe = stack.enter_context(av.open(_Nowhere(), "w", format=encoding.container))
        able = probe.supported_codecs
        for stream in container.streams.audio:
            if stream.codec_context.name not in able and stream.codec.canonical_name not in able:
                what = f"cannot hold the sound of {clip.path.name} ({stream.codec.canonical_name})"
                raise QartsrError(what, str(target), "write .mkv, or convert the sound first")
        lost = [stream for stream in container.streams if stream.type not in ("video", "audio", "subtitle")]
        lost += [stream for stream in container.streams.subtitles if not _fits(stream, able)]
    return tuple(f"stream {stream.index} ({stream.type}) is left out" for stream in lost)


class _Nowhere:
    """What is written to it is gone."""

    def write(self, data: bytes) -> int:
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return 0

    def tell(self) -> int:
        return 0


def _fits(stream: Any, able: set[str]) -> bool:
    codec = stream.codec_context
    return codec is not None and (codec.name in able or codec.codec.canonical_name in able)


def write_segment(path: Path, frames: Iterable[RGB], clip: Clip, encoding: Encoding) -> None:
    """Encode ``frames`` (4 H, 4 W, 3), which are numbered from 0 on, atomically to ``path``."""
    import av

    rate = clip.rate.limit_denominator(1001)
    with (
        replacing(path) as temporary,
        av.open(str(temporary), "w", format="nut", options={"fflags": "+bitexact"}) as container,
    ):
        stream: Any = container.add_stream(encoding.codec, rate=rate, options=dict(encoding.options))
        for number, pixels in enumerate(frames):
            if not number:
                _describe(stream, pixels, clip, encoding)
            frame = _coded(pixels, clip, encoding)
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _describe(stream: Any, pixels: RGB, clip: Clip, encoding: Encoding) -> None:
    stream.height, stream.width = pixels.shape[:2]
    stream.pix_fmt = encoding.pixels
    context, look = stream.codec_context, clip.look
    yuv = encoding.pixels == "yuv420p"
    context.color_range = 2 if look.full or not yuv else 1
    context.colorspace = look.matrix if yuv else 0
    context.color_primaries, context.color_trc = look.primaries, look.transfer
    context.sample_aspect_ratio = look.aspect


def _coded(pixels: RGB, clip: Clip, encoding: Encoding) -> Any:
    import av
    from av.video.reformatter import Interpolation

    frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
    if encoding.pixels != "yuv420p":
        return frame.reformat(format=encoding.pixels)
    fine = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP
    matrix = 5 if clip.look.matrix == 6 else clip.look.matrix
    full = 2 if clip.look.full else 1
    made = frame.reformat(
        format="yuv420p", interpolation=fine, dst_colorspace=matrix, src_color_range=2, dst_color_range=full
    )
    made.colorspace, made.color_range = clip.look.matrix, full
    made.color_primaries, made.color_trc = clip.look.primaries, clip.look.transfer
    return made


def join(target: Path, segments: Sequence[Path], clip: Clip, encoding: Encoding, strip: bool) -> None:
    """Write ``target`` atomically: the segments at the clip's times, and sound, subtitles and metadata of the source.

    ``strip`` leaves the metadata out. Memory does not grow with the clip.
    """
    import av

    movie = {"movflags": "+faststart"} if encoding.container in ("mp4", "mov") else {}
    with ExitStack() as stack:
        temporary = stack.enter_context(replacing(target))
        options = {"fflags": "+bitexact", **movie}
        output = stack.enter_context(av.open(str(temporary), "w", format=encoding.container, options=options))
        template = stack.enter_context(av.open(str(segments[0])))
        video = output.add_stream_from_template(template.streams.video[0])
        video.time_base = clip.time_base
        tracks = [_pictures(segments, clip, video)]
        if not clip.path.is_dir():
            source, picture = stack.enter_context(opened(clip.path))
            copies = _copies(source, output)
            if not strip:
                _keep_metadata(source, output, {picture: video, **copies}, whole=not clip.begin and clip.end is None)
            tracks.append(_copied(source, copies, clip))
        for _, _, packet in heapq.merge(*tracks, key=lambda item: item[:2]):
            output.mux(packet)


def _copies(source: InputContainer, output: OutputContainer) -> dict[Any, Any]:
    able = output.supported_codecs
    streams = [*source.streams.audio, *(stream for stream in source.streams.subtitles if _fits(stream, able))]
    return {stream: output.add_stream_from_template(stream) for stream in streams}


def _keep_metadata(
    source: InputContainer, output: OutputContainer, copies: Mapping[Stream, Stream], whole: bool
) -> None:
    output.metadata.update(_said(source.metadata))
    for stream, copy in copies.items():
        copy.metadata.update(_said(stream.metadata))
    if whole and (chapters := source.chapters()):
        output.set_chapters(chapters)


def _said(metadata: Mapping[str, str]) -> dict[str, str]:
    return {
        key: value
        for key, value in metadata.items()
        if key.lower() not in _FORGOTTEN and not key.upper().startswith(_COUNTED)
    }


Timed = tuple[Fraction, int, "Packet[Any]"]
"""When it is decoded, which track it is of, and the packet."""


def _pictures(segments: Sequence[Path], clip: Clip, stream: Stream) -> Iterator[Timed]:
    """Packets in the order of decoding. A frame shown later than others that need it delays the clock of decoding."""
    times, delay = clip.times, max(map(_delay, segments))
    last, done, late = clip.count - 1, 0, round((clip.offset - clip.begin) / clip.time_base)
    for segment in segments:
        begun = done
        packets = list(_packets(segment))
        ranks = {pts: rank for rank, pts in enumerate(sorted(packet.pts or 0 for packet in packets))}
        for packet in packets:
            number = begun + ranks[packet.pts or 0]
            packet.stream, packet.time_base = stream, clip.time_base
            packet.pts, packet.duration = late + times[number], times[number + 1] - times[number]
            early = done - delay
            packet.dts = late + (times[early] if early >= 0 else times[last + early] - times[last])
            done += 1
            yield packet.dts * clip.time_base, 0, packet


def _delay(segment: Path) -> int:
    stamps = [packet.pts or 0 for packet in _packets(segment)]
    ranks = {pts: rank for rank, pts in enumerate(sorted(stamps))}
    return max(number - ranks[pts] for number, pts in enumerate(stamps))


def _packets(segment: Path) -> Iterator[Any]:
    import av

    with av.open(str(segment)) as container:
        yield from (packet for packet in container.demux(video=0) if packet.size)


def _copied(source: InputContainer, copies: Mapping[Any, Any], clip: Clip) -> Iterator[Timed]:
    """Packets of sound and subtitles, moved as the pictures are, those outside of the clip left out."""
    if not copies:
        return
    zero = Fraction(source.start_time or 0, 1_000_000)
    for packet in source.demux(*copies):
        if packet.pts is None or not packet.size:
            continue
        time = packet.pts * packet.time_base - zero
        if 0 < clip.begin > time or (clip.end is not None and time >= clip.end):
            continue
        shift = round((zero + clip.begin) / packet.time_base)
        packet.pts -= shift
        packet.dts = packet.pts if packet.dts is None else packet.dts - shift
        packet.stream = copies[packet.stream]
        yield packet.dts * packet.time_base, 1 + packet.stream.index, packet
