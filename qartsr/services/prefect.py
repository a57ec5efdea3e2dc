"""The Prefect server: flow runs, their logs and artifacts, in SQLite."""

from __future__ import annotations

from pathlib import Path

from qartsr.services.ports import HOST
from qartsr.services.service import Service, python


def prefect_service(folder: Path, port: int) -> Service:
    """The server with its home in ``folder``, so that nothing is written to the user's own."""
    address = f"http://{HOST}:{port}"
    return Service(
        address=address,
        commands={"prefect": python("prefect", "server", "start", "--host", HOST, "--port", str(port))},
        environment={"PREFECT_HOME": str(folder), "PREFECT_SERVER_LOGGING_LEVEL": "WARNING"},
        health=(f"{address}/api/health",),
        variables={"PREFECT_API_URL": f"{address}/api", "PREFECT_HOME": str(folder)},
        prepare=lambda: folder.mkdir(parents=True, exist_ok=True),
        furnish=lambda: None,
    )
