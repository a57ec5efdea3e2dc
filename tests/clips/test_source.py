"""What is found out about a clip before any work, and what is refused in one sentence."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("av", reason="clips need the extra [video]")

from qartsr.clips.cuts import find_cuts
from qartsr.clips.folder import natural
from qartsr.clips.source import frames, survey
from qartsr.errors import QartsrError
from qartsr.files import read_json, sha256_file
from tests.clips.make import moving, pictures, sound_only, write
from tests.house.project import ROOT


def refused(path: Path, *words: str, **options: Any) -> None:
    with pytest.raises(QartsrError) as told:
        survey(path, **options)
    sentence = str(told.value)
    assert sentence.startswith(f"{path}: ") and sentence.endswith(".") and "\n" not in sentence
    assert all(word in sentence for word in words), sentence


def test_high_dynamic_range(tmp_path: Path) -> None:
    refused(write(tmp_path / "pq.mp4", moving(3), look=(1, 9, 9, 16)), "HDR video (PQ)", "8-bit SDR")
    refused(write(tmp_path / "hlg.mp4", moving(3), look=(1, 1, 1, 18)), "HDR video (HLG)")
    refused(write(tmp_path / "wide.mp4", moving(3), look=(1, 1, 9, 1)), "Rec. 2020")
    refused(write(tmp_path / "deep.mkv", moving(3), codec="ffv1", pixels="yuv420p10le"), "10 bits per channel")


def test_interlaced(tmp_path: Path) -> None:
    options = {"x264-params": "tff=1:interlaced=1"}
    refused(write(tmp_path / "i.mp4", moving(4, (32, 32)), options=options), "is interlaced", "bwdif")


def test_time_stamps(tmp_path: Path) -> None:
    raw = write(tmp_path / "raw.h264", moving(4), options={"bf": "0"})
    refused(raw, "no time stamps", "--fps")
    assert survey(raw, fps=Fraction(10)).rate == 10 and len(list(frames(survey(raw, fps=Fraction(10))))) == 4
    stamped = write(tmp_path / "vfr.mkv", moving(4), times=[0, 40, 100, 333])
    refused(stamped, "has time stamps of its own", fps=Fraction(10))
    clip = survey(stamped)
    assert [time * clip.time_base * 1000 for time in clip.times[:-1]] == [0, 40, 100, 333]


def test_broken_and_silent_files(tmp_path: Path) -> None:
    refused(sound_only(tmp_path / "a.mp4"), "has sound but no moving picture")
    (tmp_path / "text.mp4").write_text("no clip" * 100)
    refused(tmp_path / "text.mp4", "cannot be read as a clip", "check that the file is whole")
    refused(tmp_path / "none.mp4", "cannot be read as a clip", "no such file")
    whole = write(tmp_path / "whole.mkv", moving(75, (32, 32)), options={"g": "10"}).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 3])
    refused(tmp_path / "cut.mkv", "it ends after", "of 3.00 s")
    short = write(tmp_path / "short.mp4", moving(12), options={"movflags": "faststart"}).read_bytes()
    (tmp_path / "half.mp4").write_bytes(short[: -len(short) // 4])
    refused(tmp_path / "half.mp4", "cannot be read as a clip")


def test_damage_inside_is_not_hidden(tmp_path: Path) -> None:
    import av

    path = write(tmp_path / "whole.mkv", moving(20, (64, 64)), options={"g": "5"})
    with av.open(str(path)) as container:
        place = [packet.pos for packet in container.demux(video=0) if packet.is_keyframe and packet.size][2]
    data = bytearray(path.read_bytes())
    data[place + 40 : place + 240] = np.random.default_rng(0).bytes(200)
    (tmp_path / "hurt.mkv").write_bytes(data)
    refused(tmp_path / "hurt.mkv", "cannot be read as a clip")


def test_a_range_is_exact_wherever_the_key_frames_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", moving(30), options={"g": "12"})
    clip = survey(path, start=Fraction(7, 10), end=Fraction(1))
    assert len(clip.times) - 1 == 7  # 0.72 to 0.96
    everything = list(frames(survey(path)))
    for number, frame in enumerate(frames(clip)):
        assert np.array_equal(frame, everything[18 + number])
    assert np.array_equal(next(frames(clip, 4)), everything[22])
    refused(path, "has no frame in that range", start=Fraction(60))
    refused(path, "ends before it begins", start=Fraction(2), end=Fraction(1))


@pytest.mark.parametrize("codes", [(1, 1), (2, 1), (1, 6), (2, 6)])
def test_colours_are_read_as_they_are_said(codes: tuple[int, int], tmp_path: Path) -> None:
    """A flat colour comes back, whatever range and matrix the file has."""
    colour = np.broadcast_to(np.uint8([200, 60, 30]), (16, 24, 3)).copy()
    path = write(tmp_path / "a.mp4", [colour] * 2, look=(*codes, 1, 1), options={"crf": "1"})
    for frame in frames(survey(path)):
        assert np.abs(frame.astype(int) - colour).max() <= 3


def test_upright(tmp_path: Path) -> None:
    """A telephone held upright writes lying frames and says so; av says how they are to be turned."""
    lying = moving(2)
    clip = survey(write(tmp_path / "a.mp4", lying, options={"crf": "1"}, rotation=90))
    assert clip.size == (16, 24)
    turned = next(frames(clip))
    import av

    with av.open(str(tmp_path / "a.mp4")) as container:
        clockwise = -next(container.decode(video=0)).rotation
    assert np.abs(turned.astype(int) - np.rot90(lying[0], -clockwise // 90)).mean() < 6


def test_cuts_are_found_and_motion_is_none(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", moving(20, (48, 32), cuts=(7, 13)), codec="ffv1", pixels="bgr0")
    assert survey(path).cuts == {7, 13}
    assert survey(path, start=Fraction(8, 25)).cuts == {5}  # counted from the range's first frame
    assert not find_cuts([0.15, 0.14, 0.16, 0.15])  # a shaken camera
    assert not find_cuts([0.001, 0.03, 0.001])  # below the floor: flicker
    assert find_cuts([0.01] * 5 + [0.2] + [0.1] * 5) == {6}  # a still shot, then a fast one
    assert find_cuts([0.07, 0.08, 0.2, 0.003, 0.002, 0.003]) == {3}  # a fast shot, then a still one
    assert not find_cuts([])


def test_folders_of_frames(tmp_path: Path) -> None:
    for number, frame in enumerate(moving(11)):
        Image.fromarray(frame).save(tmp_path / f"frame {number}.png")
    refused(tmp_path, "give --fps")
    clip = survey(tmp_path, fps=Fraction(30000, 1001))
    assert clip.rate == Fraction(30000, 1001) and clip.size == (24, 16)
    assert all(np.array_equal(a, b) for a, b in zip(frames(clip), moving(11), strict=True))  # 2 before 10
    part = survey(tmp_path, start=Fraction(2, 10), end=Fraction(5, 10), fps=Fraction(10))
    assert [np.array_equal(a, b) for a, b in zip(frames(part), moving(11)[2:5], strict=True)] == [True] * 3
    Image.new("RGB", (5, 5)).save(tmp_path / "frame 11.png")
    with pytest.raises(QartsrError, match="unlike the frames before it"):
        survey(tmp_path, fps=Fraction(25))
    assert sorted([Path("b10"), Path("b2"), Path("10"), Path("9")], key=natural)[0] == Path("9")


def test_frames_equal_those_of_the_decoder(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", moving(4), codec="ffv1", pixels="bgr0")
    assert all(np.array_equal(a, b) for a, b in zip(frames(survey(path)), pictures(path), strict=True))


def test_the_real_clip_is_what_the_documents_say() -> None:
    """Provenance is in docs/data.md; two shots, no cut inside."""
    folder = ROOT / "photographs" / "clips"
    for entry in read_json(folder / "manifest.json"):
        assert sha256_file(folder / entry["file"]) == entry["sha256"]
        assert entry["sha256"] in (ROOT / "docs" / "data.md").read_text()
        clip = survey(folder / entry["file"])
        assert (clip.size, clip.count, clip.rate, clip.cuts) == ((720, 405), entry["frames"], 25, frozenset())


def test_a_real_cut_is_found(tmp_path: Path) -> None:
    for number, name in enumerate(("towers", "tower")):
        shot = list(frames(survey(ROOT / "photographs" / "clips" / f"{name}.mkv", end=Fraction(8, 25))))
        for index, frame in enumerate(shot):
            Image.fromarray(frame).reduce(8).save(tmp_path / f"{8 * number + index:02}.png")
    assert survey(tmp_path, fps=Fraction(25)).cuts == {8}
