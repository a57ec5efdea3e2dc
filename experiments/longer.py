"""A row of Table 4, or the whole, with more steps: does a component only need length to show what it does?"""

from __future__ import annotations

from experiments._cell import run_stage
from qartsr.config import load_config
from qartsr.config.experiment import Experiments
from qartsr.files import read_json
from stages._stage import arguments, stage


def main() -> None:
    """Write results.json, the losses and the restored windows."""
    args = arguments(__doc__, "--backbones", "--samples", "--ours", "--out", "--work", bits=True, method=True)
    params, rate = load_config(Experiments, args.params), read_json(args.ours / "results.json")["rate"]
    run_stage("longer", args, params, (rate,), (args.ours,), params.tables.longer_times)


if __name__ == "__main__":
    stage(main)
