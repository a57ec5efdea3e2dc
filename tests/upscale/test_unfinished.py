"""A large picture that is killed goes on with the next row of tiles, and ends with the same pixels."""

from __future__ import annotations

import errno
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qartsr.images import Picture, as_image
from qartsr.upscale import unfinished
from qartsr.upscale.pipeline import OneStepSRPipeline
from tests.packing.tiny import tiny_model


class _KilledError(Exception):
    pass


@pytest.fixture()
def pipe(monkeypatch: pytest.MonkeyPatch) -> OneStepSRPipeline:
    """Three rows of two tiles, each worth keeping."""
    monkeypatch.setattr("qartsr.upscale.tiling.LEAST", 6)
    return _pipe()


def _pipe() -> OneStepSRPipeline:
    made = OneStepSRPipeline(tiny_model(), tile=32, overlap=8)
    made._origin.digest = lambda: "0"  # type: ignore[method-assign]
    return made


@pytest.fixture()
def picture() -> Picture:
    return as_image(_noise(0))


def _noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (18, 12, 3), np.uint8))


def _killed(pipe: OneStepSRPipeline, picture: Picture, folder: Path, runs: int) -> None:
    def report(done: int, total: int) -> None:
        if done == runs:
            raise _KilledError

    with pytest.raises(_KilledError):
        pipe.resume(picture, folder, report)


def _steps(pipe: OneStepSRPipeline, picture: Picture, folder: Path) -> tuple[Picture, list[int], int]:
    """The result, what the report said was done, and the total."""
    seen = list[tuple[int, int]]()
    result = pipe.resume(picture, folder, lambda done, total: seen.append((done, total)))
    return result, [done for done, _ in seen], seen[-1][1]


def _equal(one: Image.Image, other: Image.Image) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(other))


def test_it_goes_on_where_it_was(pipe: OneStepSRPipeline, picture: Picture, tmp_path: Path) -> None:
    whole, steps, total = _steps(pipe, picture, tmp_path / "whole")
    assert _equal(whole, pipe(picture)) and steps == list(range(1, total + 1))
    folder = tmp_path / "killed"
    _killed(pipe, picture, folder, total - 1)  # within the last row
    again, steps, _ = _steps(pipe, picture, folder)
    assert _equal(again, whole)
    assert steps[-1] == total and len(steps) == 1 + 2 + 2, "the observing and two rows are there, two tiles are made"
    assert _equal(pipe.resume(picture, folder), whole)
    unfinished.forget(folder)
    assert not folder.exists()


def test_another_picture_or_tile_begins_anew(pipe: OneStepSRPipeline, picture: Picture, tmp_path: Path) -> None:
    _, _, total = _steps(pipe, picture, tmp_path)
    other = as_image(_noise(1))
    result, steps, _ = _steps(pipe, other, tmp_path)
    assert len(steps) == total and _equal(result, pipe(other))


def test_two_runs_at_once_do_not_mix(pipe: OneStepSRPipeline, picture: Picture, tmp_path: Path) -> None:
    """The second begins, another picture's, when the first has made two of three rows."""
    other, second, runs = as_image(_noise(1)), _pipe(), 0

    def report(done: int, total: int) -> None:
        nonlocal runs
        if done == total - 1 and not runs:
            runs = 1
            assert _equal(second.resume(other, tmp_path), second(other))

    assert _equal(pipe.resume(picture, tmp_path, report), pipe(picture))
    assert _equal(second.resume(other, tmp_path), second(other)) and runs


def test_damage_costs_a_row_and_no_pixel(pipe: OneStepSRPipeline, picture: Picture, tmp_path: Path) -> None:
    whole = pipe.resume(picture, tmp_path)
    row, moments, other = (next(tmp_path.glob(f"{name}-*.npz")) for name in ("row-1", "moments", "row-2"))
    for file in (row, moments):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 4
        file.write_bytes(bytes(data))
    other.write_bytes(b"")
    assert _equal(pipe.resume(picture, tmp_path), whole)


def test_a_full_disk_costs_what_was_kept(
    pipe: OneStepSRPipeline, picture: Picture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def full(handle: Any, **arrays: Any) -> None:
        if "band" in arrays:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("numpy.savez", full)
    with caplog.at_level(logging.WARNING, "qartsr"):
        assert _equal(pipe.resume(picture, tmp_path / "part"), pipe(picture))
    assert len(caplog.records) == 1 and "No space left" in caplog.text and "begins anew" in caplog.text
    assert not (tmp_path / "part").exists()


def test_small_pictures_leave_nothing(pipe: OneStepSRPipeline, tmp_path: Path) -> None:
    pipe.resume(as_image(_noise(0).crop((0, 0, 8, 8))), tmp_path / "part")
    assert not (tmp_path / "part").exists()


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    (tmp_path / "row-1-0123456789abcdef.npz").write_text("x")
    unfinished.forget(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]
