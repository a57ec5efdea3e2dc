"""Clips in the report: a line per frame, and a section where the test set has clips."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

from qartsr.evaluate.report.clips import ClipShown, clips_shown, time_slice
from qartsr.evaluate.report.inputs import Contents, Inputs, Subject
from qartsr.evaluate.report.write import _text
from qartsr.evaluate.scenes import Scene, Scenes


def test_a_slice_is_the_middle_line_of_every_frame() -> None:
    frames = [Image.fromarray(np.full((5, 7, 3), shade, np.uint8)) for shade in (10, 90, 200)]
    assert np.asarray(time_slice(frames))[::40, 3, 0].tolist() == [10, 90, 200]


def test_the_page_shows_clips_over_time() -> None:
    """The section of the template alone: titles stand once at the slices and once over the columns of the motion."""
    template = _text("page.html.j2").partition("{% if clips %}\n<section>")[2].partition("</section>")[0]
    picture = Image.new("RGB", (9, 120))
    clip = ClipShown(
        "walk & <run>", 3, (("FP", picture), ("W4A4", picture), ("HR", picture)), "data:x", lambda axes: None
    )
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["data_uri"] = lambda image: "data:slice"
    page = environment.from_string(template).render(clips=[clip._asdict() | {"quality": "a curve"}])
    assert "<h3>walk &amp; &lt;run&gt;, 3 frames</h3>" in page and "a curve" in page and "--count: 3" in page
    assert page.count('src="data:slice"') == 3 and page.count('src="data:x"') == 1
    assert [page.count(f"<{tag}>W4A4</{tag}>") for tag in ("figcaption", "span")] == [1, 1]
    assert "in motion: FP, W4A4, HR" in page
    styles = _text("page.css")
    assert set(re.findall(r'class="([\w ]+)"', template)) >= {"slices", "motion"}
    assert all(f".{name}" in styles for name in ("clip", "slices", "motion"))


def test_every_clip_is_shown_with_all_models_in_motion(tmp_path: Path) -> None:
    scenes, dice = [], np.random.default_rng(0)
    for number in range(6):
        name = f"c{number}"
        for folder in ("bicubic/images", "fp/images", "w4a4/images", "hr"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            pixels = dice.integers(0, 255, (24, 32, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{name}.png")
        file = tmp_path / "hr" / f"{name}.png"
        scenes.append(Scene(name, file, file, "set", "" if number == 0 else "clip" if number < 4 else "other"))
    scores = {scene.name: {"psnr": 30.0} for scene in scenes}
    bicubic, fp, low = (
        Subject(key, key, tmp_path / key, {}, {}, scores, 0, 0, {}) for key in ("bicubic", "fp", "w4a4")
    )
    inputs = Inputs("test", ["w4a4"], *(tmp_path for _ in range(7)))
    shown = clips_shown(Contents(inputs, Scenes("set", tuple(scenes)), bicubic, fp, (low,), {}))
    assert [(clip.name, clip.frames) for clip in shown] == [("clip", 3), ("other", 2)]
    assert [title for title, _ in shown[0].slices] == ["bicubic", "fp", "w4a4", "HR"]
    line = np.asarray(Image.open(tmp_path / "w4a4" / "images" / "c2.png"))[12]
    assert np.array_equal(np.asarray(shown[0].slices[2][1])[40], line)
    motion = Image.open(io.BytesIO(base64.b64decode(shown[0].motion.partition(",")[2])))
    assert (motion.n_frames, motion.size) == (3, (4 * 32, 24))  # type: ignore[attr-defined]
