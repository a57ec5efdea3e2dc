"""A package with graphs runs without torch, and gives the pixels that the engine gives with it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from qartsr import OneStepSRPipeline, QartsrError
from qartsr.artifact.graphs import TENSOR, evaluate, unpacked
from qartsr.artifact.header import read_head
from qartsr.engines.openvino import OpenVINO
from qartsr.export import skeleton
from qartsr.images import as_picture
from qartsr.packing import add_graphs, inspect, load_package, write_package
from qartsr.runtime.network import GraphNetwork
from qartsr.runtime.package import open_graphs
from qartsr.upscale import upscale_image
from qartsr.upscale.memory import ClipRestorer
from tests.clips.make import moving
from tests.house.project import ROOT
from tests.models.test_video import learned
from tests.packing.tiny import quantize, recipe, tiny_model

BLOCK = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "diffusers", "onnx", "transformers", "tqdm"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in ("torch", "onnx") else found(name, package)
sys.meta_path.insert(0, Absent())
from qartsr.cli import main
sys.exit(main(sys.argv[1:]))
"""
"""An interpreter in which torch is not installed."""


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where nobody with torch has written graphs yet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package without graphs."""
    path = tmp_path_factory.mktemp("package") / "plain.safetensors"
    model = tiny_model()
    write_package(path, model, quantize(model, "w4a4", recipe()), {})
    return path


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "in.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 13, 3), np.uint8)).save(path)
    return path


def without_torch(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BLOCK, *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.long
def test_the_same_pixels_without_torch(package: Path, picture: Path, tmp_path: Path) -> None:
    """In tiles, which share the moments of their norms."""
    ran = without_torch("upscale", picture, tmp_path / "out.png", "--model", package, "--tile", 24, "--overlap", 8)
    assert ran.returncode == 0, ran.stderr
    expected = upscale_image(OpenVINO().prepare(load_package(package)), Image.open(picture), 24, 8)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out.png")), np.asarray(expected))


def test_one_sentence_where_torch_is_needed(plain: Path, package: Path, picture: Path, tmp_path: Path) -> None:
    for words in ((plain,), (package, "--engine", "integer")):
        ran = without_torch("upscale", picture, tmp_path / "out.png", "--model", *words)
        assert ran.returncode == 1 and ran.stderr.count("\n") == 1, ran.stderr
        assert "takes PyTorch, which is not installed" in ran.stderr
        assert not (tmp_path / "out.png").exists()
    ran = without_torch("inspect", package)
    assert ran.returncode == 1 and "pip install 'qartsr[torch]'" in ran.stderr


def test_the_pipeline_takes_the_graphs(package: Path, plain: Path, picture: Path, tmp_path: Path) -> None:
    pipe = OneStepSRPipeline.from_pretrained(package, device="cpu")
    assert isinstance(pipe.model, GraphNetwork) and pipe.engine == "openvino"
    pipe.save_pretrained(tmp_path / "again")
    again = OneStepSRPipeline.from_pretrained(tmp_path / "again", device="cpu")
    assert again(picture).tobytes() == pipe(picture).tobytes()
    with pytest.raises(QartsrError, match="not loaded from a file"):
        OneStepSRPipeline(pipe.model).save_pretrained(tmp_path / "third")
    assert not isinstance(OneStepSRPipeline.from_pretrained(plain, device="cpu").model, GraphNetwork)


def test_a_package_with_graphs_is_the_same_model(plain: Path, package: Path) -> None:
    one, two = (load_package(path).state_dict() for path in (plain, package))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    size = read_head(package).table[TENSOR].size
    assert inspect(package).kinds["graphs"] == size and inspect(package).total == package.stat().st_size
    assert open_graphs(plain) is None


def test_graphs_are_written_again_as_they_were(package: Path) -> None:
    assert skeleton(load_package(package)) == bytes(_graphs(package))


def test_stored_graphs_are_those_of_one_size(package: Path) -> None:
    """Their sides get numbers before they run: what graphs of varying size need instead would change packages."""
    facts, pieces = unpacked(bytes(_graphs(package)))
    denoiser = b"".join(pieces[place] for place in facts.graphs["denoiser"]["plain"].pieces)
    quantizing = [node for node in onnx.load_from_string(denoiser).graph.node if node.op_type == "QuantizeLinear"]
    assert quantizing and not any(node.attribute for node in quantizing), "an axis: by channel"


def _graphs(path: Path) -> memoryview:
    head = read_head(path)
    begin, end = head.table[TENSOR].data_offsets
    return memoryview(path.read_bytes())[head.size + begin : head.size + end]


@pytest.mark.parametrize("damage", [b"\0", b"no graphs", b"\xfd7zXZ\x00"])
def test_unusable_graphs_are_refused(damage: bytes, package: Path, tmp_path: Path) -> None:
    path = tmp_path / "p"
    shutil.copy(package, path)
    add_graphs(path, damage)
    with pytest.raises(QartsrError, match="unusable graphs"):
        open_graphs(path)


def test_sizes_are_sums_and_products_and_nothing_else() -> None:
    assert evaluate("((2*rows - 1)//4 + 1)*columns", {"rows": 5, "columns": 3}) == 9
    for bad in ("rows**9", "__import__('os')", "rows.real", "2.5", "rows" * 200):
        with pytest.raises(ValueError):
            evaluate(bad, {"rows": 5})


def test_the_sample_pays_little_for_its_graphs(package: Path) -> None:
    """Every constant worth it is a recipe: what stays in the graphs are a few numbers for each layer."""
    facts, pieces = unpacked(bytes(_graphs(package)))
    assert len(facts.graphs["denoiser"]["plain"].recipes) > 50
    assert sum(map(len, pieces)) < 400_000


@pytest.mark.slow
def test_a_model_of_clips_keeps_the_frame_before_here_too(tmp_path: Path) -> None:
    path, model = tmp_path / "model.safetensors", learned()
    write_package(path, model, quantize(model, "w4a4", recipe()), {})
    add_graphs(path, skeleton(load_package(path)))
    graphs = open_graphs(path)
    assert graphs is not None and graphs.facts.frames == 2
    first, second = (as_picture(Image.fromarray(frame)) for frame in moving(2, (12, 8)))
    with torch.no_grad():
        networks = OpenVINO().prepare(load_package(path)), GraphNetwork(graphs, 1)
        made = []
        for network in networks:
            restore = ClipRestorer(lambda frame, memory, network=network: upscale_image(network, frame, memory=memory))
            made.append([restore(first, None), restore(second, first)])
    for engine, runtime in zip(*made, strict=True):
        np.testing.assert_array_equal(np.asarray(engine), np.asarray(runtime))
