"""The DVC projects that flows run: the pipeline, the comparison of methods, the recipe of the sample's weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from qartsr.config import load_config, load_params
from qartsr.config.experiment import Experiments
from qartsr.config.recipe import RecipeConfig
from qartsr.config.schema import ComputeConfig

_OTHERS: dict[str, tuple[str, type[Experiments | RecipeConfig]]] = {
    "methods": ("experiments", Experiments),
    "autoencoder": ("recipe", RecipeConfig),
}
"""Key that only one project's params.yaml has -> name of the project, schema."""


class Project(NamedTuple):
    """What a flow must know of a project."""

    name: str
    """the profile of the pipeline; MLflow's experiment is ``qartsr-NAME``"""
    compute: ComputeConfig
    bits: tuple[str, ...] = ()
    """the bit-widths whose results are compared"""


def read_project(folder: Path) -> Project:
    """Of the DVC project in ``folder``. Raises QartsrError for a params.yaml that breaks its schema."""
    file = folder / "params.yaml"
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    keys = re.findall(r"^(\w+):", text, re.MULTILINE)
    for key in keys:
        if key in _OTHERS and "profile" not in keys:  # else a slip in the pipeline's own
            name, schema = _OTHERS[key]
            return Project(name, load_config(schema, file).compute)
    params = load_params(file)
    return Project(params.profile, params.compute, tuple(params.bits))
