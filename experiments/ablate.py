"""QArtSR with one component taken out or exchanged (Table 4), at the rate that QArtSR chose."""

from __future__ import annotations

from experiments._cell import run_stage
from qartsr.config import load_config
from qartsr.config.experiment import Experiments
from qartsr.files import read_json
from stages._stage import arguments, stage


def main() -> None:
    """Write results.json, the losses and the restored windows."""
    args = arguments(__doc__, "--backbones", "--samples", "--ours", "--out", "--work", bits=True, method=True)
    rate = read_json(args.ours / "results.json")["rate"]
    run_stage("ablate", args, load_config(Experiments, args.params), (rate,), (args.ours,))


if __name__ == "__main__":
    stage(main)
