"""Every kind of backbone has a licence for its card."""

from __future__ import annotations

from typing import get_args

from qartsr.config.schema import BackboneConfig
from qartsr.packing.model_card import LICENCES


def test_every_kind_of_backbone_has_a_licence() -> None:
    kinds = {kind.model_fields["kind"].default for kind in get_args(get_args(BackboneConfig)[0])}
    assert set(LICENCES) == kinds and len(kinds) > 5
