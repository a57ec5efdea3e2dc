"""Begin a run where MLFLOW_TRACKING_URI points; go on without one when it points nowhere or nobody answers."""

from __future__ import annotations

import getpass
import json
import logging
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from qartsr.config import load_params
from qartsr.errors import QartsrError
from qartsr.remote import Mlflow, open_mlflow
from qartsr.tracking.artifacts import ArtifactStore
from qartsr.tracking.run import NullRun, Run, Tracker

PARENT = "QARTSR_PARENT_RUN"
"""The environment variable by which a flow tells its stages the id of its own run."""
_FIRST_ANSWER = 3.0
"""Seconds a stage waits to learn whether the server is there."""
_LENGTH = 500
"""Longest value of a parameter, in characters; the oldest servers take no more."""

_KIND = [{"key": "mlflow.experimentKind", "value": "custom_model_development"}]
"""Else MLflow's page asks what the experiment is for, and takes it for one of language models."""

_log = logging.getLogger("qartsr.tracking")


@contextmanager
def open_run(profile: str, stage: str, values: Mapping[str, Any]) -> Iterator[Tracker]:
    """A run named ``stage`` in the experiment ``qartsr-<profile>``, with ``values`` as its parameters.

    Tags to filter by: profile, bits, method, rank, seed and commit. Under a flow it is a child of the flow's run.

    Without MLFLOW_TRACKING_URI, or when the server does not answer within 3 s (one line says so), the run is a
    ``NullRun``. An exception inside marks the run FAILED (KILLED when interrupted) and passes on.
    """
    run = _begin(profile, stage, values)
    try:
        yield run
    except BaseException as error:
        run.close("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    run.close("FINISHED")


def _begin(profile: str, stage: str, values: Mapping[str, Any]) -> Run | NullRun:
    if not os.environ.get("MLFLOW_TRACKING_URI", "").strip():
        return NullRun()
    try:
        experiment = _experiment(open_mlflow(_FIRST_ANSWER), f"qartsr-{profile}")
        server = open_mlflow()
        run = _create(server, experiment, profile, stage)
    except Exception as error:  # science never waits for the network, nor fails with it
        _log.warning("%s: this run is not tracked: %s", stage, error)
        return NullRun()
    run.params(_flat(values))
    return run


def _experiment(server: Mlflow, name: str) -> str:
    """Id of the experiment, made if need be; somebody else may make it at the same time."""
    for _ in range(2):
        found = server.get("experiments/get-by-name", {"experiment_name": name}, absent=True)
        if found:
            return str(found["experiment"]["experiment_id"])
        made = server.post("experiments/create", {"name": name, "tags": _KIND}, present=True)
        if made:
            return str(made["experiment_id"])
    raise RuntimeError(f"experiment {name} can be neither found nor made")


def _create(server: Mlflow, experiment: str, profile: str, stage: str) -> Run:
    tags = {"mlflow.source.name": f"stages.{stage.partition('@')[0]}", "mlflow.source.type": "LOCAL", **_user()}
    tags |= {"profile": profile, **_method(profile)}
    if known := commit():
        tags |= {"commit": known, "mlflow.source.git.commit": known}
    if bits := stage.partition("@")[2]:
        tags["bits"] = bits
    if parent := os.environ.get(PARENT, "").strip():
        tags["mlflow.parentRunId"] = parent
    body = {
        "experiment_id": experiment,
        "run_name": stage,
        "start_time": int(time.time() * 1000),
        "tags": [{"key": key, "value": value} for key, value in tags.items()],
    }
    info = server.post("runs/create", body)["run"]["info"]
    return Run(server, info["run_id"], ArtifactStore(server, info["artifact_uri"]), experiment)


def _user() -> dict[str, str]:
    try:
        return {"mlflow.user": getpass.getuser()}
    except (KeyError, OSError):  # a user id without a name, as in many containers
        return {}


def commit(folder: Path = Path()) -> str:
    """Of a project's folder, that where a stage runs; empty where git has none."""
    return _git(folder, "rev-parse", "HEAD")


def changed(folder: Path = Path()) -> bool:
    """Whether tracked files differ from that commit, but for dvc.lock, which every run writes."""
    return bool(_git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!dvc.lock"))


def _git(folder: Path, *words: str) -> str:
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()
    return ""


def _method(profile: str) -> dict[str, str]:
    """What the pipeline of this profile varies; nothing for a run of another one, of the experiments for example."""
    file = Path("params.yaml")
    if not file.is_file():
        return {}
    with suppress(QartsrError):
        params = load_params(file)
        if params.profile == profile:
            skip = params.method.layer.skip
            rank = getattr(skip, "rank", 0)
            return {"method": params.method.title, "rank": str(rank), "seed": str(params.seed)}
    return {}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """``{"lr": {"skip": 0.1}}`` -> ``{"lr.skip": "0.1"}``; lists as JSON; long values cut with an ellipsis."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            text = json.dumps(value, default=str) if isinstance(value, list | tuple) else str(value)
            flat[f"{prefix}{key}"] = text if len(text) <= _LENGTH else text[: _LENGTH - 1] + "…"
    return flat
