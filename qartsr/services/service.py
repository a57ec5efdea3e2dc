"""What a service is: data. ``stack`` starts it, ``swift``, ``mlflow`` and ``prefect`` describe one each."""

from __future__ import annotations

import http.client
import os
import sys
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

Command = tuple[str, ...]

TELEMETRY_OFF = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}
"""For servers and clients alike. DO_NOT_TRACK alone does not stop Prefect's server."""

# The loopback interface is never behind a proxy, whatever http_proxy says.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Service:
    """One server: its processes, how to see that it is well, and what its clients must know."""

    address: str
    """Where a person opens it."""
    commands: Mapping[str, Command]
    """Name of the log -> command."""
    environment: Mapping[str, str]
    """Added to the environment of its processes."""
    health: tuple[str, ...]
    """Addresses that all answer 200 when it is ready."""
    variables: Mapping[str, str]
    """Environment of its clients."""
    prepare: Callable[[], None]
    """Writes what it needs, before its processes start."""
    furnish: Callable[[], None]
    """Makes what its clients expect, once it is healthy."""

    def healthy(self, timeout: float = 2.0) -> bool:
        """Whether every health address answers."""
        try:
            for url in self.health:
                with _DIRECT.open(url, timeout=timeout) as answer:
                    answer.read()
        except (OSError, http.client.HTTPException):  # the second: a stranger that speaks something else
            return False
        return True


class Offer(NamedTuple):
    """A service that can be started: where it listens if nothing else does, and what it is made from."""

    module: str
    """The package that must be installed."""
    extra: str
    """The extra of qartsr that installs it."""
    port: int
    """The first of its ports."""
    ports: int
    describe: Callable[[Path, int], Service]
    """(folder of the service, first port) -> Service."""


DATABASE = "QARTSR_DATABASE"
"""Variable: ``USER:PASSWORD@HOST:PORT`` of a PostgreSQL server that has databases ``mlflow`` and ``prefect``."""


def database(driver: str, name: str) -> str:
    """Address of a database on the server that the environment names; empty when it names none."""
    server = os.environ.get(DATABASE, "").strip()
    return f"{driver}://{server}/{name}" if server else ""


def python(module: str, *arguments: str) -> Command:
    """``python -m module`` of this very interpreter, blind to modules in the current folder."""
    return (sys.executable, "-P", "-m", module, *arguments)
