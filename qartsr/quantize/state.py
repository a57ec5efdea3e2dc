"""A quantized model on disk: plan.json and the values of its parts. The original weights stay in the FP model."""

from __future__ import annotations

import shutil
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from qartsr.errors import QartsrError
from qartsr.files import write_text
from qartsr.quantize.apply import apply, quantized
from qartsr.quantize.plan import Plan


def _values(model: nn.Module) -> dict[str, Tensor]:
    """Every tensor of the quantized layers' parts, by full name."""
    return {
        f"{name}.{key}": value
        for name, layer in quantized(model).items()
        for key, value in layer.state_dict().items()
        if key not in ("weight", "bias")
    }


def save_state(model: nn.Module, plan: Plan, folder: Path) -> None:
    """Write plan.json and state.safetensors; the folder appears whole or not at all."""
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    write_text(temporary / "plan.json", plan.model_dump_json(indent=1) + "\n")
    tensors = {name: value.detach().cpu().contiguous() for name, value in _values(model).items()}
    save_file(tensors, temporary / "state.safetensors")
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def load_state(model: nn.Module, folder: Path) -> Plan:
    """Quantize the FP ``model`` in place as the folder says. Raises QartsrError naming the key that does not fit."""
    plan = read_plan(folder / "plan.json")
    apply(model, plan)
    path = folder / "state.safetensors"
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise QartsrError(f"cannot be read ({error})", str(path), "run the stage that makes it again") from error
    expected = _values(model)
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors or name not in expected:
            problem = "lacks" if name not in tensors else "has the unknown"
            raise QartsrError(f"{problem} key {name!r}", str(path), "run the stage that makes it again")
        if tensors[name].shape != expected[name].shape:
            raise QartsrError(f"key {name!r} has the wrong shape", str(path), "run the stage that makes it again")
        expected[name].copy_(tensors[name])
    return plan


def read_plan(path: Path) -> Plan:
    """plan.json. Raises QartsrError when it is missing or not a plan."""
    try:
        return Plan.model_validate_json(path.read_text())
    except OSError as error:
        raise QartsrError(f"cannot be read ({error.strerror})", str(path), "check the path") from error
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise QartsrError(f"is not a plan ({reason})", str(path), "run the stage that makes it again") from error
