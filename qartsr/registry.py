"""A table from a config class to the part it describes.

Lookup is by the exact type of the config object, so a part is chosen by data and never by ``isinstance`` chains.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from qartsr.errors import QartsrError

Part = TypeVar("Part")


class Registry(Generic[Part]):
    """Maps config types to builders. Adding a type twice is an error."""

    def __init__(self, family: str) -> None:
        self.family = family
        self._builders: dict[type, Callable[..., Part]] = {}

    def register(self, config_type: type) -> Callable[[Callable[..., Part]], Callable[..., Part]]:
        """Decorator: ``@QUANTIZERS.register(LBQConfig)`` above a class or function."""

        def add(builder: Callable[..., Part]) -> Callable[..., Part]:
            if config_type in self._builders:
                raise ValueError(f"{self.family}: {config_type.__name__} is registered already")
            self._builders[config_type] = builder
            return builder

        return add

    def of(self, config: object) -> Callable[..., Part]:
        """The class (or function) that ``config`` belongs to. Raises QartsrError for a config nobody registered."""
        if type(config) not in self._builders:
            kinds = ", ".join(sorted(each.__name__ for each in self._builders))
            raise QartsrError(f"no {self.family} is registered for it", type(config).__name__, f"use one of {kinds}")
        return self._builders[type(config)]

    def build(self, config: object, **runtime: Any) -> Part:
        """Build the part that ``config`` describes; ``runtime`` holds what config cannot (shapes, bits)."""
        return self.of(config)(config, **runtime)

    def answer(self, config: object, question: str) -> Any:
        """The attribute ``question`` of the part's class: what can be known of it before it is built.

        Raises QartsrError where the class does not say: what is unknown is never taken for nothing.
        """
        kind = self.of(config)
        if not hasattr(kind, question):
            name = getattr(kind, "__name__", self.family)
            raise QartsrError(f"does not say its {question!r}", f"{self.family} {name}", f"define {question} in {name}")
        return getattr(kind, question)

    def types(self) -> frozenset[type]:
        """The registered config types."""
        return frozenset(self._builders)
