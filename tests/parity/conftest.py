"""The fixture's model, once with the LoRA merged and once with it beside the weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from qartsr.models import OneStepSR
from qartsr.models.osediff import load_osediff
from tests.parity.cases import PROMPT


@pytest.fixture(scope="session")
def models(parity: Path) -> dict[bool, OneStepSR]:
    """By ``merge``."""
    base, lora = parity / "sd21_tiny", parity / "osediff.pkl"
    return {merge: load_osediff(base, lora, "none", PROMPT, merge=merge) for merge in (False, True)}
