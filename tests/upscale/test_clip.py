"""Clips in, clips out: times, sound, colours, and work that is killed and goes on."""

from __future__ import annotations

import os
import signal
import warnings
import weakref
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("av", reason="clips need the extra [video]")

from qartsr import OneStepSRPipeline
from qartsr.clips import sink
from qartsr.errors import QartsrError
from qartsr.images import Picture
from qartsr.upscale import clip as clips
from qartsr.upscale.clip import ClipOptions, ClipProgress, ClipResult, clip_options, upscale_clip
from tests.clips.make import facts, moving, pictures, write
from tests.packing.tiny import tiny_model


def enlarged(picture: Picture, before: Picture | None) -> Picture:
    return Picture.of(picture.resize((4 * picture.width, 4 * picture.height), Image.Resampling.BICUBIC), {})


def upscale(source: Path, target: Path, restore: Any = enlarged, model: Any = None, **options: Any) -> ClipResult:
    return upscale_clip(restore, source, target, clip_options(**options), model or {"name": "bicubic"})


@pytest.fixture()
def short_segments(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(clips, "SEGMENT", 4)
    return 4


@pytest.mark.parametrize("look", [(1, 1, 1, 1), (2, 6, 5, 6)])
def test_times_sound_metadata_and_colours_are_kept(look: Any, short_segments: int, tmp_path: Path) -> None:
    times = [0, 40, 90, 120, 160, 200, 260, 300, 333, 400]
    source = write(tmp_path / "a.mp4", moving(10), times=times, look=look, sound="aac", options={"crf": "1"})
    result = upscale(source, tmp_path / "b.mp4", crf=1)
    assert result == ((96, 64), 10, 1, ())
    before, after = facts(source), facts(tmp_path / "b.mp4")
    assert {**before, "codec": "", "rate": 0, "aspect": 1} == {**after, "codec": "", "rate": 0, "aspect": 1}
    assert after["sound"] and after["codec"] == "h264" and after["voice"] == ["eng"]
    wanted = [enlarged(Picture.of(Image.fromarray(frame), {}), None) for frame in moving(10)]
    for made, frame in zip(pictures(tmp_path / "b.mp4"), wanted, strict=True):
        difference = made.astype(int) - np.asarray(frame)
        assert abs(difference @ [0.299, 0.587, 0.114]).mean() < 3  # colours were halved twice
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def test_matroska_is_lossless(short_segments: int, tmp_path: Path) -> None:
    source = write(tmp_path / "a.mkv", moving(9, (48, 32), cuts=(5,)), codec="ffv1", pixels="bgr0", sound="aac")
    assert upscale(source, tmp_path / "b.mkv").shots == 2
    for made, frame in zip(pictures(tmp_path / "b.mkv"), moving(9, (48, 32), cuts=(5,)), strict=True):
        assert np.array_equal(made, np.asarray(enlarged(Picture.of(Image.fromarray(frame), {}), None)))
    told = facts(tmp_path / "b.mkv")
    assert told["codec"] == "ffv1" and told["rate"] == 25 and told["sound"] == facts(source)["sound"]
    upscale(source, tmp_path / "c.mkv", crf=20)
    assert facts(tmp_path / "c.mkv")["codec"] == "h264"


def test_a_range_and_its_sound(tmp_path: Path) -> None:
    source = write(tmp_path / "a.mp4", moving(50), sound="aac")
    upscale(source, tmp_path / "b.mp4", start=0.5, end=1.0)
    told, before = facts(tmp_path / "b.mp4"), facts(source)
    assert told["times"][0] == 0 and len(told["times"]) == 12  # frames 13 to 24
    assert all(0 <= time < 0.5 for time in told["heard"])
    assert set(told["sound"]) < set(before["sound"]) and len(told["sound"]) in (7, 8)
    upscale(source, tmp_path / "plain.mp4", end=0.5, strip=True)
    assert facts(tmp_path / "plain.mp4")["title"] is None


def test_a_folder_of_frames_and_back(tmp_path: Path) -> None:
    source = write(tmp_path / "a.mkv", moving(5), codec="ffv1", pixels="bgr0")
    assert upscale(source, tmp_path / "frames").frames == 5
    assert [file.name for file in sorted((tmp_path / "frames").iterdir())] == [f"00000{n}.png" for n in range(1, 6)]
    upscale(tmp_path / "frames", tmp_path / "b.mkv", lambda picture, before: picture, fps=10)
    assert all(map(np.array_equal, pictures(tmp_path / "b.mkv"), _opened(tmp_path / "frames")))
    assert facts(tmp_path / "b.mkv")["times"] == [0, 0.1, 0.2, 0.3, 0.4]
    with pytest.raises(QartsrError, match="holds other files"):
        upscale(source, tmp_path / "frames")


def _opened(folder: Path) -> list[Any]:
    return [np.asarray(Image.open(file)) for file in sorted(folder.iterdir())]


def killed(source: Path, target: Path, frame: int) -> None:
    """The same work in another process, which ends at ``frame`` without a word."""

    def restore(picture: Picture, before: Picture | None) -> Picture:
        nonlocal frame
        frame -= 1
        if frame < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return enlarged(picture, before)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads, which the child does not use
        child = os.fork()
    if not child:
        upscale(source, target, restore)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("name", ["b.mp4", "b.mkv", "frames"])
def test_killed_work_goes_on_and_ends_with_the_same_bytes(name: str, short_segments: int, tmp_path: Path) -> None:
    source = write(tmp_path / "a.mp4", moving(10, (48, 32), cuts=(6,)), sound="aac")
    upscale(source, tmp_path / "whole" / name)
    target, asked = tmp_path / name, list[tuple[bool, int]]()
    killed(source, target, 3)
    killed(source, target, 4)  # in the next segment

    def restore(picture: Picture, before: Picture | None) -> Picture:
        asked.append((before is not None, picture.width))
        return enlarged(picture, before)

    reports: list[ClipProgress] = []
    upscale_clip(restore, source, target, ClipOptions(), {"name": "bicubic"}, reports.append)
    assert asked == [(True, 48)] * 3  # frames 7 to 9, each with the one before it; 6 began a shot
    assert reports == [ClipProgress(done, 10, 7) for done in (7, 8, 9, 10)]
    assert _bytes(target) == _bytes(tmp_path / "whole" / name)
    assert not list(tmp_path.glob("*.part"))


def _bytes(path: Path) -> list[bytes]:
    return [file.read_bytes() for file in (sorted(path.iterdir()) if path.is_dir() else [path])]


def test_other_settings_begin_anew(tmp_path: Path) -> None:
    source, seen = write(tmp_path / "a.mp4", moving(6)), list[int]()

    def restore(picture: Picture, before: Picture | None) -> Picture:
        seen.append(1)
        if len(seen) in (4, 8):
            raise KeyboardInterrupt
        return enlarged(picture, before)

    for options in ({}, {"crf": 30}):
        with pytest.raises(KeyboardInterrupt):
            upscale(source, tmp_path / "b.mp4", restore, **options)
    assert not (tmp_path / "b.mp4").exists()
    upscale(source, tmp_path / "b.mp4", restore, model={"name": "another"})
    assert len(seen) == 4 + 4 + 6


def test_the_frame_before_is_that_of_the_shot(tmp_path: Path) -> None:
    source = write(tmp_path / "a.mkv", moving(8, (48, 32), cuts=(3,)), codec="ffv1", pixels="bgr0")
    seen: list[tuple[Any, Any]] = []

    def restore(picture: Picture, before: Picture | None) -> Picture:
        seen.append((np.array(picture), None if before is None else np.array(before)))
        return enlarged(picture, before)

    upscale(source, tmp_path / "b.mkv", restore)
    for number, (now, before) in enumerate(seen):
        assert np.array_equal(now, moving(8, (48, 32), cuts=(3,))[number])
        assert (before is None) if number in (0, 3) else np.array_equal(before, seen[number - 1][0])


def test_memory_does_not_grow_with_the_clip(tmp_path: Path) -> None:
    source, alive = write(tmp_path / "a.mp4", moving(20)), weakref.WeakSet[Any]()
    most = 0

    def restore(picture: Picture, before: Picture | None) -> Picture:
        nonlocal most
        result = enlarged(picture, before)
        alive.update((_Held(picture), _Held(result)))
        most = max(most, len(alive))
        return result

    upscale(source, tmp_path / "b.mp4", restore)
    assert most <= 6


class _Held:
    """Lives as long as a picture does, which cannot be referred to weakly by its value."""

    def __init__(self, picture: Picture) -> None:
        picture.info["held"] = self


def test_what_the_target_cannot_hold_is_told_before_the_work(tmp_path: Path) -> None:
    source = write(tmp_path / "a.mov", moving(3), sound="pcm_mulaw")

    def never(picture: Picture, before: Picture | None) -> Picture:
        raise AssertionError

    for target, words in (
        (tmp_path / "b.mp4", "cannot hold the sound"),
        (tmp_path / "b.webm", r"end it in \.mp4"),
        (source, "both the input and the output"),
        (tmp_path, "holds other files"),
    ):
        with pytest.raises(QartsrError, match=words):
            upscale(source, target, never)
    with pytest.raises(QartsrError, match="have no --crf"):
        upscale(source, tmp_path / "frames", never, crf=3)
    for wrong in ({"crf": 52}, {"fps": 0}, {"start": -1}):
        with pytest.raises(QartsrError):
            clip_options(**wrong)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mov"]
    assert sink.encoding_of(Path("a.MP4"), None).options["crf"] == "16"


def test_two_runs_do_not_share_a_target(tmp_path: Path) -> None:
    source = write(tmp_path / "a.mp4", moving(3))

    def restore(picture: Picture, before: Picture | None) -> Picture:
        with pytest.raises(QartsrError, match="is being worked on"):
            upscale(source, tmp_path / "b.mp4")
        return enlarged(picture, before)

    upscale(source, tmp_path / "b.mp4", restore)


def test_a_clip_is_its_frames_one_by_one(tmp_path: Path) -> None:
    source = write(tmp_path / "a.mkv", moving(2, (8, 6)), codec="ffv1", pixels="bgr0")
    pipe = OneStepSRPipeline(tiny_model())
    assert pipe.upscale_clip(source, tmp_path / "b.mkv", end=Fraction(1)).frames == 2
    for made, frame in zip(pictures(tmp_path / "b.mkv"), moving(2, (8, 6)), strict=True):
        assert np.array_equal(made, np.asarray(pipe(Image.fromarray(frame))))
