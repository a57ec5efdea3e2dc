"""Looking at the services from outside, without what they know of themselves."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from qartsr.remote import Store, open_store


def processes(root: Path) -> list[str]:
    """Command lines of the servers whose folder is below ``root``."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        server = any(f"{root}/s3/" in word or f"{root}/mlflow/" in word for word in words)
        if server and process.pid != os.getpid() and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(" ".join(words))
    return found


def store_of(environment: dict[str, str]) -> Store:
    """The store an environment names, whatever the environment of this process names."""
    key, secret = environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]
    return open_store(environment["AWS_ENDPOINT_URL_S3"], key, secret, environment["AWS_DEFAULT_REGION"])


def command(*words: str, **variables: str) -> subprocess.Popen[str]:
    """``python -m qartsr.services WORDS``."""
    return subprocess.Popen(
        [sys.executable, "-m", "qartsr.services", *words],
        env={**os.environ, **variables},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@contextmanager
def listening(port: int = 0) -> Iterator[int]:
    """A stranger that listens and never answers; yields its port."""
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("127.0.0.1", port))
        stranger.listen()
        yield stranger.getsockname()[1]
