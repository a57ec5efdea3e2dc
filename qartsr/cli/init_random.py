"""``qartsr init-random``: a model folder of full size with random weights, for dry runs and benchmarks."""

from __future__ import annotations

import argparse
from pathlib import Path

from qartsr.cli.command import Command, seed
from qartsr.cli.show import answer
from qartsr.errors import printable


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder to write")
    parser.add_argument(
        "--arch", choices=("osediff", "dloral", "sample", "tsdsr"), default="osediff", help="default: osediff, 950 M"
    )
    parser.add_argument("--seed", type=seed, default=0, help="the weights are a function of it (default: 0)")
    parser.add_argument("--dtype", choices=("fp32", "fp16"), default="fp32", help="of the file (default: fp32)")
    parser.add_argument("--force", action="store_true", help="replace the model that DIR holds")


def _run(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from qartsr.synthetic import ARCHITECTURES, blank, folder_size, write_random_model

    described = ARCHITECTURES[args.arch]()
    size = folder_size(blank(described), args.dtype)
    with tqdm(total=size, unit="B", unit_scale=True, desc=printable(args.folder.name)) as bar:
        write_random_model(args.folder, described, args.seed, args.dtype, args.force, bar.update)
    answer(f"{args.folder}: {args.arch}, {args.dtype}, seed {args.seed}, {size / 1e6:.1f} MB")


INIT_RANDOM = Command("init-random", "write a model folder with random weights", _arguments, _run)
