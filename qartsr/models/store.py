"""One model folder: diffusers' own layout for unet/ and vae/, the context, and qartsr.json."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from qartsr.errors import QartsrError
from qartsr.files import read_json, scratch_beside, write_json
from qartsr.models.libraries import AutoencoderKL, UNet2DConditionModel
from qartsr.models.one_step import OneStepSR


def architecture(model: OneStepSR) -> dict[str, Any]:
    """Everything but the weights, as JSON: rebuilds the structure through :func:`skeleton`."""
    return {
        "unet": _plain(model.unet.config),
        "vae": _plain(model.vae.config),
        "context": list(model.context.shape),
        "timestep": model.timestep,
        "align": model.align,
    }


def _plain(config: Any) -> dict[str, Any]:
    """A diffusers config without its private keys (library version, origin path): those are not architecture."""
    values: dict[str, Any] = json.loads(json.dumps({k: v for k, v in config.items() if not k.startswith("_")}))
    return values


def skeleton(arch: dict[str, Any]) -> OneStepSR:
    """A model of this architecture with arbitrary weights. Raises QartsrError when the description is unusable."""
    try:
        unet = UNet2DConditionModel.from_config(arch["unet"])
        vae = AutoencoderKL.from_config(arch["vae"])
        return OneStepSR(unet, vae, torch.zeros(arch["context"]), int(arch["timestep"]), str(arch["align"])).eval()
    except (KeyError, TypeError, ValueError) as error:
        raise QartsrError(f"unusable architecture ({error})", "model description", "make the model again") from error


def save_model(model: OneStepSR, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write the model, weights in ``dtype``; the folder appears whole or not at all. Deterministic bytes."""
    temporary = scratch_beside(folder)
    shutil.rmtree(temporary, ignore_errors=True)
    for name, part in (("unet", model.unet), ("vae", model.vae)):
        (temporary / name).mkdir(parents=True)
        state = {key: value.detach().to(dtype).contiguous().cpu() for key, value in part.state_dict().items()}
        save_file(state, temporary / name / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
        write_json(temporary / name / "config.json", {"_class_name": type(part).__name__, **_plain(part.config)})
    save_file({"context": model.context.detach().cpu().contiguous()}, temporary / "context.safetensors")
    write_json(temporary / "qartsr.json", {"timestep": model.timestep, "align": model.align})
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def load_model(folder: Path) -> OneStepSR:
    """Read a model folder, in evaluation mode. Raises QartsrError naming the missing or unfitting part."""
    settings = read_json(folder / "qartsr.json")
    context = _tensors(folder / "context.safetensors").get("context")
    if context is None:
        raise QartsrError("has no tensor 'context'", str(folder / "context.safetensors"), "make the model again")
    arch = {
        **settings,
        "unet": read_json(folder / "unet" / "config.json"),
        "vae": read_json(folder / "vae" / "config.json"),
        "context": list(context.shape),
    }
    model = skeleton(arch)
    model.context.copy_(context)
    for name, part in (("unet", model.unet), ("vae", model.vae)):
        path = folder / name / "diffusion_pytorch_model.safetensors"
        try:
            part.load_state_dict(_tensors(path))
        except RuntimeError as error:
            first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
            raise QartsrError(f"does not fit its config.json ({first})", str(path), "make the model again") from error
    return model


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise QartsrError(f"cannot be read ({error})", str(path), "make the model again, or check the path") from error
