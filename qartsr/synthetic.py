"""Models nobody has to download: random weights under which activations stay finite, and the folder that holds them.

Convolutions and linear layers are normal with variance 1 / fan-in, so that each layer about keeps the variance of its
input; norms are 1 and biases 0, as at the start of a training. The folder is that of :func:`qartsr.models.save_model`,
byte for byte, written tensor by tensor: never more than one of them in memory.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from qartsr.errors import QartsrError
from qartsr.files import write_json
from qartsr.models import Backbone, blank
from qartsr.models.folder import CONFIG, CONTEXT, SETTINGS, WEIGHTS, part_config, settings
from qartsr.models.sd3_dit.tsdsr import ARCHITECTURES as DITS
from qartsr.models.sd_unet.architectures import ARCHITECTURES as UNETS
from qartsr.tensor_file import Entry, file_size, head, ordered

ARCHITECTURES = {**UNETS, **DITS}
"""Name -> description of a model known by name, complete with every default of diffusers."""


def random_tensor(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """The fp32 values of one tensor: a function of its name, its shape and ``seed``, whatever else is drawn."""
    if len(shape) < 2:
        return torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)
    digest = hashlib.sha256(f"{seed} {name} {shape}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    fan_in = 1 if name == "context" else math.prod(shape[1:])
    return torch.randn(shape, generator=generator).div_(math.sqrt(fan_in))


def random_model(described: Mapping[str, Any], seed: int, dtype: torch.dtype = torch.float32) -> Backbone:
    """The model in memory, in evaluation mode, with the values :func:`write_random_model` would store."""
    model = blank(described)
    for part_name, part in model.named_parts().items():
        prefix = f"{part_name}."
        state = {name: random_tensor(prefix + name, shape, seed).to(dtype) for name, shape in shapes(part).items()}
        part.load_state_dict(state, assign=True)
    model.context = random_tensor("context", tuple(model.context.shape), seed).to(dtype)
    return model.eval().requires_grad_(False)


def shapes(part: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shape of every stored tensor of a component."""
    return {name: tuple(value.shape) for name, value in part.state_dict().items()}


__all__ = [
    "ARCHITECTURES",
    "Report",
    "blank",
    "folder_size",
    "random_model",
    "random_tensor",
    "shapes",
    "write_random_model",
]

Report = Callable[[int], object]
"""Called with the number of bytes written since the last call."""

Precision = Literal["fp32", "fp16"]
_DTYPES = {"fp32": ("F32", torch.float32), "fp16": ("F16", torch.float16)}
_PART_METADATA = {"format": "pt"}


def write_random_model(
    folder: Path, described: Mapping[str, Any], seed: int, precision: Precision, replace: bool, report: Report
) -> None:
    """Write the model; the folder appears whole or not at all. A function of architecture, ``seed`` and ``precision``.

    An existing folder is replaced only if it is empty, or if ``replace`` is set and it holds a model. Raises
    QartsrError for any other, for a path that cannot be written, and for a disk without room (asked beforehand).
    """
    folder = folder.expanduser().resolve()
    _check_target(folder, replace)
    model = blank(described)
    _check_room(folder, folder_size(model, precision))
    with _replacing(folder) as temporary:
        for name, tensors in _files(model, precision).items():
            prefix = "" if name.startswith("context") else f"{Path(name).parts[0]}."
            _write_tensors(temporary / name, tensors, prefix, seed, report)
        for name, part in model.named_parts().items():
            write_json(temporary / name / CONFIG, {**part_config(part), **described[name]})
        write_json(temporary / SETTINGS, settings(model))


def folder_size(model: Backbone, precision: Precision) -> int:
    """Bytes of the tensor files of a model folder; ``model`` may be on the meta device."""
    return sum(file_size(tensors, _metadata(name)) for name, tensors in _files(model, precision).items())


def _files(model: Backbone, precision: Precision) -> dict[str, dict[str, Entry]]:
    """The tensor files of the folder, and what is in them."""
    dtype = _DTYPES[precision][0]
    files = {
        f"{part}/{WEIGHTS}": {name: Entry(dtype, shape) for name, shape in shapes(module).items()}
        for part, module in model.named_parts().items()
    }
    return {**files, CONTEXT: {"context": Entry(dtype, tuple(model.context.shape))}}


def _metadata(name: str) -> dict[str, str]:
    return {} if name.startswith("context") else _PART_METADATA


def _write_tensors(path: Path, tensors: Mapping[str, Entry], prefix: str, seed: int, report: Report) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    types = dict(_DTYPES.values())
    with path.open("wb") as handle:
        report(handle.write(head(tensors, _metadata(path.name))))
        for name in ordered(tensors):
            entry = tensors[name]
            values = random_tensor(prefix + name, entry.shape, seed).to(types[entry.dtype])
            report(handle.write(values.numpy().data))


def _check_target(folder: Path, replace: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise QartsrError("is a file", str(folder), "name a folder")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / SETTINGS).is_file():
        raise QartsrError("is not empty and holds no model", str(folder), "name a new folder")
    if not replace:
        raise QartsrError("holds a model already", str(folder), "give --force to replace it, or name a new folder")


def _check_room(folder: Path, needed: int) -> None:
    parent = next(path for path in folder.parents if path.exists())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise QartsrError(
            f"needs {needed / 1e9:.2f} GB where {free / 1e9:.2f} GB are free",
            str(folder),
            "free some disk space or name a folder on another disk",
        )


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder; on success it becomes ``folder``, on failure it is removed."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise QartsrError(
            f"cannot be written ({reason})", str(folder), "free some disk space or name another folder"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
