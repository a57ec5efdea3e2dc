"""deploy/kubernetes/pool.json: never run on a cluster; checked as far as that goes without one."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings

POOL = Path("deploy/kubernetes/pool.json")


@pytest.fixture()
def pool(root: Path) -> Any:
    return json.loads((root / POOL).read_text())


def test_a_job_asks_for_what_a_stage_needs(pool: Any) -> None:
    pod = pool["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "{{ gpus }}"
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 1000
    assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"
    kept = {mount["mountPath"]: mount.get("subPath") for mount in container["volumeMounts"]}
    assert kept == {"/app/.dvc/cache": "dvc", "/app/work": "work", "/dev/shm": None}
    assert container["envFrom"] == [{"secretRef": {"name": "{{ secret }}"}}]


def test_every_variable_is_known(pool: Any) -> None:
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(pool["job_configuration"])))
    assert used <= pool["variables"]["properties"].keys()


def test_a_rendered_job_passes_kubernetes_strict_schema(pool: Any, root: Path) -> None:
    """The same with a field misspelt does not."""
    worker = pytest.importorskip("prefect_kubernetes.worker", reason="prefect-kubernetes is not installed")
    schema = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")

    async def rendered(values: dict[str, object]) -> Any:
        configuration = worker.KubernetesWorkerJobConfiguration
        job = await configuration.from_template_and_values(base_job_template=pool, values=values)
        job.prepare_for_flow_run(FlowRun(id=uuid.uuid4(), name="lane", flow_id=uuid.uuid4()))
        return job.job_manifest

    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:4200/api"}):
        (deployment,) = yaml.safe_load((root / POOL).with_name("prefect.yaml").read_text())["deployments"]
        job = asyncio.run(rendered({**deployment["work_pool"]["job_variables"], "gpus": 2}))
    version = schema.latest_version()
    schema.validate(job, version, strict=True)
    assert job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 2
    job["spec"]["template"]["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(schema.ValidationError):
        schema.validate(job, version, strict=True)
