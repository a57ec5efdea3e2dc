"""A registered model as a local file, verified against its registered hash and kept under it."""

from __future__ import annotations

import re
from pathlib import Path

from qartsr.errors import QartsrError
from qartsr.files import cache_folder, replacing, sha256_file
from qartsr.release.registry import WEIGHTS, Version, open_registry
from qartsr.remote import open_store

_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<number>[1-9]\d*))")


def fetch(uri: str, cache: Path | None = None) -> Path:
    """The model file of ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.

    Downloaded once: a file in ``cache`` (``~/.cache/qartsr``) with the registered hash is taken as it is. Raises
    QartsrError when registry or store do not answer or have no such thing, and when the bytes are not those registered.
    """
    version = _resolve(uri)
    sha256 = version.tag("sha256")
    if re.fullmatch(r"[0-9a-f]{64}", sha256) is None:
        raise QartsrError("its tag 'sha256' is not a SHA-256", str(version), "publish it again")
    file = (cache or cache_folder()) / sha256 / WEIGHTS
    if not file.is_file() or sha256_file(file) != sha256:
        _download(version, sha256, file)
    return file


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
