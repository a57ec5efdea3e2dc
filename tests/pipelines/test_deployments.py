"""prefect.yaml as it is deployed: a real server, a real worker, a small real pipeline as the workspace."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from prefect.cli.deploy._models import PrefectYamlModel
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.deployments.steps.utility import run_shell_script
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, temporary_settings

from pipelines.graph import DVC
from qartsr.services import start, stop
from tests.pipelines.alive import alive, until

FILES = ("prefect.yaml", "deploy/clone.yaml", "deploy/kubernetes/prefect.yaml")
BARE = "/usr/bin:/bin"
"""PATH of a worker that systemd started: nothing of the environment that it runs in."""


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_prefects(name: str, root: Path) -> None:
    values = yaml.safe_load((root / name).read_text())
    PrefectYamlModel.model_validate(values)
    for deployment in values["deployments"]:
        file, _, flow = deployment["entrypoint"].partition(":")
        assert f"def {flow}(" in (root / file).read_text()


def test_every_bit_width_has_a_deployment(root: Path) -> None:
    bits = yaml.safe_load((root / "configs" / "sample.yaml").read_text())["bits"]
    names = {each["name"] for each in yaml.safe_load((root / FILES[0]).read_text())["deployments"]}
    assert {"all", "promote", *bits} == names


def _repository(folder: Path) -> None:
    """A branch ``main`` with all that is there."""
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    for words in (["init", "-q", "-b", "main"], ["add", "-A"], [*identity, "commit", "-qm", "origin"]):
        subprocess.run(["git", *words], cwd=folder, check=True)


def test_a_clone_is_prepared_without_the_environment_on_path(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder shared between runs may have a space in its name."""
    origin, clone, shared = (tmp_path / name for name in ("origin", "clone", "to share"))
    (origin / ".dvc").mkdir(parents=True)
    (origin / ".dvc" / "config").touch()
    _repository(origin)
    subprocess.run(["git", "clone", "-q", str(origin), str(clone)], check=True)
    monkeypatch.setenv("PATH", BARE)
    for step in yaml.safe_load((root / FILES[1]).read_text())["pull"]:
        ((name, inputs),) = step.items()
        if name.endswith("run_shell_script"):
            script = inputs["script"].replace("{{ $QARTSR_SHARED }}", str(shared))
            asyncio.run(run_shell_script(script, directory=str(clone)))
    said = subprocess.run([*DVC, "cache", "dir"], cwd=clone, capture_output=True, text=True, check=True).stdout
    assert said.strip() == str(shared / "dvc-cache")
    assert (clone / "work").resolve() == shared / "work" and (shared / "work").is_dir()


@pytest.fixture(scope="module")
def site(toy: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A server, everything deployed, and a worker with a bare PATH; the environment of both."""
    folder = tmp_path_factory.mktemp("site")
    (toy / "pipelines").symlink_to(root / "pipelines")
    served = start(folder, ("prefect",))
    known = {"QARTSR_WORKSPACE": toy, "QARTSR_REPOSITORY": folder / "origin", "QARTSR_SHARED": folder / "to share"}
    environment = {**os.environ, **served, **{name: str(path) for name, path in known.items()}, "PATH": BARE}
    environment["PYTHONPATH"] = str(root)

    def prefect(*words: str) -> None:
        subprocess.run([sys.executable, "-m", "prefect", "--no-prompt", *words], cwd=root, env=environment, check=True)

    prefect("work-pool", "create", "qartsr", "--type", "process")
    template = ("--base-job-template", "deploy/kubernetes/pool.json")
    prefect("work-pool", "create", "qartsr-k8s", "--type", "kubernetes", *template)
    for file in FILES:
        prefect("deploy", "--all", "--prefect-file", file)
    prefect("gcl", "create", "gpu", "--limit", "1")
    prefect("automation", "create", "--from-file", "deploy/automations.yaml")
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "qartsr", "--type", "process"]
    worker = subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True)
    try:
        with temporary_settings({PREFECT_API_URL: served["PREFECT_API_URL"]}):
            yield {**served, "root": str(folder)}
    finally:
        os.killpg(worker.pid, signal.SIGTERM)
        worker.wait(30)
        stop(folder)


@pytest.fixture()
def client(site: dict[str, str]) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as found:
        yield found


@pytest.fixture(autouse=True)
def _tidy(toy: Path) -> None:
    for leftover in [*toy.glob("hang-*"), *toy.glob("pid"), *toy.glob("started-*"), *toy.glob("events.log")]:
        leftover.unlink()


def _begin(client: SyncPrefectClient, name: str = "all", **parameters: Any) -> UUID:
    deployment = client.read_deployment_by_name(f"reproduce/{name}")
    return client.create_flow_run_from_deployment(deployment.id, parameters=parameters).id


def _state(client: SyncPrefectClient, run: UUID) -> str:
    state = client.read_flow_run(run).state
    return state.name if state else "none"


def _becomes(client: SyncPrefectClient, run: UUID, *names: str, seconds: float = 150) -> None:
    assert until(lambda: _state(client, run) in names, seconds), f"is {_state(client, run)}, not {names}"


@pytest.mark.slow
@pytest.mark.pipeline
def test_runs_are_scheduled_and_wait_for_each_other(client: SyncPrefectClient, toy: Path) -> None:
    deployment = client.read_deployment_by_name("reproduce/all")
    assert [schedule.schedule.cron for schedule in deployment.schedules] == ["0 2 * * *"]  # type: ignore[union-attr]
    (toy / "hang-prepare").touch()
    first = _begin(client)
    assert until((toy / "pid").exists, 120)
    second = _begin(client)
    _becomes(client, second, "AwaitingConcurrencySlot")
    (toy / "hang-prepare").unlink()
    _becomes(client, first, "Completed")
    _becomes(client, second, "Completed")


def _hanging(client: SyncPrefectClient, toy: Path) -> tuple[UUID, int]:
    """A run whose first stage hangs, and the process of that stage."""
    text = (toy / "params.yaml").read_text()
    (toy / "params.yaml").write_text(text.replace("\nseed: ", "\nseed: 1", 1))
    (toy / "hang-prepare").touch()
    run = _begin(client)
    assert until((toy / "pid").exists, 120)
    return run, int((toy / "pid").read_text())


@pytest.mark.slow
@pytest.mark.pipeline
def test_the_server_refuses_what_kubernetes_could_not_run(client: SyncPrefectClient) -> None:
    """By the types of deploy/kubernetes/pool.json; no cluster is needed to hear of it."""
    deployment = client.read_deployment_by_name("reproduce/kubernetes")
    assert deployment.job_variables["gpus"] == 1
    with pytest.raises(PrefectHTTPStatusError, match=r"'gpus'.*'two' is not valid"):
        client.create_flow_run_from_deployment(deployment.id, job_variables={"gpus": "two"})
    made = client.create_flow_run_from_deployment(deployment.id, job_variables={"gpus": 2})
    client.delete_flow_run(made.id)


@pytest.mark.slow
@pytest.mark.pipeline
def test_a_cancelled_run_leaves_no_process(client: SyncPrefectClient, site: dict[str, str], toy: Path) -> None:
    run, stage = _hanging(client, toy)
    _prefect(site, "flow-run", "cancel", str(run))
    _becomes(client, run, "Cancelled")
    assert until(lambda: not alive(stage), 30)


@pytest.mark.slow
@pytest.mark.pipeline
def test_a_run_that_was_killed_is_crashed(
    client: SyncPrefectClient, site: dict[str, str], toy: Path, root: Path, tmp_path: Path
) -> None:
    """Worker and flow at once, as when a machine is lost: only the missing heartbeats tell."""
    file = tmp_path / "automations.yaml"
    shipped = (root / "deploy" / "automations.yaml").read_text()
    assert shipped.count("within: 300") == 1 and shipped.count("name: qartsr-dead-runs") == 1
    file.write_text(shipped.replace("within: 300", "within: 75").replace("qartsr-dead-runs", "sooner"))
    run, stage = _hanging(client, toy)
    time.sleep(35)  # a heartbeat
    _prefect(site, "automation", "create", "--from-file", str(file))
    try:
        os.kill(_flow_process(stage), signal.SIGKILL)
        _becomes(client, run, "Crashed", seconds=240)
    finally:
        _prefect(site, "automation", "delete", "sooner")
    assert until(lambda: not alive(stage), 30)


def _prefect(site: dict[str, str], *words: str) -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", *words]
    subprocess.run(command, env={**os.environ, **site}, check=True)


def _flow_process(stage: int) -> int:
    """The ancestor of a stage that runs the flow."""
    pid = stage
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        if b"prefect" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    raise AssertionError("no flow")


@pytest.mark.slow
@pytest.mark.pipeline
def test_a_server_that_is_away_for_a_while_costs_nothing(
    client: SyncPrefectClient, toy: Path, site: dict[str, str]
) -> None:
    run, _ = _hanging(client, toy)
    (toy / "hang-join").touch()
    stop(Path(site["root"]))
    (toy / "pid").unlink()
    (toy / "hang-prepare").unlink()
    time.sleep(60)
    start(Path(site["root"]), ("prefect",))
    assert until((toy / "pid").exists, 300), "the flow goes on"
    time.sleep(100)
    assert _state(client, run) == "Running", "its heartbeats are heard again"
    (toy / "hang-join").unlink()
    _becomes(client, run, "Completed", seconds=300)


@pytest.mark.slow
@pytest.mark.pipeline
def test_a_clone_for_each_run_takes_what_another_has_made(
    client: SyncPrefectClient, site: dict[str, str], toy: Path
) -> None:
    """DVC's cache outlives the clone; the run after it, with an empty cache, asks the remote. Both hold a slot."""
    origin, shared = Path(site["root"], "origin"), Path(site["root"], "to share")
    made = shutil.ignore_patterns("*.txt", "dvc.lock", "events.log", "cache", "tmp", ".git")
    shutil.copytree(toy, origin, symlinks=True, ignore=made)
    with (origin / ".dvc" / "config").open("a") as config:
        config.write(f"    remote = store\n['remote \"store\"']\n    url = {site['root']}/remote\n")
    _repository(origin)
    said = []
    for _ in range(2):
        run = _begin(client, "cloned", slot="gpu")
        _becomes(client, run, "Completed", "Failed", "Crashed")
        logs = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run])))
        said.append("\n".join(log.message for log in logs))
        assert _state(client, run) == "Completed", said[-1]
        shutil.rmtree(shared / "dvc-cache")
    assert "hello from prepare" in said[0] and "hello from" not in said[1]
