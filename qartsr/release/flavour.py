"""The MLflow flavour of a version: files beside its weights that make it a pyfunc, without a pickle and without code.

``MLmodel`` names :mod:`qartsr.serving` as loader, so the code is that of the installed qartsr: the version stays data.
Deviation from MLflow's "models from code", which would put a Python file into the store: whoever may write there could
then run code on every server, and the file could do no more than import qartsr either. For the same reason there is no
``requirements.txt``: MLflow would install the name ``qartsr`` from whatever package index is at hand.

Written here by hand, since MLflow's own writer costs seconds to import and adds times and random numbers: equal weights
give equal files.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from qartsr.files import write_text

COLUMN = "image"
"""The one column of input and output: base64 of an image file."""
CONFIG: dict[str, Any] = {"device": "auto", "engine": "auto", "tile": None, "overlap": 64}
"""What ``model_config`` of ``mlflow.pyfunc.load_model`` may change, and the defaults."""
LOADER = "qartsr.serving"
MLMODEL, EXAMPLE, SERVED_EXAMPLE = "MLmodel", "input_example.json", "serving_input_example.json"

_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAYAAAAECAIAAAAiZtkUAAAAGElEQVR42mNkYKjQYGBARiwMNgxogDghAHF4AgJdePQqAAAAAElFTkSuQmCC"
"""The example: 6x4 pixels, a gradient."""


def write_flavour(folder: Path, sha256: str) -> tuple[Path, ...]:
    """Write what belongs beside the weights with this SHA-256 into ``folder``, and say what that is."""
    texts = _texts(sha256)
    for name, text in texts.items():
        write_text(folder / name, text)
    return tuple(folder / name for name in texts)


def _texts(sha256: str) -> dict[str, str]:
    frame = {"columns": [COLUMN], "data": [[_PNG]]}
    column = json.dumps([{"name": COLUMN, "required": True, "type": "string"}])
    model = {
        "flavors": {
            "python_function": {
                "config": CONFIG,
                "loader_module": LOADER,
                "python_version": ".".join(map(str, sys.version_info[:2])),  # MLflow warns where there is none
            }
        },
        "metadata": {"sha256": sha256},
        "saved_input_example_info": {
            "artifact_path": EXAMPLE,
            "pandas_orient": "split",
            "serving_input_path": SERVED_EXAMPLE,
            "type": "dataframe",
        },
        "signature": {"inputs": column, "outputs": column, "params": None},
    }
    return {
        MLMODEL: yaml.safe_dump(model),
        EXAMPLE: json.dumps(frame),
        SERVED_EXAMPLE: json.dumps({"dataframe_split": frame}),
    }
