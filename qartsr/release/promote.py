"""Promotion: the alias ``champion`` moves to a version that passes the gate; ``previous`` remembers the one before.

The gate: the version is READY, its average PSNR against HR is at most ``max_psnr_loss`` dB below the floating-point
model's, and the store gives back the very bytes that were registered. ``previous`` is written before ``champion``, so a
crash between the two leaves the champion as it was.
"""

from __future__ import annotations

import getpass
import os
from dataclasses import dataclass
from datetime import UTC, datetime

from qartsr.config.schema import PromoteConfig
from qartsr.errors import QartsrError
from qartsr.release.registry import Registry, Version, model_name, open_registry
from qartsr.remote import open_store

CHAMPION, PREVIOUS = "champion", "previous"


@dataclass(frozen=True)
class Promotion:
    """What a promotion did; ``str`` says it in one sentence. Numbers are versions, 0 where there was none."""

    model: str
    version: int
    before: int
    psnr_loss: float
    limit: float

    def __str__(self) -> str:
        if self.before == self.version:
            return f"{self.model} version {self.version} is champion already; nothing was changed."
        old = f"version {self.before} is previous" if self.before else "there was no champion before"
        place = "below" if self.psnr_loss >= 0 else "above"
        gate = f"PSNR {abs(self.psnr_loss):.2f} dB {place} FP, allowed {self.limit:.2f} dB, hash verified in storage"
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

    Raises QartsrError naming the number that failed.
    """
    registry, name = open_registry(), model_name(profile, bits)
    candidate, champion = _candidate(registry, name, version), registry.alias(name, CHAMPION)
    limit = _limit(gate, bits)
    loss = candidate.number_tag("fp_psnr") - candidate.number_tag("psnr")
    if champion is not None and champion.number == candidate.number:
        return Promotion(name, candidate.number, champion.number, loss, limit)
    _examine(candidate, loss, limit)
    if champion is not None:
        registry.set_alias(champion, PREVIOUS)
    registry.set_alias(candidate, CHAMPION)
    gate_passed = f"psnr loss {loss:.4f} dB, allowed {limit:.4f} dB"
    registry.set_tags(candidate, {**_audit("promoted"), "promotion_gate": gate_passed})
    return Promotion(name, candidate.number, champion.number if champion else 0, loss, limit)


def rollback(profile: str, bits: str) -> Rollback:
    """Swap ``champion`` and ``previous``. Raises QartsrError when there is nothing sound to go back to."""
    registry, name = open_registry(), model_name(profile, bits)
    champion, previous = registry.alias(name, CHAMPION), registry.alias(name, PREVIOUS)
    if champion is None or previous is None or champion.number == previous.number:
        raise QartsrError("has no previous champion to go back to", name, "promote another version instead")
    verify(previous)
    registry.set_alias(previous, CHAMPION)
    registry.set_alias(champion, PREVIOUS)
    registry.set_tags(champion, _audit("rolled_back"))
    return Rollback(name, previous.number, champion.number)


def verify(version: Version) -> None:
    """Read the version's bytes back from the store. Raises QartsrError unless their hash is the registered one."""
    expected, (bucket, key) = version.tag("sha256"), version.weights()
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
    if number is None:
        return versions[-1]
    for version in versions:
        if version.number == number:
            return version
    known = ", ".join(str(version.number) for version in versions)
    raise QartsrError(f"has no version {number}", name, f"choose among {known}")


def _limit(gate: PromoteConfig, bits: str) -> float:
    if bits not in gate.max_psnr_loss:
        raise QartsrError(f"has no limit for {bits}", "promote.max_psnr_loss", f"add {bits} to it in params.yaml")
    return gate.max_psnr_loss[bits]


def _examine(version: Version, loss: float, limit: float) -> None:
    """The gate."""
    if version.status != "READY":
        raise QartsrError(f"is {version.status}, not READY", str(version), "wait, or publish it again")
    if not loss <= limit:  # a loss that is not a number does not pass
        raise QartsrError(
            f"is not promoted: its PSNR is {loss:.2f} dB below FP, allowed are {limit:.2f} dB",
            str(version),
            f"train a better one, or raise promote.max_psnr_loss.{version.tag('bits')} in params.yaml",
        )
    verify(version)


def _audit(what: str) -> dict[str, str]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in many containers
        user = f"uid {os.getuid()}"
    return {f"{what}_at": datetime.now(UTC).isoformat(timespec="seconds"), f"{what}_by": user}
