"""What the tests of runs share."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

import pytest


def told(metrics: Mapping[str, float]) -> dict[str, float]:
    """A run's metrics without those of the machine."""
    return {name: value for name, value in metrics.items() if not name.startswith("system/")}


@pytest.fixture()
def profile(monkeypatch: pytest.MonkeyPatch) -> str:
    """A profile of its own, thus an experiment; and a server that is busy with tests may take its time to answer."""
    monkeypatch.setattr("qartsr.tracking.open._FIRST_ANSWER", 30.0)
    return f"test-{uuid.uuid4().hex[:12]}"
