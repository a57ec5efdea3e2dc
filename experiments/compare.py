"""A method of Table 3 at a bit-width: its rate chosen, every seed trained and measured."""

from __future__ import annotations

from experiments._cell import run_stage
from qartsr.config import load_config
from qartsr.config.experiment import Experiments
from stages._stage import arguments, stage


def main() -> None:
    """Write results.json, the losses and the restored windows."""
    args = arguments(__doc__, "--backbones", "--samples", "--out", "--work", bits=True, method=True)
    params = load_config(Experiments, args.params)
    run_stage("compare", args, params, params.budget.rates)


if __name__ == "__main__":
    stage(main)
