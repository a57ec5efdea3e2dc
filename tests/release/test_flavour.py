"""The MLflow flavour: files MLflow itself reads, the same for the same weights, and nothing that runs."""

from __future__ import annotations

import base64
import importlib
import json
from pathlib import Path

import pytest
import yaml
from mlflow.models import Model
from mlflow.models.utils import load_serving_example

from qartsr.release.flavour import CONFIG, write_flavour
from qartsr.upscale import OVERLAP, decode_image

SHA256 = "ab" * 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("flavour")
    write_flavour(made, SHA256)
    return made


def test_mlflow_reads_it(folder: Path) -> None:
    model = Model.load(str(folder))
    assert model.flavors["python_function"]["config"] == CONFIG
    assert model.metadata == {"sha256": SHA256}
    for schema in (model.get_input_schema(), model.get_output_schema()):
        assert schema.to_dict() == [{"name": "image", "type": "string", "required": True}]
    example = model.load_input_example(str(folder))
    assert json.loads(load_serving_example(str(folder))) == {
        "dataframe_split": example.to_dict(orient="split", index=False)
    }
    assert decode_image(base64.b64decode(example["image"][0]), "example").size == (6, 4)


def test_the_same_weights_give_the_same_files_and_none_is_code(folder: Path, tmp_path: Path) -> None:
    again = write_flavour(tmp_path, SHA256)
    assert {path.name: path.read_bytes() for path in again} == {p.name: p.read_bytes() for p in folder.iterdir()}
    assert sorted(path.name for path in again) == ["MLmodel", "input_example.json", "serving_input_example.json"]
    assert "code" not in yaml.safe_load((folder / "MLmodel").read_text())["flavors"]["python_function"]


def test_what_it_names_exists(folder: Path) -> None:
    described = yaml.safe_load((folder / "MLmodel").read_text())["flavors"]["python_function"]
    assert callable(importlib.import_module(described["loader_module"])._load_pyfunc)
    assert (CONFIG["tile"], CONFIG["overlap"]) == (None, OVERLAP)
