"""Promotion: the alias ``champion`` moves to a version that passes the gate; ``previous`` remembers the one before.

The gate: the version is READY, its average PSNR against HR is at most so many dB below the floating-point model's, on
luma and on RGB, its RGB PSNR to that model's output at least so many dB, its warping error on clips, where that is
limited, at most so many times that model's, and the store gives back the very bytes that
were registered. Luma alone would let a model pass that has lost all colour.

Whatever ends a promotion or a rollback between two calls to the registry, the same again completes it. A promotion
writes ``previous`` before ``champion``, and what it was promoted for last. A rollback, which needs both aliases, keeps
the champion that it takes away under a third, ``leaving``, until all else is done.
"""

from __future__ import annotations

import getpass
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from qartsr.config.schema import PromoteConfig
from qartsr.errors import QartsrError
from qartsr.release.registry import Registry, Version, model_name, open_registry
from qartsr.remote import open_store

CHAMPION, PREVIOUS, LEAVING = "champion", "previous", "leaving"
_GATE = "promotion_gate"
"""Tag of a version that was promoted, the last that is written."""


@dataclass(frozen=True)
class Check:
    """A number of a version and its limit: ``rule`` names it in ``promote`` and says whether most or least."""

    rule: str
    value: float
    limit: float

    @property
    def passed(self) -> bool:
        """A value that is not a number does not pass, nor a loss that is not finite: no model gains without bound."""
        if self.rule.startswith("min"):
            return self.value >= self.limit
        return math.isfinite(self.value) and self.value <= self.limit

    def __str__(self) -> str:
        if self.rule == "max_flicker":
            return f"warping error is {self.value:.2f} times FP's, allowed are {self.limit:.2f} times"
        if self.rule.startswith("min"):
            return f"{_RULES[self.rule]} is {self.value:.2f} dB, needed are {self.limit:.2f} dB"
        place = "above" if self.value < 0 else "below"
        return f"{_RULES[self.rule]} is {abs(self.value):.2f} dB {place} FP, allowed are {self.limit:.2f} dB"


_RULES = {"max_psnr_loss": "PSNR", "max_psnr_rgb_loss": "RGB PSNR", "min_psnr_rgb_to_fp": "RGB PSNR to FP's output"}


@dataclass(frozen=True)
class Promotion:
    """What a promotion did; ``str`` says it in one sentence. Numbers are versions, 0 where there was none."""

    model: str
    version: int
    before: int
    checks: tuple[Check, ...]

    def __str__(self) -> str:
        if self.before == self.version:
            return f"{self.model} version {self.version} is champion already; nothing was changed."
        old = f"version {self.before} is previous" if self.before else "there was no champion before"
        gate = "; ".join([*map(str, self.checks), "hash verified in storage"])
        return f"{self.model} version {self.version} is champion ({gate}); {old}."


@dataclass(frozen=True)
class Rollback:
    """What a rollback did; ``str`` says it in one sentence."""

    model: str
    version: int
    before: int

    def __str__(self) -> str:
        return f"{self.model} version {self.version} is champion again; version {self.before} is previous."


def promote(profile: str, bits: str, gate: PromoteConfig, version: int | None = None) -> Promotion:
    """Make the newest version of ``qartsr-<profile>-<bits>`` (or ``version``) champion, if it passes the gate.

    Raises QartsrError naming the numbers that failed.
    """
    registry, name = open_registry(), model_name(profile, bits)
    candidate, numbers = _candidate(registry, name, version), registry.aliases(name)
    checks, before = _checks(candidate, gate, bits), numbers.get(CHAMPION, 0)
    if before == candidate.number and _GATE in candidate.tags:
        return Promotion(name, candidate.number, before, checks)
    _examine(candidate, checks, bits)
    if before == candidate.number:  # a promotion that was ended before it said what for, or an alias set by hand
        before = numbers.get(PREVIOUS, 0)
    else:
        _move(registry, candidate, numbers)
    registry.set_tags(candidate, {**_audit("promoted"), _GATE: "; ".join(map(str, checks))})
    return Promotion(name, candidate.number, before, checks)


def rollback(profile: str, bits: str) -> Rollback:
    """Swap ``champion`` and ``previous``. Raises QartsrError when there is nothing sound to go back to."""
    registry, name = open_registry(), model_name(profile, bits)
    champion, previous = (registry.version(name, number) for number in _swapped(name, registry.aliases(name)))
    if champion is None or previous is None:
        raise _nothing(name)
    verify(previous)
    registry.set_alias(champion, LEAVING)
    registry.set_alias(previous, CHAMPION)
    registry.set_alias(champion, PREVIOUS)
    _demand_champion(registry, previous)
    registry.set_tags(champion, _audit("rolled_back"))
    registry.drop_alias(name, LEAVING)
    return Rollback(name, previous.number, champion.number)


def _swapped(name: str, numbers: Mapping[str, int]) -> tuple[int, int]:
    """The champion that a rollback takes away, and the one that comes back; of one that was ended halfway, its own."""
    champion, previous, leaving = (numbers.get(alias, 0) for alias in (CHAMPION, PREVIOUS, LEAVING))
    if not champion or not previous:
        raise _nothing(name)
    if leaving not in (0, champion) and previous in (champion, leaving):
        return leaving, champion
    if champion == previous:
        what = f"version {champion} is champion and previous at once, which a promotion leaves that was ended halfway"
        raise QartsrError(what, name, "promote again, or promote by its number the version to go back to")
    return champion, previous


def _nothing(name: str) -> QartsrError:
    return QartsrError("has no previous champion to go back to", name, "promote another version instead")


def _move(registry: Registry, candidate: Version, numbers: Mapping[str, int]) -> None:
    """``previous`` to the champion, ``champion`` to the candidate; the former back again if the latter fails."""
    name = candidate.name
    if LEAVING in numbers:  # of a rollback that was ended: this goes before it
        registry.drop_alias(name, LEAVING)
    if _GATE in candidate.tags:  # of an earlier promotion
        registry.drop_tag(candidate, _GATE)
    champion, before = registry.alias(name, CHAMPION), registry.alias(name, PREVIOUS)
    if champion is not None:
        registry.set_alias(champion, PREVIOUS)
    try:
        registry.set_alias(candidate, CHAMPION)
    except QartsrError:
        if champion is not None:
            with suppress(QartsrError):
                if before is None:
                    registry.drop_alias(name, PREVIOUS)
                else:
                    registry.set_alias(before, PREVIOUS)
        raise
    _demand_champion(registry, candidate)


def _demand_champion(registry: Registry, version: Version) -> None:
    """The registry knows no compare-and-swap: whoever else moves the aliases at the same time is noticed afterwards."""
    numbers = registry.aliases(version.name)
    if (found := numbers.get(CHAMPION)) != version.number:
        if LEAVING in numbers:
            with suppress(QartsrError):
                registry.drop_alias(version.name, LEAVING)
        what = f"was made champion, but somebody else made it version {found} at the same time"
        raise QartsrError(
            what, str(version), "see in MLflow which one it should be, and promote that one by its number"
        )


def verify(version: Version) -> None:
    """Read the version's bytes back from the store. Raises QartsrError unless their hash is the registered one."""
    expected, (bucket, key) = version.sha256(), version.weights()
    store = open_store()
    store.demand(bucket)
    actual = store.sha256(bucket, key)
    if actual != expected:
        found = f"have SHA-256 {actual[:12]}…, registered is {expected[:12]}…" if actual else "are not there"
        raise QartsrError(
            f"{version}: its bytes in storage {found}", f"s3://{bucket}/{key}", "publish the package again"
        )


def _candidate(registry: Registry, name: str, number: int | None) -> Version:
    versions = registry.versions(name)
    if not versions:
        raise QartsrError("has no version in the registry", name, "run the publish stage first")
    if number is None:  # of several with the same bytes, the one that their publishers keep
        newest = versions[-1]
        same = (v for v in versions if v.source == newest.source and v.tags.get("sha256") == newest.tags.get("sha256"))
        return next(same) if "sha256" in newest.tags else newest
    for version in versions:
        if version.number == number:
            return version
    known = ", ".join(str(version.number) for version in versions)
    raise QartsrError(f"has no version {number}", name, f"choose among {known}")


def _checks(version: Version, gate: PromoteConfig, bits: str) -> tuple[Check, ...]:
    limits: dict[str, dict[str, float]] = gate.model_dump()
    for rule, by_bits in limits.items():
        if bits not in by_bits and (by_bits or rule != "max_flicker"):
            raise QartsrError(f"has no limit for {bits}", f"promote.{rule}", f"add {bits} to it in params.yaml")
    values = {
        "max_psnr_loss": version.number_tag("fp_psnr") - version.number_tag("psnr"),
        "max_psnr_rgb_loss": version.number_tag("fp_psnr_rgb") - version.number_tag("psnr_rgb"),
        "min_psnr_rgb_to_fp": version.number_tag("psnr_rgb_to_fp"),
    }
    if gate.max_flicker:
        full = version.number_tag("fp_ewarp_tvl1")
        values["max_flicker"] = version.number_tag("ewarp_tvl1") / full if full else math.inf
    return tuple(Check(rule, value, limits[rule][bits]) for rule, value in values.items())


def _examine(version: Version, checks: Sequence[Check], bits: str) -> None:
    """The gate."""
    if version.status != "READY":
        raise QartsrError(f"is {version.status}, not READY", str(version), "wait, or publish it again")
    failed = [check for check in checks if not check.passed]
    if failed:
        ways = [f"{'lower' if c.rule.startswith('min') else 'raise'} promote.{c.rule}.{bits}" for c in failed]
        what = f"is not promoted: its {' and its '.join(map(str, failed))}"
        raise QartsrError(what, str(version), f"train a better one, or {' and '.join(ways)} in params.yaml")
    verify(version)


def _audit(what: str) -> dict[str, str]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in many containers
        user = f"uid {os.getuid()}"
    return {f"{what}_at": datetime.now(UTC).isoformat(timespec="seconds"), f"{what}_by": user}
