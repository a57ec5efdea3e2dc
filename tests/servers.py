"""Fixtures: the real local servers, started once per run in a scratch folder on free ports; its workers share them."""

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
from tests.locks import locked
from tests.pipelines.alive import alive

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
def servers(server_folder: Path) -> Iterator[dict[str, str]]:
    """The S3 store and MLflow; their environment is set while the session lasts."""
    before = dict(os.environ)
    with _started(server_folder / "stores", "s3", "mlflow") as environment:
        os.environ.update(environment)
        try:
            yield environment
        finally:
            os.environ.clear()
            os.environ.update(before)


@pytest.fixture(scope="session")
def prefect_server(server_folder: Path) -> Iterator[str]:
    """Address of a Prefect API that lives as long as the tests."""
    with _started(server_folder / "prefect", "prefect") as environment:
        yield environment["PREFECT_API_URL"]


@pytest.fixture(scope="session")
def server_folder(run_folder: Path, database: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where servers keep data and logs. With a database of its own, which ends with it, a worker has its own."""
    return tmp_path_factory.mktemp("servers") if database else run_folder / "servers"


@contextmanager
def _started(root: Path, *names: str) -> Iterator[dict[str, str]]:
    """Those that run already are taken as they are; the last worker that has them ends them."""
    users = root / "users"
    users.mkdir(parents=True, exist_ok=True)
    mine = users / str(os.getpid())
    try:
        with locked(root / "users.lock"):
            mine.touch()
            environment = start(root / "data", names)
        yield environment
    finally:
        with locked(root / "users.lock"):
            mine.unlink()
            if not any(alive(int(user.name)) for user in users.iterdir()):
                stop(root / "data")
