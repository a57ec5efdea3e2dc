"""The MLflow server: runs and registered models in a database, artifacts written by the clients straight to S3."""

from __future__ import annotations

from pathlib import Path

from qartsr.services.ports import HOST
from qartsr.services.service import Service, database, python

ARTIFACTS = "s3://qartsr-mlflow/"

# Its job runner would be eight more processes and two gigabytes; nothing here uses it.
_ENVIRONMENT = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
# Some requests take a second database connection while they hold one: with the usual pool of 15, sixteen at a time can
# wait for each other, for 30 s. A file needs no pool.
_FILE = {"MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NullPool"}


def mlflow_service(folder: Path, port: int) -> Service:
    """The server with its database in ``folder``, or on PostgreSQL. It reads artifacts from S3 to show them."""
    there = database("postgresql", "mlflow")
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
                *("--backend-store-uri", there or f"sqlite:///{folder}/mlflow.db"),
                *("--default-artifact-root", ARTIFACTS),
                "--no-serve-artifacts",
                *("--uvicorn-opts", "--log-level=warning"),
            )
        },
        environment=_ENVIRONMENT if there else {**_ENVIRONMENT, **_FILE},
        health=(f"{address}/health",),
        variables={"MLFLOW_TRACKING_URI": address},
        prepare=lambda: folder.mkdir(parents=True, exist_ok=True),
        furnish=lambda: None,
    )
