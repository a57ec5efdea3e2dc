"""Publish a package: bytes to S3 under their hash, read back, then one registered version.

Exactly one version per content and place, also when many publish the same bytes at once. The judge is the registry: it
numbers versions one after another, so whoever creates a version sees every lower one. All keep the lowest and delete
the rest.
A lock object in the store would not do: Swift lets several of eight simultaneous conditional writes succeed (51 of 60
trials), and a lock that its owner's death leaves behind needs a clock.

The order is upload, verify, register: a crash leaves an object without a version at worst, never the reverse.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from qartsr.errors import QartsrError
from qartsr.files import read_json, sha256_file
from qartsr.release.flavour import write_flavour
from qartsr.release.registry import WEIGHTS, Registry, Version, open_registry
from qartsr.remote import Store, open_store

Metrics = Mapping[str, Mapping[str, Any]]
"""Data set -> metric -> mean over its pictures; ``sets`` beside them holds the means of its parts."""


def package_tags(folder: Path, profile: str) -> dict[str, str]:
    """Tags of the package in ``folder``, read from its summary.json and checked against its model file.

    ``psnr``, ``ssim``, … are averages over the data sets; ``fp_psnr``, … the same of the floating-point model. Raises
    QartsrError when either file is missing, or summary.json tells of another one or not enough.
    """
    path = folder / "summary.json"
    summary, actual = read_json(path), sha256_file(folder / WEIGHTS)
    try:
        quality = averages(summary["metrics"])
        reference = {f"fp_{name}": value for name, value in averages(summary["fp"]).items()}
        numbers = {name: f"{value:.6f}" for name, value in {**quality, **reference}.items()}
        identity = {"profile": profile, "bits": str(summary["bits"]), "method": str(summary["method"])}
        described = summary["sha256"]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise QartsrError(f"does not describe a package ({error!r})", str(path), "make the package again") from error
    if described != actual:
        raise QartsrError(
            "is not the file that summary.json describes", str(folder / WEIGHTS), "make the package again"
        )
    return {**identity, **numbers, **provenance(Path.cwd())}


def averages(metrics: Metrics) -> dict[str, float]:
    """Mean over the data sets, of every metric that all of them have."""
    tables = [{name: value for name, value in table.items() if name != "sets"} for table in metrics.values()]
    names = sorted(set.intersection(*(set(table) for table in tables))) if tables else []
    return {name: sum(table[name] for table in tables) / len(tables) for name in names}


def provenance(project: Path) -> dict[str, str]:
    """Git commit and hash of dvc.lock, as far as there are any."""
    found = {}
    command = ["git", "-C", str(project), "rev-parse", "HEAD"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, timeout=10)
        if commit.returncode == 0:
            found["git_commit"] = commit.stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        pass
    lock = project / "dvc.lock"
    return found | ({"dvc_lock": sha256_file(lock)} if lock.is_file() else {})


class Receipt(NamedTuple):
    """Where a package went. Equal bytes published to the same places give equal receipts."""

    uri: str
    sha256: str
    bytes: int
    model: str
    version: int


def publish(package: Path, name: str, tags: Mapping[str, str], bucket: str, run_id: str = "") -> Receipt:
    """Publish the model file ``package`` (its model card ``README.md`` beside it) as a version of ``name``.

    The card is the version's description, less its head; ``run_id``, if any, the run that the version links to.
    Beside them go the files of the MLflow flavour (:mod:`qartsr.release.flavour`).
    Bytes that are there already are not sent again, nor registered again; their version gets the new ``tags``. Raises
    QartsrError when the store or the registry does not answer, or the store gives back other bytes than it got.
    """
    sha256, size = sha256_file(package), package.stat().st_size
    folder = f"models/{name}/{sha256}"
    registry, store = open_registry(), open_store()
    registry.with_hash(name, sha256)  # asked first: nothing is sent while the registry is away
    store.demand(bucket)
    _deliver(store, package, sha256, bucket, f"{folder}/{WEIGHTS}")
    with TemporaryDirectory() as scratch:
        for file in (package.with_name("README.md"), *write_flavour(Path(scratch), sha256)):
            _accompany(store, file, bucket, folder)
    all_tags = {**tags, "sha256": sha256, "bytes": str(size)}
    version = _register(registry, name, sha256, f"s3://{bucket}/{folder}", all_tags, _card(package), run_id)
    return Receipt(f"s3://{bucket}/{folder}/{WEIGHTS}", sha256, size, name, version)


def _deliver(store: Store, file: Path, sha256: str, bucket: str, key: str) -> None:
    """Make sure that the store gives back these bytes."""
    if store.sha256(bucket, key) == sha256:
        return
    store.upload(file, bucket, key)
    returned = store.sha256(bucket, key)
    if returned != sha256:
        raise QartsrError(
            f"the store gives back other bytes than it got (SHA-256 {returned[:12]}, not {sha256[:12]})",
            f"s3://{bucket}/{key}",
            "publish again; if it stays so, the store is broken",
        )


def _accompany(store: Store, file: Path, bucket: str, folder: str) -> None:
    """Put a file beside the model, unless it is there."""
    key = f"{folder}/{file.name}"
    if file.is_file() and store.sha256(bucket, key) != sha256_file(file):
        store.upload(file, bucket, key)


def _card(package: Path) -> str:
    """What is for people of its model card."""
    file = package.with_name("README.md")
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    return text.partition("\n---\n")[2].strip() if text.startswith("---\n") else text


def _register(
    registry: Registry, name: str, sha256: str, source: str, tags: Mapping[str, str], card: str, run_id: str
) -> int:
    """The number of the one version with this hash at this place."""

    def find() -> list[Version]:
        return [version for version in registry.with_hash(name, sha256) if version.source == source]

    if not find():
        try:
            registry.create(name, source, tags, card, run_id)
        except QartsrError:  # the answer may be lost and the version be there
            if not find():
                raise
    versions = find()
    if not versions:
        raise QartsrError("its new version was deleted at once by somebody else", name, "publish again")
    first, *later = versions
    in_use = registry.aliases(name).values() if later else ()
    for version in later:
        if version.number not in in_use:
            registry.delete(version)
    registry.set_tags(first, {key: value for key, value in tags.items() if first.tags.get(key) != value})
    return first.number
