"""The page: three tabs around :mod:`qartsr.web.compare`. Needs the extra ``web`` (Gradio).

It reads only: models are those that whoever started it offers, uploads and results lie in a scratch folder and are
deleted after an hour or with the process, and nothing is fetched from elsewhere, fonts included.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from qartsr.errors import QartsrError
from qartsr.release.leaderboard import leaderboard
from qartsr.web.compare import (
    BICUBIC,
    FP,
    Batch,
    Choice,
    Comparison,
    Limits,
    Models,
    batch,
    choices,
    compare,
    windows,
)

KEPT = 3600
"""Seconds."""
_HEADS = ("model", "bytes", "seconds", "PSNR to FP, dB", "PSNR, dB")
_BOARD = ("model", "version", "alias", "bits", "method", "PSNR, dB", "over FP, dB", "SSIM", "PSNR to FP, dB", "MB")
_PROGRESS = gr.Progress()
"""As a default, it is how Gradio hands one over."""
_CSS = """
.gradio-container {max-width: 1200px !important}
:focus-visible {outline: 3px solid var(--color-accent) !important; outline-offset: 2px}
:is(td, th) {overflow-wrap: normal !important; word-break: normal !important}
.grid-container {grid-template-columns: repeat(auto-fill, minmax(min(260px, 45%), 1fr)) !important}
.caption-label {white-space: normal !important}
@media (max-width: 640px) {.gradio-container {padding: 8px !important}}
"""


class Offer(NamedTuple):
    """What a page is made of."""

    models: Models
    sources: Sequence[str]
    """those that are offered; empty: packages and registered versions that are there when the page is opened"""
    fp: str | None
    """the floating-point model"""
    limits: Limits
    promote: Callable[[str], str] | None
    """makes the version at an address champion and says what came of it; None: the page only reads"""


class _Seen(NamedTuple):
    """What a visitor has made."""

    folder: Path
    comparison: Comparison


def serve(offer: Offer, host: str, port: int | None) -> None:
    """Show the page until it is interrupted; without ``port`` on the first free one from 7860 on."""
    with tempfile.TemporaryDirectory(prefix="qartsr-web-") as scratch:
        page = build(offer, Path(scratch))
        page.queue(max_size=offer.limits.waiting)
        page.launch(
            server_name=host,
            server_port=port,
            allowed_paths=[scratch],
            max_file_size=256 * gr.FileSize.MB,
            state_session_capacity=16,
            footer_links=[],
            run_history=False,
            share=False,
            ssr_mode=False,
            enable_monitoring=False,
            css=_CSS,
            theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        )


def build(offer: Offer, scratch: Path) -> gr.Blocks:
    """The page; what visitors make lies in ``scratch``."""
    with gr.Blocks(title="qartsr", analytics_enabled=False, delete_cache=(KEPT, KEPT)) as page:
        gr.Markdown("# qartsr\nPictures four times as wide and high, by models of few bits.")
        labels, _ = _offered(offer)
        with gr.Tab("Compare"):
            pickers = [_compare_tab(offer, scratch, labels)]
        with gr.Tab("Many"):
            pickers.append(_batch_tab(offer, scratch, labels))
        with gr.Tab("Leaderboard"):
            _board_tab(offer, page)
        note = gr.Markdown()

        def load() -> list[Any]:
            labels, words = _offered(offer)
            return [*(gr.update(choices=labels) for _ in pickers), words]

        page.load(load, outputs=[*pickers, note], api_visibility="private")
    return page


def _offered(offer: Offer) -> tuple[list[str], str]:
    """What may be chosen, and why there is no more; asked anew by every visitor."""
    found, note = choices(offer.sources)
    note = note if found else f"No model is offered. {note} Make one with `make demo`, or name one with `--model`."
    return [choice.label for choice in found], note


def _compare_tab(offer: Offer, scratch: Path, labels: list[str]) -> gr.Dropdown:
    most = offer.limits
    seen = gr.State(None, time_to_live=KEPT, delete_callback=_forget)
    with gr.Row():
        with gr.Column(min_width=280):
            picture = gr.Image(label=f"Picture, at most {most.pixels:,} pixels", type="filepath", image_mode=None,
                               sources=["upload", "clipboard"], height=260)  # fmt: skip
            with gr.Accordion("The original, to measure errors against", open=False):
                original = gr.Image(label="Four times as wide and high", type="filepath", image_mode=None,
                                    sources=["upload", "clipboard"], height=200)  # fmt: skip
        with gr.Column(min_width=280):
            chosen = gr.Dropdown(labels, value=labels[:2], multiselect=True, max_choices=most.models,
                                 label=f"Models, at most {most.models}")  # fmt: skip
            go = gr.Button("Enlarge", variant="primary")
            table = gr.Markdown()
            files = gr.Files(label="Download", interactive=False)
    with gr.Row():
        left = gr.Dropdown([], label="Left", min_width=140)
        right = gr.Dropdown([], label="Right", min_width=140)
    slider = gr.ImageSlider(label="Drag the line; wheel or pinch zooms both", type="filepath", max_height=640)
    gr.Markdown("### In step\nThe same window of each.")
    with gr.Row():
        zoom = gr.Slider(1, 32, 4, step=1, label="Zoom")
        across = gr.Slider(0, 100, 50, step=1, label="Across, %")
        down = gr.Slider(0, 100, 50, step=1, label="Down, %")
    gallery = gr.Gallery(label="Window", format="png", height="auto", preview=False)
    views = [slider, gallery]
    inputs = [seen, left, right, across, down, zoom]

    def run(path: str | None, names: list[str], truth: str | None, progress: gr.Progress = _PROGRESS) -> Iterator[Any]:
        yield from _run(offer, scratch, path, names, truth, progress)

    go.click(run, [picture, chosen, original], [seen, table, files, left, right], concurrency_limit=1,
             concurrency_id="model", api_visibility="private").then(
        _view, inputs, views, api_visibility="private")  # fmt: skip
    for each in (left, right, zoom, across, down):
        each.input(_view, inputs, views, show_progress="hidden", trigger_mode="always_last", api_visibility="private")
    return chosen


def _run(
    offer: Offer, scratch: Path, path: str | None, names: list[str], truth: str | None, progress: Any
) -> Iterator[list[Any]]:
    """What the button does; one update after each model."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    try:
        if path is None:
            raise QartsrError("there is none", "the picture", "drop one first")
        known, _ = choices(offer.sources)
        chosen = [choice for choice in known if choice.label in names]
        original = None if truth is None else Path(truth)
        for now in compare(offer.models, Path(path), chosen, folder, fp=offer.fp, original=original,
                           limits=offer.limits, report=lambda share, what: progress(share, what)):  # fmt: skip
            yield _shown(_Seen(folder, now), chosen)
    except (QartsrError, MemoryError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise gr.Error(_sentence(error, path, truth), duration=None, print_exception=False) from error


def _shown(seen: _Seen, chosen: Sequence[Choice]) -> list[Any]:
    layers, rows = seen.comparison.layers, seen.comparison.rows
    cells = [(row.model, f"{row.bytes:,}", f"{row.seconds:.2f}", _db(row.psnr_to_fp), _db(row.psnr)) for row in rows]
    columns = [column for column in range(len(_HEADS)) if any(line[column] for line in cells)]
    table = _table([_HEADS[column] for column in columns], [[line[column] for column in columns] for line in cells])
    best = next((choice.label for choice in reversed(chosen) if choice.label in layers), FP)
    left, right = (gr.update(choices=list(layers), value=value) for value in (BICUBIC, best))
    return [seen, table, [str(file) for file in seen.comparison.outputs()], left, right]


def _view(seen: _Seen | None, left: str, right: str, across: float, down: float, zoom: float) -> list[Any]:
    """Slider and windows."""
    if seen is None or not seen.folder.is_dir():
        return [None, []]
    layers = seen.comparison.layers
    pair = tuple(str(layers[name if name in layers else BICUBIC]) for name in (left, right))
    return [pair, windows(seen.comparison, list(layers), across / 100, down / 100, zoom)]


def _forget(seen: _Seen | None) -> None:
    if seen is not None:
        shutil.rmtree(seen.folder, ignore_errors=True)


def _batch_tab(offer: Offer, scratch: Path, labels: list[str]) -> gr.Dropdown:
    most = offer.limits
    words = f"At most {most.files} pictures, or clips of at most {most.frames} frames"
    with gr.Row():
        some = gr.File(label=f"Files. {words}", file_count="multiple")
        whole = gr.File(label="A folder", file_count="directory")
    chosen = gr.Dropdown(labels, value=next(iter(labels), None), label="Model")
    go = gr.Button("Enlarge all", variant="primary")
    archive = gr.File(label="Download", interactive=False)
    table = gr.Markdown()

    def run(
        some: list[str] | None, whole: list[str] | None, name: str | None, progress: gr.Progress = _PROGRESS
    ) -> Any:
        known, _ = choices(offer.sources)
        source = next((choice.source for choice in known if choice.label == name), None)
        folder = Path(tempfile.mkdtemp(dir=scratch))
        try:
            if source is None:
                raise QartsrError("none is chosen", "the model", "choose one")
            files = [Path(file) for file in [*(some or []), *(whole or [])]]
            done: Batch = batch(offer.models, files, source, folder, limits=offer.limits,
                                report=lambda share, what: progress(share, what))  # fmt: skip
        except (QartsrError, MemoryError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise gr.Error(_sentence(error), duration=None, print_exception=False) from error
        return [None if done.archive is None else str(done.archive), _table(("file", "became"), done.lines)]

    go.click(run, [some, whole, chosen], [archive, table], concurrency_limit=1, concurrency_id="model",
             api_visibility="private")  # fmt: skip
    return chosen


def _board_tab(offer: Offer, page: gr.Blocks) -> None:
    said = gr.Markdown()
    table = gr.Markdown()
    again = gr.Button("Read again")
    versions = gr.Dropdown([], label="Version", visible=offer.promote is not None)

    def read() -> list[Any]:
        try:
            standings = leaderboard()
        except QartsrError as error:
            return [f"There is no leaderboard: {error}", "", gr.update(choices=[])]
        rows = [(each.model, each.version, ", ".join(each.aliases), each.bits, each.method, _db(each.psnr),
                 _gap(each.psnr, each.fp_psnr), "" if each.ssim is None else f"{each.ssim:.4f}", _db(each.psnr_to_fp),
                 "" if each.bytes is None else f"{each.bytes / 1e6:.2f}") for each in standings]  # fmt: skip
        words = "Registered versions, best PSNR first." if rows else "No version is registered yet."
        return [words, _table(_BOARD, rows), gr.update(choices=[each.uri for each in standings])]

    outputs = [said, table, versions]
    page.load(read, outputs=outputs, api_visibility="private")
    again.click(read, outputs=outputs, api_visibility="private")
    if offer.promote is None:
        return
    button, promote = gr.Button("Make it champion"), offer.promote

    def run(uri: str | None) -> str:
        try:
            return promote(uri or "")
        except QartsrError as error:
            raise gr.Error(_sentence(error), duration=None, print_exception=False) from error

    button.click(run, versions, said, api_visibility="private")


def _sentence(error: Exception, *uploads: str | None) -> str:
    """Of uploads, people know the name and not the place."""
    text = "there is not enough memory for it" if isinstance(error, MemoryError) else str(error)
    for upload in filter(None, uploads):
        text = text.replace(upload, Path(upload).name)
    return text


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Markdown, in which nobody's file name means anything."""
    lines = [heads, ["---"] * len(heads), *([_plain(str(cell)) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _plain(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in " ,.+-/" else f"&#{ord(letter)};" for letter in text)


def _db(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _gap(value: float | None, reference: float | None) -> str:
    return "" if value is None or reference is None else f"{value - reference:+.2f}"
