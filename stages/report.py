"""Tables, curves and images of the run on one self-contained page."""

from __future__ import annotations

from qartsr.config import load_params
from qartsr.evaluate.report import Inputs, write_report
from qartsr.remote import registry_address
from qartsr.tracking import TIMES, changed, commit, open_run
from stages._stage import arguments, stage

FOLDERS = ("--data", "--reference", "--evaluated", "--metrics", "--curves", "--receipts", "--packages")


def main() -> None:
    """Write the page and the pictures beside it."""
    args = arguments(__doc__, *FOLDERS, "--out")
    params = load_params(args.params)
    with open_run(params.profile, "report", {"bits": list(params.bits)}) as run:
        folders = {name.removeprefix("--"): getattr(args, name.removeprefix("--")) for name in FOLDERS}
        inputs = Inputs(profile=params.profile, bits=params.bits, mlflow=registry_address(), times=TIMES, **folders)
        commit_and_changes = commit()[:10] + (" and changes" if changed() else "")
        write_report(inputs._replace(commit=commit_and_changes), args.out)
        for file in sorted(args.out.iterdir()):
            run.artifact(file)


if __name__ == "__main__":
    stage(main)
