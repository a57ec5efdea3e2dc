"""Environment variables: what servers are started with, and what their clients are told."""

from __future__ import annotations

import os
import shlex
import urllib.request
from collections.abc import Mapping

from qartsr.services.ports import HOST
from qartsr.services.service import TELEMETRY_OFF

_FOREIGN = ("MLFLOW_", "_MLFLOW_", "PREFECT_", "AWS_")


def server_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without what would configure the servers behind our back, plus ``variables``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    return {**kept, **TELEMETRY_OFF, **_no_proxy(), "PYTHONUNBUFFERED": "1", **variables}


def client_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """What the clients of the services set, telemetry switched off; a proxy may be set after the services started."""
    return {**TELEMETRY_OFF, **_no_proxy(always=True), **variables}


def env_lines(variables: Mapping[str, str]) -> str:
    """``KEY=VALUE`` lines, quoted for a shell where necessary, sorted."""
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in sorted(variables.items()))


def _no_proxy(always: bool = False) -> dict[str, str]:
    """Where a proxy is in use, it must not be asked for this machine itself."""
    if not always and not urllib.request.getproxies():
        return {}
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = [*filter(None, known.split(",")), *(host for host in (HOST, "localhost") if host not in known)]
    return {"NO_PROXY": ",".join(hosts), "no_proxy": ",".join(hosts)}
