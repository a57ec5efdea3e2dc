"""What servers and clients find in their environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from qartsr.services.environment import client_environment, env_lines, server_environment

ODD = {"PLAIN": "http://127.0.0.1:1", "SPACE": "a b", "QUOTE": 'it\'s "so"', "DOLLAR": "$HOME `id` \\", "LINES": "a\nb"}
PRINT = f"{sys.executable} -c 'import json, os; print(json.dumps(dict(os.environ)))'"


def test_lines_mean_the_same_to_sh(tmp_path: Path) -> None:
    (tmp_path / "env").write_text(env_lines(ODD))
    script = f"set -a; . {tmp_path}/env; set +a; {PRINT}"
    output = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    heard = json.loads(output)
    assert {name: heard[name] for name in ODD} == ODD


def test_servers_are_not_configured_by_accident(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "AWS_PROFILE"):
        monkeypatch.setenv(name, "of somebody else")
    environment = server_environment({"AWS_ACCESS_KEY_ID": "ours"})
    assert "of somebody else" not in environment.values()
    assert environment["AWS_ACCESS_KEY_ID"] == "ours" and environment["PATH"] == os.environ["PATH"]
    assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"


def test_a_proxy_is_not_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("no_proxy", raising=False)
    assert "no_proxy" not in server_environment({})
    assert client_environment({})["no_proxy"] == "127.0.0.1,localhost"  # one may be set after the services started
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "intranet.example")
    environment = client_environment({})
    assert environment["no_proxy"] == environment["NO_PROXY"] == "intranet.example,127.0.0.1,localhost"
