"""CONTRIBUTING's recipe, followed: a new quantizer and a new branch in a copy of the library."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from qartsr.branches.family import branch_layout
from qartsr.config.base import Config
from qartsr.errors import QartsrError
from qartsr.transforms.family import TRANSFORMS

_CONFIG = '''

class MineConfig(AbstractRangesConfig):
    """Ends at the mean of the magnitudes, times a factor."""

    kind: Literal["mine"] = "mine"
    factor: float = 3.0


class FirstColumnsConfig(Config):
    """The first columns of the weight, as they are."""

    kind: Literal["columns"] = "columns"
    rank: int = 2

'''
_QUANTIZER = """
from __future__ import annotations
import torch
from torch import nn
from qartsr.config.parts import MineConfig
from qartsr.quantizers.fake import fake_quantize, range_grid
from qartsr.quantizers.family import QUANTIZERS, gathered

@QUANTIZERS.register(MineConfig)
class Mine(nn.Module):
    def __init__(self, config, bits, shape):
        super().__init__()
        self.factor, self.levels, self.shape = config.factor, 2**bits - 1, shape
        self.end = nn.Parameter(torch.ones(shape))

    @torch.no_grad()
    def calibrate(self, stats):
        self.end.copy_((self.factor * gathered(stats, self.shape).mean_magnitude()).reshape(self.shape))

    def grid(self, x):
        return range_grid(-self.end, self.end, self.levels)

    def forward(self, x):
        return fake_quantize(x, self.grid(x))
"""
_BRANCH = """
from __future__ import annotations
import torch
from torch import nn
from qartsr.branches.family import BRANCHES, Layout, clipped_rank, product
from qartsr.config.parts import FirstColumnsConfig

@BRANCHES.register(FirstColumnsConfig)
class FirstColumns(nn.Module):
    @staticmethod
    def layout(config, shape):
        return Layout(clipped_rank(config.rank, shape), 0, 0)

    def __init__(self, config, shape, name):
        super().__init__()
        rank = self.layout(config, shape).rank
        self.left = nn.Parameter(torch.zeros(shape[0], rank))
        self.right = nn.Parameter(torch.zeros(rank, *shape[1:]))

    @torch.no_grad()
    def calibrate(self, weight, phi):
        rank = self.left.shape[1]
        self.left.copy_(weight.flatten(1)[:, :rank])
        self.right.flatten(1)[:, :rank] = torch.eye(rank)

    def matrix(self):
        return product(self.left, self.right)

    def apply(self, x, op):
        return op.pointwise(op(x, self.right), self.left)

    def factors(self):
        return self.left, self.right
"""
_USE = """
import torch
from torch import nn
from qartsr.config.parts import LayerRecipe
from qartsr.cost.package_size import spec_of
from qartsr.layer import build_layer
from qartsr.packing import pack_layer
from qartsr.quantize import InputStatistics, LayerPlan, Statistics, initialise
layer = {"weight": {"kind": "mine", "granularity": "channel"}, "input": {"kind": "mine"},
         "skip": {"kind": "columns", "rank": 3}, "transform": {"kind": "channel_scale"}}
recipe = LayerRecipe.model_validate(layer)
torch.manual_seed(0)
original, x = nn.Linear(12, 10), torch.randn(40, 12)
made = build_layer(original, "a", recipe, 4, 4)
counts = torch.stack([torch.histc(column, 512) for column in x.T]).int()
initialise(nn.ModuleDict({"a": made}), Statistics({"a": InputStatistics(x.amin(0), x.amax(0), counts, x[:0])}))
packed = pack_layer(made)
assert torch.equal(packed(x), made(x)) and packed.spec.rank == 3
assert 0 < (made(x) - original(x)).std() < 0.5 * original(x).std()
made(x).square().sum().backward()
assert all(bool(value.grad.abs().sum()) for value in made.parameters() if value.requires_grad)
assert spec_of(LayerPlan(name="a", weight_bits=4, input_bits=4, recipe=recipe), (10, 12)) == packed.spec
"""


def test_a_new_quantizer_and_a_new_branch_touch_what_is_said(root: Path, tmp_path: Path) -> None:
    """Steps 1 to 3 and 5: configuration, part, export, use. They learn and are packed bit for bit."""
    shutil.copytree(root / "qartsr", tmp_path / "qartsr", ignore=shutil.ignore_patterns("__pycache__"))
    parts = tmp_path / "qartsr" / "config" / "parts.py"
    text = parts.read_text()
    unions = {"NoQuantizerConfig | MinMaxConfig": "MineConfig", "NoBranchConfig | SVDConfig": "FirstColumnsConfig"}
    for union, name in unions.items():
        assert text.count(union) == 1
        text = text.replace(union, f"{name} | {union}")
    before = text.index("class NoQuantizerConfig(Config)")
    parts.write_text(text[:before].rstrip() + _CONFIG + "\n" + text[before:])
    for room, source in (("quantizers", _QUANTIZER), ("branches", _BRANCH)):
        (tmp_path / "qartsr" / room / "mine.py").write_text(source)
        with (tmp_path / "qartsr" / room / "__init__.py").open("a") as handle:
            handle.write(f"\nimport qartsr.{room}.mine\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", _USE], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_only_a_backbone_spells_the_names_of_its_layers(root: Path) -> None:
    files = [path for path in (root / "qartsr").rglob("*.py") if path.parts[len(root.parts) + 1] != "models"]
    found = [str(path) for path in files if re.search(r'"(unet|vae|dit|transformer)\.', path.read_text())]
    assert len(files) > 100 and found == []


class _Unknown(Config):
    """Of no part."""


def test_what_is_unknown_is_never_free() -> None:
    """The cost of a branch or transform that nobody registered is an error, not 0."""
    with pytest.raises(QartsrError, match="no branch is registered"):
        branch_layout(_Unknown(), (4, 4))
    with pytest.raises(QartsrError, match="no transform is registered"):
        TRANSFORMS.answer(_Unknown(), "stored")
    silent = type(TRANSFORMS)("transform")
    silent.register(_Unknown)(type("Silent", (), {}))
    with pytest.raises(QartsrError, match="does not say its 'stored'"):
        silent.answer(_Unknown(), "stored")
