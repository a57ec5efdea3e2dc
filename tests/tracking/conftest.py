"""What the tests of runs share."""

from __future__ import annotations

import uuid

import pytest


@pytest.fixture()
def profile(monkeypatch: pytest.MonkeyPatch) -> str:
    """A profile of its own, thus an experiment; and a server that is busy with tests may take its time to answer."""
    monkeypatch.setattr("qartsr.tracking.open._FIRST_ANSWER", 30.0)
    return f"test-{uuid.uuid4().hex[:12]}"
