"""Fixtures: the real local servers, started once per session in a scratch folder on free ports."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from qartsr.services import start, stop


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
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
