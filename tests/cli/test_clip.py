"""``qartsr upscale`` with a clip."""

from __future__ import annotations

from argparse import ArgumentTypeError
from fractions import Fraction
from pathlib import Path

import pytest

pytest.importorskip("av", reason="clips need the extra [video]")

from qartsr.cli.clip import seconds
from tests.cli.conftest import Qartsr
from tests.clips.make import facts, moving, write


def test_a_clip_and_a_part_of_it(qartsr: Qartsr, package: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "a.mp4", moving(3, (8, 6)), sound="aac")
    said = qartsr(
        "upscale",
        source,
        tmp_path / "b.mp4",
        "--model",
        package,
        "--crf",
        30,
        "--engine",
        "simulated",
        "--from",
        "0:00.04",
    )
    assert (said.status, said.out) == (0, "")
    last = said.err.splitlines()[-1]
    assert last.startswith(f"{tmp_path}/b.mp4: 32x24, 2 frames, 1 shot, ") and last.endswith(" frames per second")
    assert facts(tmp_path / "b.mp4")["times"] == [0, 0.04]


def test_options_of_clips_and_of_images_are_kept_apart(qartsr: Qartsr, package: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    for option, value in (("--crf", 3), ("--fps", 25), ("--from", 1), ("--to", "1:00")):
        said = qartsr("upscale", tmp_path / "a.png", tmp_path / "b.png", "--model", package, option, value)
        assert said.status == 1 and f"{option} is for clips" in said.err
    said = qartsr("upscale", tmp_path / "none.mp4", tmp_path / "b.mp4", "--model", package)
    assert said.status == 1 and said.err == f"error: {tmp_path}/none.mp4: does not exist; check the path.\n"
    for option, value in (("--crf", 52), ("--fps", 0), ("--from", "1:2:3:4"), ("--to", "soon")):
        assert qartsr("upscale", "a.mp4", "b.mp4", "--model", package, option, value).status == 2


def test_times() -> None:
    assert seconds("12.5") == Fraction(25, 2) and seconds("1:02") == 62 and seconds("1:02:03.25") == Fraction(14893, 4)
    with pytest.raises(ArgumentTypeError):
        seconds("-3")
