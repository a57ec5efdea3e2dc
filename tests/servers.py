"""Fixtures: the real local servers, started once per session in a scratch folder on free ports."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qartsr.services import start, stop
from qartsr.services.service import DATABASE

ASKED = "QARTSR_TEST_DATABASE"
"""Set to ``postgresql`` by `make database-test`: MLflow and Prefect keep their data there, in every test."""


@pytest.fixture(scope="session", autouse=True)
def database() -> Iterator[str]:
    """Address of a PostgreSQL server of the session's own, where one is asked for; else empty, and it is SQLite."""
    if os.environ.get(ASKED) != "postgresql":
        yield ""
        return
    with postgresql() as address:
        os.environ[DATABASE] = address
        yield address
        del os.environ[DATABASE]


@contextmanager
def postgresql() -> Iterator[str]:
    """Debian's PostgreSQL in a folder of its own; skips where it is absent. It refuses to run as root."""
    programs = max(Path("/usr/lib/postgresql").glob("*/bin/initdb"), default=None)
    if programs is None:
        pytest.skip("PostgreSQL is not in /usr/lib/postgresql; `make database-test` installs it (Debian)")
    folder = Path(tempfile.mkdtemp(prefix="qartsr-postgresql-"))
    prefix = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    if prefix:
        shutil.chown(folder, "postgres")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]

    def run(program: str, *words: object, given: str = "") -> None:
        command = [*prefix, str(programs.with_name(program)), *map(str, words)]
        environment = {**os.environ, "PGPASSWORD": "secret", "LC_ALL": "C"}
        subprocess.run(
            command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL, input=given, text=True
        )

    (folder / "password").write_text("secret")
    (folder / "password").chmod(0o644)
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    run("initdb", "-D", folder / "data", "-U", "qartsr", "-A", "scram-sha-256", f"--pwfile={folder / 'password'}")
    try:
        run("pg_ctl", "-D", folder / "data", "-l", folder / "log", "-o", options, "-w", "start")
        made = (Path(__file__).parents[1] / "docker" / "databases.sql").read_text()
        run("psql", "-h", "127.0.0.1", "-p", port, "-U", "qartsr", "-v", "ON_ERROR_STOP=1", "postgres", given=made)
        yield f"qartsr:secret@127.0.0.1:{port}"
    finally:
        run("pg_ctl", "-D", folder / "data", "-m", "immediate", "stop")
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[dict[str, str]]:
    """The S3 store and MLflow; their environment is set while the session lasts."""
    root = tmp_path_factory.mktemp("services")
    before = dict(os.environ)
    try:
        environment = start(root, ("s3", "mlflow"))
        os.environ.update(environment)
        yield environment
    finally:
        os.environ.clear()
        os.environ.update(before)
        stop(root)


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Prefect API that lives as long as the tests."""
    root = tmp_path_factory.mktemp("prefect")
    try:
        yield start(root, ("prefect",))["PREFECT_API_URL"]
    finally:
        stop(root)
