"""A minute's part of the campaign that ``make chaos`` runs for an hour."""

from __future__ import annotations

import pytest

from tests.chaos.__main__ import campaign
from tests.chaos.damage import IN_PROCESS


@pytest.mark.parametrize("kind", IN_PROCESS)
def test_nothing_fails_in_a_second(kind: str) -> None:
    found = campaign({kind: IN_PROCESS[kind]}, 1.0, seed=7)[kind]
    assert found.tried and not found.failed
