"""The pipeline as a Prefect flow: every stale stage of DVC's graph is a task, bit-widths run side by side.

``python -m pipelines.reproduce [--targets STAGE ...] [--lanes N]`` in the pipeline's folder. ``--workspace`` names
another: ``experiments``, the comparison of methods, or ``weights/recipe``, which are DVC projects of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence, Set
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from prefect import flow, get_run_logger, tags, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.concurrency.sync import concurrency
from prefect.futures import PrefectFuture, as_completed
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from pipelines.console import (
    demand_server,
    keep_artifact,
    keep_link,
    notify,
    quiet_prefect,
    show,
    tag_run,
    unreachable,
    worth_reading,
)
from pipelines.graph import DVC, busy, fetch_runs, push_runs, read_changed, read_frozen, read_graph, stale
from pipelines.process import LOST, Options, Processes, lost
from pipelines.project import read_project
from pipelines.table import COLUMNS, markdown, results_table
from qartsr.cli.command import whole
from qartsr.errors import QartsrError, speak_anyhow
from qartsr.files import read_object, write_json
from qartsr.remote import registry_address, version_page
from qartsr.tracking import NO_RUN, PARENT, Tracker, commit, open_run

_LAST_LINES, _PAUSE = 15, 2.0
_MOST_LANES = 4096
"""That of the schema."""
_THREADS = cast("TaskRunner[PrefectFuture[Any]]", ThreadPoolTaskRunner(max_workers=64))  # _run counts the lanes


def _lost(task: Any, run: Any, state: State[Any]) -> bool:
    """Whether a stage may be tried again: a machine or a process was lost, the stage itself refused nothing."""
    return state.name == LOST


@task(
    task_run_name="{name}", cache_policy=NO_CACHE, persist_result=False,
    retries=2, retry_delay_seconds=10, retry_condition_fn=_lost,
)  # fmt: skip
def run_stage(name: str, processes: Processes, options: Options) -> State[None]:
    """``dvc repro`` of one stage. DVC is the cache; a failed stage's state carries its last lines.

    A stage that was killed, or whose node failed, is tried again: it goes on from its checkpoint.
    """
    logger, log = get_run_logger(), list[str]()

    def on_line(line: str) -> None:
        if worth_reading(line):
            log.append(line)
            logger.info(line)

    began = time.monotonic()
    command = [*options.prefix(name), *DVC, "repro", "--single-item", *(["--pull"] if options.share else []), name]
    while (status := processes.run(command, on_line)) and busy("\n".join(log[-_LAST_LINES:])):
        log.clear()
        time.sleep(_PAUSE)
    text = "\n".join(log)
    key = "log-" + "".join(c if c.isalnum() else "-" for c in name.lower())
    keep_artifact(f"```\n{text}\n```", key=key, description=f"output of {name}")
    if status:
        logger.error("failed with exit status %d", status)
        state = LOST if lost(status, log[-_LAST_LINES:]) else None
        return Failed(name=state, message=f"{name} failed:\n" + "\n".join(log[-_LAST_LINES:]))
    logger.info("done in %.0f s", time.monotonic() - began)
    return Completed(message=f"{name} done")


def _run_name() -> str:
    """What tells runs apart in Prefect's list: the project, and the stages that were asked for."""
    asked = flow_run.parameters
    try:
        name = read_project(Path(asked.get("workspace") or ".")).name
    except (QartsrError, OSError):  # the flow itself says so
        name = "reproduce"
    return " ".join([name, *map(str, asked.get("targets") or ())])[:200]


@flow(
    name="reproduce", flow_run_name=_run_name, task_runner=_THREADS, persist_result=False,
    on_failure=[notify], on_crashed=[notify], on_cancellation=[notify],
)  # fmt: skip
def reproduce(
    targets: list[str] | None = None,
    lanes: int | None = None,
    workspace: str | None = None,
    share: bool = False,
    slot: str | None = None,
) -> State[None]:
    """Run what is stale: the pipeline, or ``targets`` and what they need; at most ``lanes`` stages at a time.

    Independent stages go on when one fails; what depends on it does not run, and the flow fails with its last lines.

    Parameters
    ----------
    lanes: ``compute.lanes`` of params.yaml unless given.
    workspace: the folder of the DVC project; the current one unless given.
    share: take what other machines have made from the DVC remote, and give it what is made here.
    slot: name of a global concurrency limit; the run holds one of its slots (a GPU's) while stages run.
    """
    folder = Path(workspace) if workspace else Path.cwd()
    try:
        project = read_project(folder)  # DVC's own words for a fault in params.yaml are hard to read
        compute = project.compute
        lanes = compute.lanes if lanes is None else lanes
        if not 1 <= lanes <= _MOST_LANES:
            raise QartsrError(f"{lanes} is no number of lanes", "lanes", f"choose 1 to {_MOST_LANES}")
        if share:
            fetch_runs(folder)
        changed = read_changed(folder)
        plan = stale(read_graph(folder), changed, targets or [], read_frozen(folder)) if changed or targets else {}
    except QartsrError as error:
        return Failed(message=str(error))
    get_run_logger().info(f"stale: {', '.join(plan)}" if plan else "every stage is up to date")
    tag_run(project.name, commit(folder)[:10], *(bits for bits in project.bits if _touches(plan, bits)))
    options = Options(compute.launcher, share)
    states = _recorded(folder, plan, lanes, options, slot)
    try:
        if share and states:
            push_runs(folder)
    except QartsrError as error:
        return Failed(message=str(error))
    failed = [state.message or "" for state in states.values() if not state.is_completed()]
    if failed:
        left = [name for name in plan if name not in states]
        return Failed(message="\n\n".join([*failed, *([f"not run: {', '.join(left)}"] if left else [])]))
    if rows := results_table(folder):
        keep_artifact(markdown(rows), key="results", description="results of the pipeline")
    _link_versions(folder, [bits for bits in project.bits if f"publish@{bits}" in plan])
    return Completed(message=f"{len(states)} stages ran")


def _touches(plan: Mapping[str, Set[str]], bits: str) -> bool:
    """Whether a stage of a bit-width runs."""
    return any(name.partition("@")[2] == bits for name in plan)


def _link_versions(folder: Path, published: Sequence[str]) -> None:
    """Beside the run, the pages of the versions that it has registered."""
    for bits in published:
        try:
            receipt = read_object(folder / "build" / "receipts" / f"{bits}.json", "model", "version")
        except QartsrError as error:  # its stages are done; a link is an extra
            get_run_logger().warning(str(error))
            continue
        what = f"{receipt['model']} version {receipt['version']} in MLflow"
        page = version_page(registry_address(), receipt["model"], receipt["version"])
        keep_link(page, f"version-{bits}", what)


class _StageFailedError(Exception):
    """Marks the flow's own run in MLflow as failed."""

    def __init__(self, states: dict[str, State[None]]) -> None:
        self.states = states


def _recorded(
    folder: Path, plan: Mapping[str, Set[str]], lanes: int, options: Options, slot: str | None
) -> dict[str, State[None]]:
    """Run the plan; in MLflow the flow is the parent of its stages' runs, with a table to compare bit-widths by."""
    python = str(Path(sys.executable).parent)
    path = os.pathsep.join([python, os.environ.get("PATH", os.defpath)])
    name = read_project(folder).name
    try:
        with open_run(name, "reproduce", {"stages": list(plan), "lanes": lanes}) if plan else NO_RUN as run:
            run.tags({"mlflow.source.name": "pipelines.reproduce"})
            keep_link(run.page, "mlflow-run", "the run of this flow in MLflow, parent of its stages' runs")
            environment = {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", PARENT: run.run_id}
            processes = Processes(folder, environment)
            try:
                with concurrency(slot, lease_duration=60, strict=True) if slot and plan else nullcontext():
                    states = _run(plan, lanes, processes, options)
            except BaseException:  # cancelled: nothing may go on without the flow
                processes.end()
                raise
            if not all(state.is_completed() for state in states.values()):
                raise _StageFailedError(states)
            _compare(folder, run)
    except _StageFailedError as failure:
        return failure.states
    return states


def _compare(folder: Path, run: Tracker) -> None:
    """The results, where there are any, as a table of MLflow's (Evaluation runs, Artifacts)."""
    rows = [tuple(row) for row in results_table(folder)]
    if not rows:
        return
    with TemporaryDirectory() as scratch:
        file = Path(scratch) / "results.json"
        write_json(file, {"columns": COLUMNS, "data": rows})
        run.artifact(file)
    run.tags({"mlflow.loggedArtifacts": json.dumps([{"path": "results.json", "type": "table"}])})


def _run(plan: Mapping[str, Set[str]], lanes: int, processes: Processes, options: Options) -> dict[str, State[None]]:
    """Run the plan; returns the final state of each stage that was started."""
    waiting, states = deque(plan), dict[str, State[None]]()
    started: dict[str, PrefectFuture[Any]] = {}
    while True:
        done = {name for name, state in states.items() if state.is_completed()}
        running = [name for name in started if name not in states]
        ready = [name for name in waiting if plan[name] <= done]
        for name in ready[: lanes - len(running)]:
            waiting.remove(name)
            upstream = [started[other] for other in plan[name]]
            with tags(*filter(None, [name.partition("@")[2]])):
                started[name] = run_stage.submit(name, processes, options, wait_for=upstream, return_state=False)
            running.append(name)
        if not running:
            return states
        next(as_completed([started[name] for name in running]))
        states |= {name: started[name].state for name in running if started[name].state.is_final()}


def main() -> int:
    """Run the flow, print its results; exit status 1 when a stage failed."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.reproduce", description=__doc__)
    parser.add_argument("--targets", nargs="+", metavar="STAGE", help="these stages and what they need")
    parser.add_argument("--workspace", metavar="FOLDER", default=".", help="of the DVC project (default: this one)")
    parser.add_argument(
        "--lanes", type=whole(1, _MOST_LANES), metavar="N", help="stages side by side (default: compute.lanes)"
    )
    args = parser.parse_args()
    speak_anyhow()
    with quiet_prefect():
        try:
            demand_server()
            state = reproduce(args.targets, args.lanes, args.workspace, return_state=True)
        except Exception as error:  # Prefect's answers to a server that is not there, or goes away, are of many kinds
            kept = "what stages have finished is kept, run again for the rest"
            print(unreachable(error, kept), file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("\ninterrupted: the running stages were stopped; the next run resumes them", file=sys.stderr)
            return 130
    if not state.is_completed():
        print(f"\nerror: {state.message}", file=sys.stderr)
        return 1
    show(Path(args.workspace))
    return 0


if __name__ == "__main__":
    sys.exit(main())
