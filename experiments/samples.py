"""Calibration pairs of every seed, and the test windows of every set."""

from __future__ import annotations

from experiments.study.sets import write_pairs, write_windows
from qartsr.config import load_config
from qartsr.config.data import CalibrateConfig
from qartsr.config.experiment import Experiments
from stages._stage import arguments, stage


def main() -> None:
    """Write what all methods share."""
    args = arguments(__doc__, "--data", "--out")
    params = load_config(Experiments, args.params)
    write_windows(args.data, params.sets, params.crop, args.out)
    pairs = CalibrateConfig(
        pairs=params.budget.pairs,
        lr_size=params.budget.lr_size,
        frames=params.budget.frames,
        length=params.budget.length,
    )
    for seed in params.seeds:
        write_pairs(args.data, pairs, params.data, seed, args.out)


if __name__ == "__main__":
    stage(main)
