"""A server that takes the artifacts itself, so that its clients need no credentials of the store."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from qartsr.files import sha256_file
from qartsr.services.daemon import end, spawn
from qartsr.services.environment import server_environment
from qartsr.services.mlflow import mlflow_service
from qartsr.services.ports import HOST, Ports
from qartsr.services.service import python
from qartsr.tracking import Run, open_run
from tests.pipelines.alive import until

pytestmark = [pytest.mark.services, pytest.mark.slow]


@pytest.fixture()
def proxy(servers: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """Address of a server started with --serve-artifacts."""
    with closing(Ports()) as ports:
        port = ports.take(range(5600, 5700), 1)
        service, token = mlflow_service(tmp_path, port), uuid.uuid4().hex
        command = python(
            "mlflow",
            "server",
            *("--host", HOST, "--port", str(port), "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"),
            *("--artifacts-destination", "s3://qartsr-mlflow/proxy", "--serve-artifacts"),
        )
        environment = server_environment({**servers, **service.environment})
        pid = spawn(command, environment, token, tmp_path / "mlflow.log")
        try:
            assert until(service.healthy, 300), (tmp_path / "mlflow.log").read_text()
            yield service.address
        finally:
            end([pid], token)


def test_artifacts_go_through_the_server(proxy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a b+ü.png").write_bytes(os.urandom(3_000_000))
    with open_run("proxied", "evaluate@w4a4", {}) as run:
        run.artifact(tmp_path / "images", "test")
        assert isinstance(run, Run)
    received = MlflowClient(proxy).download_artifacts(run.run_id, "test/images/a b+ü.png", str(tmp_path))
    assert sha256_file(Path(received)) == sha256_file(tmp_path / "images" / "a b+ü.png")
