"""The kinds of backbones there are, by the name that stored models give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qartsr.errors import QartsrError
from qartsr.models.interface import Backbone
from qartsr.models.sd3_dit.model import SD3DiT
from qartsr.models.sd_unet.model import SDUNet

KINDS: Mapping[str, type[Backbone]] = {kind.kind: kind for kind in (SDUNet, SD3DiT)}
DEFAULT = SDUNet.kind
"""of a model that does not say: those made before there were others"""


def kind_of(stored: Mapping[str, Any]) -> type[Backbone]:
    """The class of a model from its architecture or its qartsr.json. Raises QartsrError for an unknown kind."""
    name = stored.get("kind", DEFAULT)
    if name not in KINDS:
        what = f"is of the unknown kind {name!r}; known: {', '.join(KINDS)}"
        raise QartsrError(what, "the model", "update qartsr, or make the model again")
    return KINDS[name]
