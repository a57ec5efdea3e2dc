"""``qartsr upscale`` with ``--lora``: OSEDiff on its own base instead of a model of ours."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from qartsr.cli.command import seed, side, whole

if TYPE_CHECKING:
    from qartsr.upscale.osediff import OSEDiffOptions

_NAMES = (
    "base", "lora", "prompt", "align", "official", "posterior", "seed", "process_size", "latent_tile",
    "latent_overlap", "vae_encoder_tile", "vae_decoder_tile", "merge", "device",
)  # fmt: skip
"""Those of :class:`qartsr.upscale.osediff.OSEDiffOptions`, which would load torch for a help text; a test compares."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare them; what is not given keeps OSEDiffOptions' default."""
    group = parser.add_argument_group("OSEDiff", "the published backbone; needs the extra [train]")
    group.add_argument("--lora", metavar="FILE", type=Path, help="OSEDiff's checkpoint, osediff.pkl")
    base = "Stable Diffusion 2.1-base: a folder in diffusers layout, or a hub id (default: a community mirror)"
    group.add_argument("--base", metavar="DIR", help=base)
    group.add_argument("--prompt", metavar="TEXT", help="given to the text encoder as it is (default: the empty text)")
    group.add_argument("--align", choices=("none", "adain", "wavelet"), help="colour fix (default: adain)")
    group.add_argument("--posterior", choices=("sample", "mode"), help="of the encoder (default: mode)")
    group.add_argument("--seed", metavar="S", type=seed, help="of the sample, for every image anew (default: 0)")
    tiles = whole(1, 1 << 20)
    size = "enlarge images that x4 leaves smaller than this (default: 0, with --official 512)"
    group.add_argument("--process-size", metavar="P", type=side, help=size)
    tile = "latent pixels of a tile (default: 64, with --official 96)"
    group.add_argument("--latent-tile", metavar="N", type=tiles, help=tile)
    overlap = "latent pixels that neighbours share (default: 8, with --official 32)"
    group.add_argument("--latent-overlap", metavar="M", type=side, help=overlap)
    encoder = "image pixels of a VAE encoder tile (with --official 1024)"
    group.add_argument("--vae-encoder-tile", metavar="N", type=tiles, help=encoder)
    decoder = "latent pixels of a VAE decoder tile (with --official 224)"
    group.add_argument("--vae-decoder-tile", metavar="M", type=tiles, help=decoder)
    merge = "fold the LoRA into the weights (default), or run it beside them"
    group.add_argument("--merge", action=argparse.BooleanOptionalAction, default=None, help=merge)
    official = "do what the published script does, sizes, tiles and truncation included"
    group.add_argument("--official", action="store_true", default=None, help=official)


def given(args: argparse.Namespace) -> list[str]:
    """Which of them are on the command line, as written there; ``--device`` serves every model and is none of them."""
    named = [name for name in _NAMES if name != "device" and getattr(args, name, None) is not None]
    return ["--" + name.replace("_", "-") for name in named]


def osediff_options(args: argparse.Namespace) -> OSEDiffOptions:
    """The options of a parsed command line; ``--lora`` must be among them."""
    from qartsr.upscale.osediff import OSEDiffOptions

    values = {name: getattr(args, name, None) for name in _NAMES}
    return OSEDiffOptions(**{name: value for name, value in values.items() if value is not None})
