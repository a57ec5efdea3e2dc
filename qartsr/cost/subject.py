"""What is asked about: a model known by name, or the one in a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from qartsr.errors import QartsrError
from qartsr.models import architecture, blank
from qartsr.models.folder import stored_architecture
from qartsr.synthetic import ARCHITECTURES


class Subject(NamedTuple):
    """A model to be counted."""

    name: str
    architecture: dict[str, Any]
    """as :func:`qartsr.models.skeleton` takes it"""

    @property
    def published(self) -> bool:
        """Whether it is the model of the paper's Table 2, whose floating-point row has a text path."""
        return self.name == "osediff"

    @property
    def profile(self) -> str:
        """Whose quantization recipe it gets."""
        return "sample" if self.name == "sample" else "osediff"


def subject(model: str) -> Subject:
    """``osediff``, ``sample`` or a model folder. Raises QartsrError when it is neither, or the folder is unusable."""
    if model in ARCHITECTURES:
        return Subject(model, ARCHITECTURES[model]())
    folder = Path(model)
    if not folder.is_dir():
        names = ", ".join(ARCHITECTURES)
        raise QartsrError("is neither a known model nor a folder", model, f"give {names} or a model folder")
    return Subject(model, architecture(blank(stored_architecture(folder))))
