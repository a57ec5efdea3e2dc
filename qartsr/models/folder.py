"""One model folder: diffusers' own layout for each part (``unet/`` and ``vae/``), the context, and qartsr.json.

The kinds of backbones are known here. Models of another kind than Stable Diffusion's say so in qartsr.json and in a
package's architecture: ``kind``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from qartsr.errors import QartsrError
from qartsr.files import read_object, replacing_folder, write_json
from qartsr.models.defaults import usual_defaults
from qartsr.models.interface import Backbone
from qartsr.models.sd3_dit.model import SD3DiT
from qartsr.models.sd_unet.dloral import DLoRAL
from qartsr.models.sd_unet.model import SDUNet

SETTINGS, CONTEXT = "qartsr.json", "context.safetensors"
CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"


def architecture(model: Backbone) -> dict[str, Any]:
    """Everything but the weights, as JSON: rebuilds the structure through :func:`skeleton`."""
    parts = {name: _plain(part.config) for name, part in model.named_parts().items()}
    return {**parts, "context": list(model.context.shape), **settings(model)}


def settings(model: Backbone) -> dict[str, Any]:
    """What a model folder's qartsr.json says."""
    named = {} if model.kind == DEFAULT else {"kind": model.kind}
    return {**named, "timestep": model.timestep, "align": model.align}


def part_config(part: Any) -> dict[str, Any]:
    """What the config.json of a part says."""
    return {"_class_name": type(part).__name__, **_plain(part.config)}


def _plain(config: Any) -> dict[str, Any]:
    """A diffusers config without its private keys (library version, origin path): those are not architecture."""
    values: dict[str, Any] = json.loads(json.dumps({k: v for k, v in config.items() if not k.startswith("_")}))
    return values


def skeleton(arch: Mapping[str, Any]) -> Backbone:
    """A model of this architecture with arbitrary weights. Raises QartsrError when the description is unusable."""
    kind = kind_of(arch)
    try:
        parts = {name: part.from_config(arch[name]) for name, part in kind.parts.items()}
        context = torch.zeros(arch["context"])
        return kind.assemble(parts, context, int(arch["timestep"]), str(arch["align"])).eval()
    except (KeyError, TypeError, ValueError) as error:
        raise QartsrError(f"unusable architecture ({error})", "model description", "make the model again") from error


def blank(arch: Mapping[str, Any]) -> Backbone:
    """The model on torch's meta device: shapes without memory. Raises QartsrError for an unusable description."""
    with torch.device("meta"):
        return skeleton(arch)


def stored_files(folder: Path) -> tuple[str, ...]:
    """The files of a model folder, relative to it. Raises QartsrError for an unknown kind."""
    parts = kind_of(read_object(folder / SETTINGS)).parts
    return (SETTINGS, CONTEXT, *(f"{part}/{name}" for part in parts for name in (CONFIG, WEIGHTS)))


def save_model(model: Backbone, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write the model, weights in ``dtype``; the folder appears whole or not at all. Deterministic bytes."""
    with replacing_folder(folder) as temporary:
        for name, part in model.named_parts().items():
            (temporary / name).mkdir(parents=True)
            state = {key: value.detach().to(dtype).contiguous().cpu() for key, value in part.state_dict().items()}
            save_file(state, temporary / name / WEIGHTS, metadata={"format": "pt"})
            write_json(temporary / name / CONFIG, part_config(part))
        save_file({"context": model.context.detach().cpu().contiguous()}, temporary / CONTEXT)
        write_json(temporary / SETTINGS, settings(model))


@usual_defaults()
def load_model(folder: Path) -> Backbone:
    """Read a model folder, in evaluation mode. Raises QartsrError naming the missing or unfitting part."""
    model = skeleton(stored_architecture(folder))
    model.context.copy_(stored_context(folder))
    for name, part in model.named_parts().items():
        path = folder / name / WEIGHTS
        try:
            part.load_state_dict(_tensors(path))
        except RuntimeError as error:
            first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
            raise QartsrError(f"does not fit its config.json ({first})", str(path), "make the model again") from error
    return model


def stored_context(folder: Path) -> torch.Tensor:
    """(1, N, D): the prompt's embedding in a model folder. Raises QartsrError when it cannot be read."""
    return _tensors(folder / CONTEXT)["context"]


def stored_architecture(folder: Path) -> dict[str, Any]:
    """The architecture of a model folder, as :func:`skeleton` takes it. Raises QartsrError naming what is missing."""
    said = read_object(folder / SETTINGS)
    parts = {name: read_object(folder / name / CONFIG) for name in kind_of(said).parts}
    return {**said, **parts, "context": _context_shape(folder / CONTEXT)}


def _context_shape(path: Path) -> list[int]:
    try:
        with safe_open(path, framework="pt") as handle:
            if "context" in handle.keys():  # noqa: SIM118
                return list(handle.get_slice("context").get_shape())
    except (OSError, SafetensorError) as error:
        raise QartsrError(f"cannot be read ({error})", str(path), "make the model again, or check the path") from error
    raise QartsrError("has no tensor 'context'", str(path), "make the model again")


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise QartsrError(f"cannot be read ({error})", str(path), "make the model again, or check the path") from error


KINDS: Mapping[str, type[Backbone]] = {kind.kind: kind for kind in (SDUNet, DLoRAL, SD3DiT)}
DEFAULT = SDUNet.kind
"""of a model that does not say: those made before there were others"""


def kind_of(stored: Mapping[str, Any]) -> type[Backbone]:
    """The class of a model from its architecture or its qartsr.json. Raises QartsrError for an unknown kind."""
    name = stored.get("kind", DEFAULT)
    if name not in KINDS:
        what = f"is of the unknown kind {name!r}; known: {', '.join(KINDS)}"
        raise QartsrError(what, "the model", "update qartsr, or make the model again")
    return KINDS[name]
