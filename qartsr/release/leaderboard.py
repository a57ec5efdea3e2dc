"""All registered versions, side by side."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

from qartsr.release.registry import Version, open_registry


class Standing(NamedTuple):
    """A registered version as the leaderboard has it; numbers it was registered without are None."""

    model: str
    version: int
    aliases: tuple[str, ...]
    bits: str
    method: str
    psnr: float | None
    fp_psnr: float | None
    ssim: float | None
    psnr_to_fp: float | None
    bytes: int | None

    @property
    def uri(self) -> str:
        """Its address."""
        return f"models:/{self.model}/{self.version}"

    def __str__(self) -> str:
        also = f" ({', '.join(self.aliases)})" if self.aliases else ""
        return f"{self.model} version {self.version}{also}"


def leaderboard() -> list[Standing]:
    """All versions of all models that qartsr has registered, best PSNR first. Raises QartsrError without a server."""
    registry, standings = open_registry(), list[Standing]()
    for name in registry.names("qartsr-"):
        aliases = registry.aliases(name)
        standings += [_standing(version, aliases) for version in registry.versions(name)]
    return sorted(standings, key=lambda each: (-(each.psnr or 0.0), each.model, each.version))


def _standing(version: Version, aliases: dict[str, int]) -> Standing:
    tags = version.tags
    mine = tuple(alias for alias, number in aliases.items() if number == version.number)
    psnr, fp_psnr, ssim, to_fp = (_number(tags.get(key)) for key in ("psnr", "fp_psnr", "ssim", "psnr_to_fp"))
    size = _number(tags.get("bytes"))
    words = tags.get("bits", ""), tags.get("method", "")
    return Standing(
        version.name, version.number, mine, *words, psnr, fp_psnr, ssim, to_fp, None if size is None else int(size)
    )


def _number(text: str | None) -> float | None:
    with suppress(TypeError, ValueError):
        return float(text)  # type: ignore[arg-type]  # None is a TypeError
    return None
