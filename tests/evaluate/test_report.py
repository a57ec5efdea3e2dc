"""The page stands alone, says the numbers, and is the same every time."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from qartsr.errors import QartsrError
from qartsr.evaluate.report import Inputs, theme, write_report
from qartsr.evaluate.report.about import about, span
from qartsr.evaluate.report.crops import spread, textured, widest_of
from qartsr.evaluate.report.inputs import read
from qartsr.evaluate.report.plots import loss, running, smooth
from qartsr.evaluate.report.rows import artifacts
from qartsr.files import read_json, sha256_tree, write_json
from qartsr.tracking import TIMES, note_time
from qartsr.upscale import read_image


@pytest.fixture(scope="module")
def report(finished: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_report(finished, folder)
    return folder


@pytest.fixture(scope="module")
def page(report: Path) -> str:
    return (report / "index.html").read_text()


def test_the_page_needs_no_other_file(page: str, finished: Inputs) -> None:
    addresses = re.findall(r"""(?:src|href)="([^"#][^"]{0,40})|url\(([^#][^)]*)\)""", page)
    assert all(
        "".join(address).startswith(("data:image/png;base64,", "data:image/webp;base64,")) for address in addresses
    )
    assert page.count("<script") == page.count("<script>\n//") == 1 and "@import" not in page
    assert len(page) < 15e6
    assert str(finished.metrics.parent) not in page and "/tmp/" not in page


def test_it_says_what_was_measured(page: str) -> None:
    for text in (
        "30.50",
        "29.50",
        "26.50",
        "22.50",
        "0.50 MB",
        "4.00 MB",
        "4.00\N{MULTIPLICATION SIGN} smaller than fp16",
    ):
        assert text in page, text
    assert "qartsr-sample-w2a2 version 7" in page and "s3://qartsr/w2a2" in page
    assert "<code>qartsr fetch-metric-weights musiq</code>" in page
    assert "coffee &amp; &lt;milk&gt;" in page and "<milk>" not in page


def test_it_says_of_which_run_it_is(finished: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what stages noted under DVC; neither the report itself nor bit-widths of before count."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    inputs = finished._replace(times=tmp_path / TIMES, commit="1d66d39abc")
    assert about(inputs) == ("1d66d39abc", "", "")
    taken = {"data": 5, "../dvc.yaml:quantize@w4a4": 11000, "report": 9000, "quantize@w8a8": 4000}
    for stage, seconds in taken.items():
        monkeypatch.setenv("DVC_STAGE", stage)
        note_time(seconds)
    for name, text in (("a", "no JSON"), ("b", '{"stage": "x", "seconds": "y", "ended": "z"}')):  # left by whomever
        (tmp_path / TIMES / f"{name}.json").write_text(text)
    said = about(inputs)
    assert said.took == "2 stages took 3 h 3 min when last run here, the longest 3 h 3 min (quantize@w4a4)"
    assert re.fullmatch(r"\d+ [A-Z][a-z]+ \d{4}, \d\d:\d\d UTC", said.date)
    assert [span(seconds) for seconds in (0, 59.6, 1296, 3599.7)] == ["0 s", "1 min", "21 min 36 s", "1 h"]


def test_every_mean_says_over_which_pictures(page: str) -> None:
    """W4A4 has 26 dB on the photograph and 27 dB on the wallpaper."""
    tables = re.findall(r"<th>Means over ([^<]*)</th>.*?</table>", page, re.DOTALL)
    assert tables == ["all, 2 pictures", "photographs, 1 picture", "wallpapers, 1 picture"]
    cells = [re.search(rf"Means over {title}.*?W4A4.*?<td[^>]*>([^<]*)</td>", page, re.DOTALL) for title in tables]
    assert [cell and cell[1] for cell in cells] == ["26.50", "26.00", "27.00"]


def test_one_set_has_one_table(spoilable: Inputs, test_set: Path, tmp_path: Path) -> None:
    shutil.copytree(test_set, tmp_path / "data")
    manifest = read_json(tmp_path / "data" / "manifest.json")
    for entry in manifest["test"]:
        entry.pop("set", None)
    write_json(tmp_path / "data" / "manifest.json", manifest)
    write_report(spoilable._replace(data=tmp_path / "data"), tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text()
    assert re.findall(r"<th>Means over ([^<]*)</th>", page) == ["photographs, 2 pictures"]


def test_every_picture_is_there_whole_and_can_be_told_from_the_others(page: str, finished: Inputs) -> None:
    """Pixels of a whole picture are those that were evaluated, as near as lossy storage comes."""
    views = re.findall(r'<div class="view">.*?</div>\s*</div>', page, re.DOTALL)
    assert len(views) == 2
    wholes = re.findall(r'class="(\w*)" src="data:image/webp;base64,([^"]*)" alt="astronaut whole, ([^"]*)"', views[0])
    lazy = re.findall(r'<img( loading="lazy")? decoding="async" width="128" height="108"', views[0])
    assert [bool(each) for each in lazy] == [True, False, True, False, True, True]  # what is shown needs no scrolling
    assert [name for _, _, name in wholes] == ["LR", "Bicubic", "Full precision", "W4A4", "W2A2", "HR"]
    assert [kind for kind, _, _ in wholes] == ["", "over", "", "under", "", ""]
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(wholes[4][1]))), dtype=float)
    made = np.asarray(read_image(finished.evaluated / "w2a2" / "images" / "astronaut.png").convert("RGB"), dtype=float)
    assert shown.shape == made.shape and np.abs(shown - made).mean() < 8


def test_curves_tell_their_values(page: str) -> None:
    """In matplotlib's coordinates: the first and last step of every labelled line, within the span of the plot."""
    figures = [json.loads(html.unescape(text)) for text in re.findall(r"data-lines='([^']*)'", page)]
    assert [[line["name"] for line in figure["lines"]] for figure in figures] == [
        ["W4A4", "W2A2"], ["full precision"], ["W4A4", "W2A2"], ["W4A4", "W2A2"],
    ]  # fmt: skip
    for figure in figures:
        left, below, right, above = figure["box"]
        assert 0 < left < right < 1 and 0 < below < above < 1
        for line in figure["lines"]:
            steps = [step for step, _ in line["at"]]
            assert steps[0] == (figure is figures[0]) and figure["span"][0] <= steps[0] < steps[-1] <= figure["span"][1]
    assert figures[3]["lines"][0]["at"][0][1] == 0.2 and figures[0]["lines"][1]["at"] == [[1, 0.1], [2, 0.1], [3, 0.1]]


def test_dvc_finds_the_columns_that_it_draws(report: Path, root: Path) -> None:
    plots = yaml.safe_load((root / "dvc.yaml").read_text())["plots"]
    drawn = {Path(file): drawing for entry in plots if isinstance(entry, dict) for file, drawing in entry.items()}
    assert {file.name for file in drawn} == {file.name for file in report.glob("*.csv")}
    for file, drawing in drawn.items():
        columns, *lines = (report / file.name).read_text().splitlines()
        template = (root / ".dvc" / "plots" / f"{drawing['template']}.json").read_text()
        named = set(re.findall(r'"field": "(bits|model)"', template)) | {drawing["x"], drawing["y"]}
        assert named == set(columns.split(",")) and len(named) == 3
        assert lines or file.name == "results.csv"  # these scores lack PSNR on RGB
    assert (report / "et.csv").read_text().splitlines()[-1] == "w2a2,3,0.2"


def test_layers_have_bits_codes_and_errors(page: str) -> None:
    told = page[page.index("Layer by layer") :]
    assert told.count("code (1 layers of") == 2 and "1 layers, 33.3 % of weights" in told
    for pair in ("W8A8", "W2A2", "WfpAfp"):
        assert f"<td>{pair}</td>" in told
    assert told.count('class="bars"') == 4 and 'd="M0 100V100h1V0h1V67h1V100h1V100z"' in told


def test_versions_are_links_where_a_server_is_named(page: str, finished: Inputs) -> None:
    assert "<a href" not in page
    for server, link in (
        ("http://m:5500/", "http://m:5500/#/models/qartsr-sample-w4a4/versions/7"),
        ("sqlite:///x", ""),
    ):
        assert artifacts(read(finished._replace(mlflow=server)))[0][2] == link


def test_pictures_for_elsewhere_stand_beside_it(report: Path) -> None:
    assert {path.name for path in report.iterdir()} == {
        "index.html",
        "comparison.png",
        "rate_quality.png",
        "curves.png",
        "results.csv",
        "rpq.csv",
        "et.csv",
    }
    comparison = read_image(report / "comparison.png")
    assert comparison.width > 2 * comparison.height


def test_same_inputs_same_bytes(report: Path, finished: Inputs, tmp_path: Path) -> None:
    write_report(finished, tmp_path)
    assert sha256_tree(tmp_path) == sha256_tree(report)


def test_figures_follow_the_page_into_dark_mode() -> None:
    """No colour of the palette stays fixed, and every variable has a value for dark."""

    def draw(axes: object) -> None:
        axes.plot([1, 2], [3, 4], color=theme.colour(1), label="x")  # type: ignore[attr-defined]
        theme.legend(axes)  # type: ignore[arg-type]

    figure = theme.svg(draw, "test")  # type: ignore[arg-type]
    assert "var(--s1)" in figure and "var(--muted)" in figure and "var(--font)" in figure
    assert not any(colour in figure for colour in theme.NAMES)
    assert set(theme.DARK) == set(theme.NAMES)


def test_what_is_optional_may_be_missing(spoilable: Inputs, tmp_path: Path) -> None:
    for folder in (spoilable.curves, spoilable.receipts, spoilable.packages):
        shutil.rmtree(folder)
    write_report(spoilable, tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text()
    assert "not registered" in page
    assert "Training" not in page
    assert not (tmp_path / "report" / "curves.png").exists()


def test_a_missing_evaluation_is_an_error_with_a_name(spoilable: Inputs, tmp_path: Path) -> None:
    (spoilable.metrics / "w2a2.json").unlink()
    with pytest.raises(QartsrError, match=r"w2a2\.json"):
        write_report(spoilable, tmp_path / "report")


def test_an_evaluation_without_psnr_is_refused(spoilable: Inputs, tmp_path: Path) -> None:
    scores = read_json(spoilable.metrics / "fp.json")
    del scores["photographs"]["psnr"]
    write_json(spoilable.metrics / "fp.json", scores)
    with pytest.raises(QartsrError, match="list psnr under"):
        write_report(spoilable, tmp_path / "report")


def test_the_crop_is_where_the_detail_is() -> None:
    image = np.full((200, 300, 3), 128, np.uint8)
    image[88:184, 160:256] = np.random.default_rng(0).integers(0, 256, (96, 96, 1), np.uint8)
    assert textured(Image.fromarray(image)) == (160, 88, 256, 184)


def test_a_page_of_many_pictures_has_no_more_pixels_than_one_of_few() -> None:
    assert [widest_of(scenes) for scenes in (1, 24, 96)] == [1024, 1024, 512]
    assert spread(range(200), 3) == [0, 100, 199] and spread(range(2), 120) == [0, 1]


@pytest.mark.parametrize("size", [(40, 24), (96, 96), (97, 203)])
def test_small_images_are_shown_whole_and_boxes_fit(size: tuple[int, int]) -> None:
    left, upper, right, lower = textured(Image.new("RGB", size))
    assert 0 <= left < right <= size[0] and 0 <= upper < lower <= size[1]
    assert left % 4 == upper % 4 == 0


@pytest.mark.parametrize("totals", [[0.3], [0.3, 0.3], [0.0, 0.0], [0.0, 1e-9, 5.0]])
def test_short_and_constant_curves_can_be_drawn(totals: list[float]) -> None:
    rows = [{"step": str(step), "module": "decoder.mid", "total": str(total)} for step, total in enumerate(totals)]
    assert theme.svg(loss("RPQ", [("W2A2", theme.colour(0), rows)]), "test").startswith("<svg")


def test_smoothing_keeps_a_constant_and_a_line() -> None:
    assert smooth(np.full(300, 2.0)) == pytest.approx(2)
    line = smooth(np.arange(300.0))
    assert line[20:-20] == pytest.approx(np.arange(300.0)[20:-20])


@pytest.mark.parametrize("count", [1, 299, 300, 301, 599, 4000])
def test_a_curve_keeps_its_last_step_in_three_hundred_points(count: int) -> None:
    points = running([{"step": str(step), "total": "1.0"} for step in range(count)])
    assert len(points) <= 300 and points[-1] == (count - 1, 1.0)
