"""``qartsr export SOURCE OUT --to onnx|openvino``: the network as a standard graph that runs without this project."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from qartsr.cli.command import Command, positive
from qartsr.cli.jobs import demand_file
from qartsr.cli.show import say
from qartsr.errors import QartsrError

if TYPE_CHECKING:
    from qartsr.models import OneStepSR

_ENDINGS = {"onnx": ".onnx", "openvino": ".xml"}
"""Those of :mod:`qartsr.export`, which would load onnx for the sake of a help text; a test compares them."""


def _arguments(parser: argparse.ArgumentParser) -> None:
    source = "a package file, a model folder, models:/NAME@ALIAS or models:/NAME/VERSION"
    parser.add_argument("source", metavar="SOURCE", help=source)
    parser.add_argument("output", metavar="OUT", type=Path, help="NAME.onnx or NAME.xml (NAME.bin comes with it)")
    parser.add_argument("--to", required=True, choices=tuple(_ENDINGS), help="format of the graph")
    size = "sides of the network's input, which are those of its output, or dynamic (default: dynamic)"
    parser.add_argument("--size", nargs="+", metavar=("H", "W"), default=["dynamic"], help=size)


def _run(args: argparse.Namespace) -> None:
    size = _size(args.size)
    from qartsr.export import build_model, check_target, write_onnx, write_openvino

    check_target(args.output, args.to)
    demand_file(args.output)
    model = _load(args.source)
    graph = build_model(model, size, _facts(args.source, model))
    write = write_onnx if args.to == "onnx" else write_openvino
    write(args.output, graph)
    parts = (args.output, args.output.with_suffix(".bin")) if args.to == "openvino" else (args.output,)
    written = [path for path in parts if path.is_file()]
    say(f"{args.output}: {sum(path.stat().st_size for path in written):,} bytes")


def _size(words: list[str]) -> tuple[int, int] | None:
    if words == ["dynamic"]:
        return None
    try:
        height, width = (positive(word) for word in words)
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise QartsrError(f"{' '.join(words)!r} is no size", "--size", "give two numbers, or dynamic") from error
    return height, width


def _load(source: str) -> OneStepSR:
    from qartsr.models import load_model
    from qartsr.packing import load_package
    from qartsr.release import fetch

    path = fetch(source) if source.startswith("models:/") else Path(source)
    if (path / "qartsr.json").is_file():
        return load_model(path)
    return load_package(path / "model.safetensors" if path.is_dir() else path)


def _facts(source: str, model: OneStepSR) -> dict[str, str]:
    """What the graph cannot say: its input is upsampled already, and the colour fix comes after it."""
    return {
        "qartsr.source": Path(source).name,
        "qartsr.input": "RGB in [-1, 1], already at the size of the output (bicubic x4)",
        "qartsr.output": "RGB, to be clamped to [-1, 1]",
        "qartsr.align": model.align,
    }


EXPORT = Command("export", "write the network as an ONNX or OpenVINO graph", _arguments, _run)
