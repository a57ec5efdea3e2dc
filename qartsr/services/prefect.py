"""The Prefect server: flow runs, their logs and artifacts, in SQLite or PostgreSQL."""

from __future__ import annotations

from pathlib import Path

from qartsr.services.ports import HOST
from qartsr.services.service import Service, database, python


def prefect_service(folder: Path, port: int) -> Service:
    """The server with its home in ``folder``, so that nothing is written to the user's own."""
    there = database("postgresql+asyncpg", "prefect")
    address = f"http://{HOST}:{port}"
    return Service(
        address=address,
        commands={"prefect": python("prefect", "server", "start", "--host", HOST, "--port", str(port))},
        environment={
            "PREFECT_HOME": str(folder),
            "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
            "PREFECT_SERVER_UI_API_URL": f"{address}/api",  # else the page asks port 4200, whoever listens there
            # In memory, where they are by default, a restart loses them, and every run that holds one is ended.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            **({"PREFECT_SERVER_DATABASE_CONNECTION_URL": there} if there else {}),
        },
        health=(f"{address}/api/health",),
        variables={"PREFECT_API_URL": f"{address}/api", "PREFECT_HOME": str(folder)},
        prepare=lambda: folder.mkdir(parents=True, exist_ok=True),
        furnish=lambda: None,
    )
