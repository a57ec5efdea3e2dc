"""Collect the photographs, split by image, and make the test split's LR."""

from __future__ import annotations

from qartsr.config import load_params
from qartsr.data import write_dataset
from qartsr.tracking import open_run
from stages._stage import arguments, stage


def main() -> None:
    """Write the data folder and its manifest."""
    args = arguments(__doc__, "--out")
    params = load_params(args.params)
    manifest = write_dataset(params.data, params.seed, args.out)
    with open_run(params.profile, "data", params.data.model_dump()) as run:
        run.metrics({"train_images": len(manifest["train"]), "test_images": len(manifest["test"])}, 0)
        run.artifact(args.out / "manifest.json")


if __name__ == "__main__":
    stage(main)
