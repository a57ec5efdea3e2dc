"""Does the integer engine give the image of the simulation?

    python -m benchmarks.engines_agree --picture docs/images/engines.png

The shipped sample backbone, quantized with QArtSR's recipe at minimum and maximum (nothing trained), folded and packed,
restores one photograph from its bicubic quarter: by the simulation (the arithmetic of training, fp32) and by the
integer engine. Every layer is also compared on the input it has in the simulation.

A difference in the last bit of one layer can tip a value between two codes of the next, and from there the images part.
How far two images of one model may be apart is therefore measured too: the same simulation in fp64. Nothing is time.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.machine import machine, slug, versions
from qartsr.config import parse_bits
from qartsr.cost import qartsr_method
from qartsr.data.pairs import image_tensor, to_unit
from qartsr.data.photographs import photograph_file
from qartsr.engines import Integer
from qartsr.evaluate.pictures import contact_sheet, error_map
from qartsr.images import upsample
from qartsr.models import OneStepSR, fold_constants, load_model
from qartsr.packing import PackedLayer, load_package, write_package
from qartsr.quantize import apply, initialise, observe, plan, round_for_storage

ROOT = Path(__file__).resolve().parent.parent
SIDE = 192
"""Pixels of the restored square."""
_TEST, _CALIBRATION = "astronaut", ("coffee", "chelsea")


class Pair(NamedTuple):
    """One bit-width: the images as uint8 (3, H, W), and the relative difference of every layer."""

    simulated: Tensor
    integer: Tensor
    double: Tensor
    """the simulation in fp64"""
    layers: dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", nargs="+", default=["w4a4", "w2a2"])
    parser.add_argument("--picture", type=Path, help="write both images and their difference side by side")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    hr, lq = _crop(_TEST)
    pairs = {bits: compare(bits, lq) for bits in args.bits}
    result = {"date": str(date.today()), "machine": machine(), "versions": versions(), "side": SIDE}
    result |= {"bits": {bits: _numbers(pair, hr) for bits, pair in pairs.items()}}
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"engines_agree_{slug()}_{result['date']}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    if args.picture:
        picture(pairs, hr).save(args.picture, optimize=True)
    print(path.read_text())


@torch.no_grad()
def compare(bits: str, lq: Tensor) -> Pair:
    """Both engines on ``lq`` (1, 3, H, W)."""
    simulated = package(bits)
    integer = Integer().prepare(copy.deepcopy(simulated))
    double = _eight_bits(copy.deepcopy(simulated).double().restore(lq.double()))
    twins, layers = dict(integer.named_modules()), dict[str, float]()

    def look(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_: nn.Module, inputs: Any, output: Tensor) -> None:
            layers[name] = float((twins[name](inputs[0]) - output).abs().max() / output.abs().max())

        return hook

    for name, layer in simulated.named_modules():
        if isinstance(layer, PackedLayer):
            layer.register_forward_hook(look(name))
    return Pair(_eight_bits(simulated.restore(lq)), _eight_bits(integer.restore(lq)), double, layers)


def package(bits: str) -> OneStepSR:
    """The sample backbone, quantized, folded, written and loaded."""
    model = load_model(ROOT / "weights" / "sample").requires_grad_(False)
    decided = plan(model, qartsr_method("osediff"), parse_bits(bits))
    statistics = observe(model, [_crop(name)[1] for name in _CALIBRATION])
    apply(model, decided)
    initialise(model, statistics)
    fold_constants(model)
    round_for_storage(model)
    with tempfile.TemporaryDirectory() as folder:
        write_package(Path(folder) / "p", model, decided, {"profile": "sample"})
        return load_package(Path(folder) / "p")


def _crop(name: str) -> tuple[Tensor, Tensor]:
    """The middle of a photograph as uint8 (3, H, W), and what the network gets of its bicubic quarter."""
    image = Image.open(photograph_file(name)).convert("RGB")
    left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 4
    hr = image.crop((left, top, left + SIDE, top + SIDE))
    lr = hr.resize((SIDE // 4, SIDE // 4), Image.Resampling.BICUBIC)
    return image_tensor(hr), to_unit(image_tensor(upsample(lr)))[None]


def _eight_bits(image: Tensor) -> Tensor:
    return ((image[0] + 1) * 127.5).round().to(torch.uint8)


def _psnr(a: Tensor, b: Tensor) -> float:
    """Of all channels, in dB; 80 for equal images."""
    error = (a.double() - b.double()).square().mean()
    return float(-10 * torch.log10((error / 255**2).clamp_min(1e-8)))


def _numbers(pair: Pair, hr: Tensor) -> dict[str, Any]:
    images = {"simulated": pair.simulated, "integer": pair.integer, "simulated_fp64": pair.double}
    return {
        "layers": len(pair.layers),
        "worst_layer_relative_difference": max(pair.layers.values()),
        "psnr_to_hr": {name: _psnr(image, hr) for name, image in images.items()},
        "to_simulated": {
            name: {"psnr": _psnr(image, pair.simulated), "share_of_different_values": _share(image, pair.simulated)}
            for name, image in images.items()
            if name != "simulated"
        },
    }


def _share(a: Tensor, b: Tensor) -> float:
    return float((a != b).double().mean())


def picture(pairs: dict[str, Pair], hr: Tensor) -> Image.Image:
    """A row per bit-width: simulation, integer engine, and how far apart they are."""
    rows, captions = [], []
    for bits, pair in pairs.items():
        simulated, integer = _image(pair.simulated), _image(pair.integer)
        rows.append([simulated, integer, error_map(integer, simulated)])
        quality = [f"{bits.upper()}, {_psnr(image, hr):.2f} dB to HR" for image in (pair.simulated, pair.integer)]
        between = [f"{_psnr(image, pair.simulated):.1f} dB" for image in (pair.integer, pair.double)]
        captions.append([*quality, f"{between[0]}; fp32 to fp64: {between[1]}"])
    sheet = contact_sheet(rows, ("simulation, fp32", "integer engine", "difference"), captions)
    return sheet.quantize(256)


def _image(pixels: Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


if __name__ == "__main__":
    main()
