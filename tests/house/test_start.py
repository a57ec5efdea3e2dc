"""A stage and a command begin soon: what they load on the way, and that the models are the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.house.project import ROOT, module_of, stages

LATE = (
    "accelerate", "bitsandbytes", "boto3", "diffusers.pipelines", "huggingface_hub.hf_api", "lpips", "matplotlib",
    "mlflow", "pandas", "peft", "pyiqa", "requests", "scipy", "sklearn", "sympy", "torch._dynamo",
    "torch._inductor", "torchvision", "transformers",
)  # fmt: skip
"""Loaded by those who use them, when they use them."""
DRAW = {"report", "table1", "table3", "clip_tables", "dit_tables"}
"""Stages that draw whatever happens."""


def child(code: str, *arguments: str) -> str:
    """Output of ``code`` in a process of its own, run in the repository."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW", "DIFFUSERS"))}
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


def test_stages_load_nothing_that_is_used_later() -> None:
    """Nor does a step of training on random features load any of it."""
    names = sorted({module_of(stage) for stage in stages() if stage not in DRAW})
    code = f"""
import importlib, json, sys
found = {{}}
for name in sys.argv[1:]:
    importlib.import_module(name)
    found[name] = [late for late in {LATE!r} if late in sys.modules]
import torch
from qartsr.config.training import LPIPSConfig
from qartsr.losses import LPIPS
from qartsr.training.optimizer import Group, Optimizer, constant
image, distance = torch.nn.Parameter(torch.zeros(1, 3, 32, 32)), LPIPS(LPIPSConfig(backbone="random"))
optimizer = Optimizer([Group([("image", image)], 0.1)], 0.0, constant)
optimizer.descent(lambda number: {{"total": distance(image, torch.ones_like(image))}})(0)
assert image.abs().sum() > 0
found["step"] = [late for late in {LATE!r} if late in sys.modules]
print(json.dumps(found))
"""
    assert json.loads(child(code, *names)) == {name: [] for name in [*names, "step"]}


def test_commands_load_nothing_they_do_not_use(package: Path, tmp_path: Path) -> None:
    """One after the other in one process. The second model is a folder, which packages know nothing of."""
    Image.fromarray(np.zeros((37, 53, 3), np.uint8)).save(tmp_path / "in.png")
    picture, out = str(tmp_path / "in.png"), str(tmp_path / "out.png")
    commands = [
        ["promote", "w4a4"],
        ["inspect", str(package)],
        ["upscale", picture, out, "--model", str(package), "--engine", "simulated"],
        ["upscale", picture, out, "--model", str(ROOT / "weights" / "sample")],
        ["cost", "--model", "sample", "--size", "64"],
    ]
    code = f"""
import contextlib, io, json, sys
from qartsr.cli import main
found = []
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        status = main(words)
    found.append([words[0], status, [late for late in {LATE!r} if late in sys.modules]])
from qartsr.runtime.graphs import import_openvino
import_openvino()
assert "openvino_telemetry" not in sys.modules, "it tells others of every import"
print(json.dumps(found))
"""
    found = json.loads(child(code, json.dumps(commands)))
    own = {"cost": ["sympy"]}  # torch's checks of shapes without values
    assert [(name, late) for name, _, late in found] == [(words[0], own.get(words[0], [])) for words in commands]
    assert [status for name, status, _ in found if name != "promote"] == [0, 0, 0, 0]


BUILT = """
import hashlib, torch
from tests.packing.tiny import tiny_model
from qartsr.models.sd_unet import sample_backbone
torch.use_deterministic_algorithms(True)
seen = hashlib.sha256()
with torch.no_grad():
    for model in (tiny_model(), sample_backbone(1, "adain", 0)):
        generator = torch.Generator().manual_seed(0)
        image = torch.rand((1, 3, 64, 96), generator=generator) * 2 - 1
        seen.update(repr(model).encode())
        for name, value in model.state_dict().items():
            seen.update(name.encode() + value.numpy().tobytes())
        seen.update(model(image).numpy().tobytes())
print(seen.hexdigest())
"""
WHOLE = """
import importlib.metadata, huggingface_hub
import diffusers, torch._dynamo, diffusers.models.modeling_utils, diffusers.loaders.lora_base as lora
from diffusers.utils import hub_utils, import_utils, loading_utils
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models import Transformer2DModel
from diffusers import StableDiffusionPipeline
from transformers import CLIPTextConfig, CLIPTextModel
from qartsr.models.sd_unet.diffusers_imports import AutoencoderKL, UNet2DConditionModel

assert diffusers.AutoencoderKL is AutoencoderKL and diffusers.UNet2DConditionModel is UNet2DConditionModel
assert id(BasicTransformerBlock) in torch._dynamo.trace_rules._allowed_callable_ids.function_ids
assert diffusers.models.modeling_utils.accelerate.hooks.CpuOffload
config = CLIPTextConfig(vocab_size=8, hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1)
assert isinstance(CLIPTextModel(config), lora.PreTrainedModel) and not isinstance(1, lora.PreTrainedModel)
assert issubclass(CLIPTextModel, lora.PreTrainedModel) and not issubclass(int, lora.PreTrainedModel)
assert StableDiffusionPipeline.from_pretrained
assert hub_utils.ModelCard.load == huggingface_hub.ModelCard.load
assert huggingface_hub.model_info.__name__ == "model_info"
assert issubclass(loading_utils.requests.HTTPError, OSError)
assert dict(import_utils._package_map) == dict(importlib.metadata.packages_distributions()) != {}
"""
LEAN = "import qartsr.models, sys\nassert 'torch._dynamo' not in sys.modules\n"
BROKEN = """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "diffusers.models.resnet" and sys.modules.get("torch._dynamo", 1) is None:
            raise RuntimeError("not like this")
sys.meta_path.insert(0, Finder())
import qartsr.models, diffusers
from qartsr.models.sd_unet.diffusers_imports import AutoencoderKL, UNet2DConditionModel
assert diffusers.AutoencoderKL is AutoencoderKL and diffusers.UNet2DConditionModel is UNet2DConditionModel
"""


@pytest.mark.long
def test_the_models_are_those_of_an_ordinary_import() -> None:
    """Structure, initial weights and a forward pass, to the bit.

    Where promises fail (a diffusers that uses an optional package while it loads), the ordinary import is taken.
    """
    ordinary = BROKEN + "assert sys.modules['torch._dynamo']\n"
    assert child(ordinary + BUILT) == child(LEAN + BUILT)


@pytest.mark.slow
def test_afterwards_diffusers_is_whole_in_the_same_process() -> None:
    child(LEAN + WHOLE)


@pytest.mark.long
def test_what_is_loaded_before_stays_the_same() -> None:
    """A user's session that has the optional packages already keeps them."""
    code = "import sys, scipy, torchvision\nimport qartsr.models\nassert sys.modules['scipy'] is scipy\n"
    child(code + "import torchvision.ops\nassert sys.modules['torchvision'] is torchvision\n")
