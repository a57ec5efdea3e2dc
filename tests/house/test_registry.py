"""Every kind that params.yaml may name can be built, and nothing can be built that params.yaml may not name."""

from __future__ import annotations

from typing import Annotated, get_args, get_origin

import pytest

from qartsr.branches.family import BRANCHES
from qartsr.config import parts
from qartsr.quantizers.family import QUANTIZERS
from qartsr.quantizers.rounding import ROUNDINGS
from qartsr.registry import Registry
from qartsr.transforms.family import TRANSFORMS


def _kinds(union: object) -> set[type]:
    """Config classes of a discriminated union."""
    inner = get_args(union)[0] if get_origin(union) is Annotated else union
    return set(get_args(inner))


@pytest.mark.parametrize(
    ("registry", "configs"),
    [
        (QUANTIZERS, _kinds(parts.QuantizerConfig)),
        (ROUNDINGS, _kinds(parts.RoundingConfig)),
        (TRANSFORMS, _kinds(parts.TransformConfig)),
        (BRANCHES, _kinds(parts.SkipConfig) | _kinds(parts.AdapterConfig)),
    ],
    ids=["quantizers", "roundings", "transforms", "branches"],
)
def test_registry_and_schema_agree(registry: Registry[object], configs: set[type]) -> None:
    assert registry.types() == configs
