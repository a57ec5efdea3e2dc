"""Assemble the page and the pictures beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image

from qartsr.evaluate.pictures import RANGE, contact_sheet
from qartsr.evaluate.report import plots, theme
from qartsr.evaluate.report.about import about
from qartsr.evaluate.report.clips import clips_shown
from qartsr.evaluate.report.crops import FULL, SceneCuts, cut_scenes, data_uri, lossy_uri, spread
from qartsr.evaluate.report.inputs import Contents, Inputs, Table, read, read_table
from qartsr.evaluate.report.layers import bits_rows, figures, layer_rows, read_layers
from qartsr.evaluate.report.rows import DASH, artifacts, columns, headline, per_image, probe_rows, tables, unavailable
from qartsr.files import write_bytes, write_text
from qartsr.images import write_image

_ENLARGED = 2


def write_report(inputs: Inputs, out: Path) -> None:
    """``out/index.html`` (needs no other file) and ``comparison.png``, ``rate_quality.png``, ``curves.png``.

    Also what ``dvc plots`` draws: ``results.csv``, ``rpq.csv``, ``et.csv``, with a column that names the bit-width.

    Raises QartsrError when an evaluation is missing. Curves, probe, packages and receipts are shown where they exist.
    """
    contents = read(inputs)
    scenes = cut_scenes(contents)
    losses, probe = _losses(inputs), read_table(inputs.curves / "probe.csv")
    rate, layers = plots.rate_quality(contents), read_layers(contents)
    page = _template().render(
        contents=contents,
        about=about(inputs),
        scenes=[_embedded(scene) for scene in scenes],
        clips=[
            clip._asdict() | {"quality": _figure(clip.quality, f"clip{number}", "frame")}
            for number, clip in enumerate(clips_shown(contents))
        ],
        headline=headline(contents),
        columns=columns(contents),
        tables=tables(contents),
        artifacts=artifacts(contents),
        layers=layers,
        layer_figures=[
            _figure(draw, f"layers{number}", "layer" if number == 0 else "")
            for number, draw in enumerate(figures(layers, tuple(inputs.bits)) if layers else ())
        ],
        bits_rows=bits_rows(layers),
        layer_rows=layer_rows(layers),
        per_image=per_image(contents),
        unavailable=unavailable(contents),
        rate=_figure(rate, "rate"),
        losses=[_figure(draw, f"loss{number}", "step") for number, draw in enumerate(losses)],
        probe=[_figure(draw, f"probe{number}") for number, draw in enumerate(_probe(probe, inputs))],
        probe_rows=probe_rows(probe),
        dash=DASH,
        error_range=RANGE,
        palette=theme,
        style=Markup(_text("page.css")),
        script=Markup(_text("page.js")),
    )
    write_text(out / "index.html", page)
    sheet = _comparison(spread(scenes, FULL))
    write_image(out / "comparison.png", sheet)
    write_bytes(out / "rate_quality.png", theme.png([rate]))
    if losses:
        write_bytes(out / "curves.png", theme.png(losses))
    for name, lines in _for_dvc(contents).items():
        write_text(out / name, "".join(f"{','.join(map(str, line))}\n" for line in lines))


def _for_dvc(contents: Contents) -> dict[str, list[tuple[object, ...]]]:
    """Name of a CSV file -> its lines. DVC draws none of one that has a heading only."""
    sized = [subject for subject in contents.subjects if subject.bytes and "psnr_rgb" in subject.scores]
    points = [(each.title, each.bytes / 1e6, each.scores["psnr_rgb"]) for each in sized]
    found: dict[str, list[tuple[object, ...]]] = {"results.csv": [("model", "mb", "psnr_rgb_db"), *points]}
    for phase, name in (("quantize", "rpq.csv"), ("extend", "et.csv")):
        found[name] = [("bits", "step", "loss")]
        for bits in contents.inputs.bits:
            table = read_table(contents.inputs.curves / f"{phase}-{bits}.csv")
            found[name] += [(bits, step, loss) for step, loss in plots.running(table)]
    return found


def _text(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["data_uri"] = data_uri
    return environment.from_string(_text("page.html.j2"))


def _figure(draw: theme.Draw, name: str, hover: str = "") -> Markup:
    return Markup(theme.svg(draw, name, hover))


def _losses(inputs: Inputs) -> list[theme.Draw]:
    """The phases that ran, in order."""

    def of(phase: str) -> list[plots.Line]:
        return plots.lines([(bits, read_table(inputs.curves / f"{phase}-{bits}.csv")) for bits in inputs.bits])

    phases = [
        ("TRQ: full precision, retrained", plots.single("full precision", read_table(inputs.curves / "retrain.csv"))),
        ("RPQ: module by module", of("quantize")),
        ("ET: all modules together", of("extend")),
    ]
    return [plots.loss(title, drawn) for title, drawn in phases if drawn]


def _probe(rows: Table, inputs: Inputs) -> list[theme.Draw]:
    if not rows:
        return []
    panels = [
        ("zh_error", "Error of Z_H, UNet quantized", "relative error", True),
        ("eps_error", "Error of the predicted noise", "relative error", True),
        ("psnr_unet_only", "Image, UNet quantized", "PSNR on luma, dB", False),
    ]
    return [plots.probe(rows, inputs.bits, *panel) for panel in panels]


def _embedded(scene: SceneCuts) -> dict[str, Any]:
    """A scene with its pictures as data addresses."""
    cuts = [
        cut._asdict()
        | {
            "image": data_uri(cut.image),
            "error": data_uri(cut.error) if cut.error else "",
            "whole": lossy_uri(cut.whole),
            "wide": cut.whole.width,
            "high": cut.whole.height,
        }
        for cut in scene.cuts
    ]
    return {**scene._asdict(), "thumbnail": data_uri(scene.thumbnail), "cuts": cuts}


def _comparison(scenes: list[SceneCuts]) -> Image.Image:
    """One wide picture: a row per scene, a column per subject, every crop enlarged to one size without smoothing."""
    side = _ENLARGED * max(max(scene.box[2] - scene.box[0], scene.box[3] - scene.box[1]) for scene in scenes)
    rows = [[cut.image.resize((side, side), Image.Resampling.NEAREST) for cut in scene.cuts] for scene in scenes]
    captions = [[cut.caption for cut in scene.cuts] for scene in scenes]
    return contact_sheet(rows, [cut.title for cut in scenes[0].cuts], captions)
