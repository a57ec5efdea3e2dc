"""The MLflow server: runs and registered models in SQLite, artifacts written by the clients straight to S3."""

from __future__ import annotations

from pathlib import Path

from qartsr.services.ports import HOST
from qartsr.services.service import Service, python

ARTIFACTS = "s3://qartsr-mlflow/"

_ENVIRONMENT = {
    # Its job runner would be eight more processes and two gigabytes; nothing here uses it.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    # Some requests take a second database connection while they hold one: with the usual pool of 15, sixteen at a time
    # can wait for each other, for 30 s. A file needs no pool.
    "MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NullPool",
}


def mlflow_service(folder: Path, port: int) -> Service:
    """The server with its database in ``folder``. It reads artifacts from S3 to show them on its pages."""
    address = f"http://{HOST}:{port}"
    return Service(
        address=address,
        commands={
            "mlflow": python(
                "mlflow",
                "server",
                *("--host", HOST),
                *("--port", str(port)),
                *("--workers", "1"),
                *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db"),
                *("--default-artifact-root", ARTIFACTS),
                "--no-serve-artifacts",
                *("--uvicorn-opts", "--log-level=warning"),
            )
        },
        environment=_ENVIRONMENT,
        health=(f"{address}/health",),
        variables={"MLFLOW_TRACKING_URI": address},
        prepare=lambda: folder.mkdir(parents=True, exist_ok=True),
        furnish=lambda: None,
    )
