"""A registered model as a local file, verified against its registered hash and kept under it."""

from __future__ import annotations

import re
from pathlib import Path

from qartsr.errors import QartsrError
from qartsr.files import cache_folder, replacing, sha256_bytes, sha256_file, write_text
from qartsr.release.registry import WEIGHTS, Version, open_registry
from qartsr.remote import SilentError, open_store

_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<number>[1-9]\d*))")


def fetch(uri: str, cache: Path | None = None) -> Path:
    """The model file of ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.

    Downloaded once: a file in ``cache`` (``~/.cache/qartsr``) with the registered hash is taken as it is, that of a
    numbered version also while the registry is away. Raises
    QartsrError when registry or store do not answer or have no such thing, and when the bytes are not those registered.
    """
    folder = cache or cache_folder()
    try:
        version = _resolve(uri)
    except SilentError:
        if (kept := _kept(uri, folder)) is not None:
            return kept
        raise
    sha256 = version.sha256()
    file = folder / sha256 / WEIGHTS
    if not file.is_file() or sha256_file(file) != sha256:
        _download(version, sha256, file)
    write_text(_note(folder, version.name, str(version.number)), sha256)
    return file


def _note(folder: Path, name: str, number: str) -> Path:
    """Where the hash of a version is noted: a version's bytes never change, an alias may be moved."""
    return folder / "versions" / f"{sha256_bytes(name.encode())[:16]}-{number}"


def _kept(uri: str, folder: Path) -> Path | None:
    """The file of a version that was fetched before, for when the registry is away."""
    match = _URI.fullmatch(uri)
    note = _note(folder, match["name"], match["number"]) if match and match["number"] else None
    if note is None or not note.is_file():
        return None
    sha256 = note.read_text(encoding="utf-8")
    file = folder / sha256 / WEIGHTS
    return file if file.is_file() and sha256_file(file) == sha256 else None


def _resolve(uri: str) -> Version:
    match = _URI.fullmatch(uri)
    if match is None:
        raise QartsrError("is not the address of a model", uri, "write models:/NAME@ALIAS or models:/NAME/VERSION")
    registry, name = open_registry(), match["name"]
    version = registry.version(name, int(match["number"])) if match["number"] else registry.alias(name, match["alias"])
    if version is not None:
        return version
    if not registry.versions(name):
        raise QartsrError(f"there is no model {name!r} in the registry", uri, "check the name, or publish it first")
    if match["number"]:
        raise QartsrError(f"there is no version {match['number']}", uri, "see the model's page in MLflow")
    raise QartsrError(
        f"no version is {match['alias']!r}", uri, "promote one (`qartsr promote w4a4`), or name a version"
    )


def _download(version: Version, sha256: str, file: Path) -> None:
    bucket, key = version.weights()
    store = open_store()
    store.demand(bucket)
    with replacing(file) as temporary:
        store.download(bucket, key, temporary)
        actual = sha256_file(temporary)
        if actual != sha256:
            raise QartsrError(
                f"its bytes have SHA-256 {actual[:12]}…, registered for {version} is {sha256[:12]}…",
                f"s3://{bucket}/{key}",
                "publish the package again",
            )
