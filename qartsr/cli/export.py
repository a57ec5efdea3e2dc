"""``qartsr export SOURCE OUT --to onnx|openvino|diffusers``: a standard graph, picture to picture, that runs by itself.

Or a folder that diffusers loads by itself, of a floating-point model.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from qartsr.cli.command import SOURCE, Command, whole
from qartsr.cli.jobs import demand_file
from qartsr.cli.show import say
from qartsr.errors import QartsrError

if TYPE_CHECKING:
    from qartsr.models import Backbone

_DIFFUSERS = "diffusers"
_ENDINGS = {"onnx": ".onnx", "openvino": ".xml"}
"""Those of :mod:`qartsr.export`, which would load onnx for the sake of a help text; a test compares them."""


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help=SOURCE)
    parser.add_argument(
        "output", metavar="OUT", type=Path, help="NAME.onnx, NAME.xml (NAME.bin comes with it) or a folder"
    )
    formats = "of a graph; diffusers: a folder of its own layout, of a floating-point model"
    parser.add_argument("--to", required=True, choices=(*_ENDINGS, _DIFFUSERS), help=formats)
    size = "sides of the graph's input, one number for a square; dynamic: any (default: dynamic)"
    parser.add_argument("--size", nargs="+", metavar=("H", "W"), default=["dynamic"], help=size)
    only = "leave out x4, padding, colour fix and clamp: from an enlarged picture in [-1, 1] to one that is not clamped"
    parser.add_argument("--network-only", action="store_true", help=only)


def _run(args: argparse.Namespace) -> None:
    size = _size(args.size)
    if args.to == _DIFFUSERS:
        _write_folder(args, size)
        return
    from qartsr.export import build_model, build_picture, check_target, write_onnx, write_openvino

    check_target(args.output, args.to)
    demand_file(args.output)
    model, origin = _load(args.source)
    build = build_model if args.network_only else build_picture
    graph = build(model, size, origin | _facts(model, args.network_only))
    write = write_onnx if args.to == "onnx" else write_openvino
    write(args.output, graph)
    parts = (args.output, args.output.with_suffix(".bin")) if args.to == "openvino" else (args.output,)
    written = [path for path in parts if path.is_file()]
    say(f"{args.output}: {sum(path.stat().st_size for path in written):,} bytes")


def _write_folder(args: argparse.Namespace, size: tuple[int, int] | None) -> None:
    if size is not None or args.network_only:
        raise QartsrError("is of graphs only", "--size" if size else "--network-only", "leave it out for diffusers")
    if args.output.exists():
        raise QartsrError("is there already", str(args.output), "name a new folder")
    from qartsr.models.sd_unet.plain import write_diffusers

    write_diffusers(_load(args.source)[0], args.output)
    size_of = sum(path.stat().st_size for path in args.output.rglob("*") if path.is_file())
    say(f"{args.output}: {size_of:,} bytes")


def _size(words: list[str]) -> tuple[int, int] | None:
    if words == ["dynamic"]:
        return None
    try:
        height, width = (whole(1, 1 << 16)(word) for word in (words if len(words) > 1 else 2 * words))
    except (ValueError, argparse.ArgumentTypeError) as error:
        do = "give one number of at most 65536, two, or dynamic"
        raise QartsrError(f"{' '.join(words)!r} is no size", "--size", do) from error
    return height, width


def _load(source: str) -> tuple[Backbone, dict[str, str]]:
    """The model, and what the graph shall say of its origin."""
    import qartsr.api  # noqa: F401  # it knows the addresses
    from qartsr.files import sha256_file
    from qartsr.models import load_model
    from qartsr.packing import load_package, read_header
    from qartsr.upscale.model_source import is_address, local

    path = local(source)
    if (path / "qartsr.json").is_file():
        return load_model(path), {"qartsr.source": path.name, "qartsr.bits": "floating point"}
    path = path / "model.safetensors" if path.is_dir() else path
    model, bits = load_package(path), str(read_header(path)["bits"])
    name = source if is_address(source) else Path(source).name
    return model, {"qartsr.source": name, "qartsr.bits": bits, "qartsr.sha256": sha256_file(path)}


def _facts(model: Backbone, network_only: bool) -> dict[str, str]:
    """How to use the graph. ``qartsr.most``: longest side of the output, where there is one."""
    most = {"qartsr.most": str(model.facts.most)} if model.facts.most else {}
    if not network_only:
        return {
            "qartsr.input": "RGB (1, 3, H, W) in [0, 1], of any size that the graph declares",
            "qartsr.output": "RGB (1, 3, 4 H, 4 W) in [0, 1]",
            "qartsr.scale": "4",
            **most,
        }
    return {
        "qartsr.input": "RGB in [-1, 1], already at the size of the output (bicubic x4)",
        "qartsr.output": "RGB, to be clamped to [-1, 1], then the colour fix",
        "qartsr.align": model.align,
        "qartsr.multiple": str(model.facts.multiple),
        **most,
    }


EXPORT = Command("export", "write the network as an ONNX or OpenVINO graph, or as a diffusers folder", _arguments, _run)
