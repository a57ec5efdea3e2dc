"""Bytes as they must not be, and who has to say so in one sentence."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from qartsr.bulk import Row, open_manifest
from qartsr.config import load_params
from qartsr.errors import QartsrError
from qartsr.images import decode_image, encode_png
from qartsr.packing import load_package
from qartsr.training.checkpoint import Checkpoint
from tests.conftest import ROOT
from tests.packing.test_damage import forged, real

Trial = Callable[[Random, Path], None]
"""One attempt, in an empty folder; an exception, or an assertion, is a failure."""
_ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1e308, float("nan"), float("inf"), 2**63, "", "\0", "../x", "a" * 10_000, [], {}, [[]] * 50,
)  # fmt: skip


def damaged(data: bytes, random: Random) -> bytes:
    """Bits flipped, a burst, a cut, something put in or left out, two places exchanged, another length in front."""
    body, place = bytearray(data), random.randrange(max(1, len(data)))
    match random.randrange(8):
        case 0:
            body[place] ^= 1 << random.randrange(8)
        case 1:
            for _ in range(random.randrange(2, 50)):
                body[random.randrange(len(body))] ^= 1 << random.randrange(8)
        case 2:
            body[place : place + 64] = random.randbytes(len(body[place : place + 64]))
        case 3:
            del body[place:]
        case 4:
            body[place:place] = random.randbytes(random.randrange(1, 200))
        case 5:
            del body[place : place + random.randrange(1, 200)]
        case 6:
            other = random.randrange(len(body))
            body[place : place + 16], body[other : other + 16] = body[other : other + 16], body[place : place + 16]
        case _:
            body[:8] = random.randbytes(8)
    return bytes(body)


def refused(action: Callable[[], object]) -> bool:
    """Whether it was, in one sentence."""
    try:
        action()
    except QartsrError as error:
        assert "\n" not in str(error) and len(str(error)) < 2000, "no sentence"
        return True
    return False


def package(random: Random, folder: Path) -> None:
    """Damage is never loaded."""
    data = damaged(real(), random)
    (folder / "p").write_bytes(data)
    assert refused(lambda: load_package(folder / "p")) or data == real(), "damage was loaded"


def forged_package(random: Random, folder: Path) -> None:
    """A value of header or table replaced by its maker: refused, or a model all of whose numbers are numbers."""

    def change(header: dict[str, Any], table: dict[str, Any]) -> None:
        node: Any = header if random.random() < 0.6 else table
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            key = random.choice(keys)
            below = node[key]
            if not isinstance(below, dict | list) or not below or random.random() < 0.15:
                node[key] = random.choice(_ODD)
                return
            node = below

    (folder / "p").write_bytes(forged(change))

    def read() -> None:
        model = load_package(folder / "p")
        assert all(torch.isfinite(value).all() for value in model.state_dict().values() if value.is_floating_point())

    refused(read)


def _picture(random: Random) -> bytes:
    shape = (random.randrange(1, 40), random.randrange(1, 40), 3)
    image, buffer = (
        Image.fromarray(np.random.default_rng(random.randrange(1 << 30)).integers(0, 256, shape, np.uint8)),
        io.BytesIO(),
    )
    kind = random.choice(("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"))
    image.save(buffer, kind, **({"exif": Image.Exif()} if kind in ("PNG", "JPEG", "WEBP") else {}))
    return buffer.getvalue()


def picture(random: Random, folder: Path) -> None:
    """Refused, or a picture that can be written."""
    data = damaged(_picture(random), random)
    refused(lambda: encode_png(decode_image(data, "x", max_pixels=1 << 22)))


def parameters(random: Random, folder: Path) -> None:
    """Damaged text, or an odd value anywhere in it."""
    text = (ROOT / "params.yaml").read_bytes()
    if random.random() < 0.5:
        text = damaged(text, random)
    else:
        values = node = yaml.safe_load(text)
        while True:
            key = random.choice(list(node))
            if not isinstance(node[key], dict) or not node[key] or random.random() < 0.15:
                node[key] = random.choice(_ODD)
                break
            node = node[key]
        text = yaml.safe_dump(values, allow_unicode=True).encode()
    (folder / "params.yaml").write_bytes(text)
    refused(lambda: load_params(folder / "params.yaml"))


def checkpoint(random: Random, folder: Path) -> None:
    """A damaged checkpoint is set aside, never gone on from."""
    kept = Checkpoint(folder, 0.0)
    tensors = {"a": torch.arange(40.0), "b": torch.ones(3, 3)}
    kept.save(tensors, {"step": 3})
    file = next(path for path in sorted(folder.iterdir()) if path.suffix == ".safetensors")
    before = file.read_bytes()
    file.write_bytes(damaged(before, random))
    same = file.read_bytes() == before
    found = Checkpoint(folder, 0.0).load()
    assert same == (found is not None), "damage was continued from" if found else "a sound one was refused"


def manifest(random: Random, folder: Path) -> None:
    """Of a damaged manifest no row is invented."""
    with open_manifest(folder / "m") as begun:
        for number in range(5):
            begun.add(Row(f"{number}.png", f"{number}.png", "s", "m", "{}"))
    sound = (folder / "m").read_bytes()
    (folder / "m").write_bytes(damaged(sound, random))

    def read() -> None:
        with open_manifest(folder / "m") as again:
            for number in range(5):
                again.find(f"{number}.png")

    refused(read)
    for line in (folder / "m").read_bytes().splitlines() if not refused(read) else []:
        json.loads(line)


IN_PROCESS: dict[str, Trial] = {
    "packages, damaged": package,
    "packages, forged with a valid checksum": forged_package,
    "pictures": picture,
    "params.yaml": parameters,
    "checkpoints": checkpoint,
    "manifests": manifest,
}
