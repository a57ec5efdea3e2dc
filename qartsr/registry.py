"""A table from a config class to the part it describes.

Lookup is by the exact type of the config object, so a part is chosen by data and never by ``isinstance`` chains.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

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

    def build(self, config: object, **runtime: Any) -> Part:
        """Build the part that ``config`` describes; ``runtime`` holds what config cannot (shapes, bits)."""
        return self._builders[type(config)](config, **runtime)

    def types(self) -> frozenset[type]:
        """The registered config types."""
        return frozenset(self._builders)
