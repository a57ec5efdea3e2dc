"""Promotion and rollback as Prefect flows, so that they can be scheduled, triggered and looked up.

``python -m pipelines.promote w4a4 [--version N | --rollback]``
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from pipelines.console import (
    demand_server,
    keep_artifact,
    keep_link,
    notify,
    quiet_prefect,
    tag_run,
    unreachable,
)
from qartsr.cli.command import version
from qartsr.config import load_params
from qartsr.errors import QartsrError, speak_anyhow
from qartsr.release import Promotion, Rollback, promote, rollback
from qartsr.remote import registry_address, version_page


def _run_name() -> str:
    """What is done to which bit-width: ``promote w4a4 version 3``, ``rollback w4a4``."""
    asked = flow_run.parameters
    which = f" version {asked['version']}" if asked.get("version") else ""
    return f"{flow_run.flow_name} {asked.get('bits', '')}{which}"[:200]


@flow(name="promote", flow_run_name=_run_name, persist_result=False, on_failure=[notify], on_crashed=[notify])
def promote_model(bits: str, version: int | None = None, workspace: str | None = None) -> State[None]:
    """Move ``champion`` to the newest version of a bit-width (or ``version``), if it passes the gate of params.yaml.

    ``workspace``: the folder of params.yaml; the current one unless given.
    """
    try:
        params = load_params(Path(workspace or ".") / "params.yaml")
        tag_run(params.profile, bits)
        return _done(bits, promote(params.profile, bits, params.promote, version))
    except QartsrError as error:
        return Failed(message=str(error))


@flow(name="rollback", flow_run_name=_run_name, persist_result=False, on_failure=[notify], on_crashed=[notify])
def roll_back_model(bits: str, workspace: str | None = None) -> State[None]:
    """Swap ``champion`` and ``previous`` of a bit-width."""
    try:
        profile = load_params(Path(workspace or ".") / "params.yaml").profile
        tag_run(profile, bits)
        return _done(bits, rollback(profile, bits))
    except QartsrError as error:
        return Failed(message=str(error))


def _done(bits: str, done: Promotion | Rollback) -> State[None]:
    sentence = str(done)
    get_run_logger().info(sentence)
    what = f"{done.model} version {done.version} in MLflow"
    keep_link(version_page(registry_address(), done.model, done.version), f"champion-{bits}-page", what)
    keep_artifact(sentence, key=f"champion-{bits}", description="the last promotion or rollback")
    return Completed(message=sentence)


def main() -> int:
    """Print one sentence; exit status 1 when it is a refusal."""
    parser = argparse.ArgumentParser("python -m pipelines.promote", description=__doc__)
    parser.add_argument("bits", help="bit-width, for example w4a4")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--version", type=version, metavar="N", help="this version (default: the newest)")
    choice.add_argument("--rollback", action="store_true", help="make the champion before this one champion again")
    args = parser.parse_args()
    speak_anyhow()
    with quiet_prefect():
        try:
            demand_server()
            if args.rollback:
                state = roll_back_model(args.bits, return_state=True)
            else:
                state = promote_model(args.bits, args.version, return_state=True)
        except Exception as error:  # Prefect's answers to an address without a server are of many kinds
            print(unreachable(error), file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("interrupted; look with `qartsr inspect` or in MLflow which version is champion", file=sys.stderr)
            return 130
    if not state.is_completed():
        print(f"error: {state.message}", file=sys.stderr)
        return 1
    print(state.message)
    return 0


if __name__ == "__main__":
    sys.exit(main())
