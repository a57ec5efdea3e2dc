"""The method of params.yaml, laid out for the stages that carry it out: each sees its own part and no other."""

from __future__ import annotations

import yaml

from qartsr.config import load_params
from qartsr.config.base import Config
from qartsr.config.method import training
from qartsr.files import write_text
from stages._stage import arguments, stage


def main() -> None:
    """Write what layers are made of, the phase that quantizes as it goes (none: all at once), and all phases."""
    args = arguments(__doc__, "--layers", "--quantize", "--extend")
    params = load_params(args.params)
    phases = params.method.phases
    first = tuple(phase for phase in phases if phase.kind == "modules")
    parts: dict[str, Config] = {
        "layers": params.method.planned(params.common),
        "quantize": training(first, params.budget),
        "extend": training(phases, params.budget),
    }
    for name, part in parts.items():
        write_text(getattr(args, name), yaml.safe_dump(part.model_dump(mode="json"), sort_keys=False))


if __name__ == "__main__":
    stage(main)
