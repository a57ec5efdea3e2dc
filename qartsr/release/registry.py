"""Registered models: versions with tags, found by the hash of their bytes, and aliases."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qartsr.config import parse_bits
from qartsr.errors import QartsrError
from qartsr.remote import REGISTRY, Mlflow, SilentError, open_mlflow, split_uri

WEIGHTS = "model.safetensors"
_DESCRIPTION = 5000
"""Longest description MLflow takes, in characters."""


def model_name(profile: str, bits: str) -> str:
    """``qartsr-<profile>-<bits>``. Raises QartsrError for an unknown bit-width."""
    return f"qartsr-{profile}-{parse_bits(bits)}"


@dataclass(frozen=True)
class Version:
    """One version as the registry knows it."""

    name: str
    number: int
    source: str
    status: str
    tags: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.name} version {self.number}"

    def weights(self) -> tuple[str, str]:
        """Bucket and key of its model file."""
        bucket, folder = split_uri(self.source)
        return bucket, f"{folder}/{WEIGHTS}"

    def tag(self, key: str) -> str:
        """A tag that a published version has. Raises QartsrError when it is missing."""
        if key not in self.tags:
            raise QartsrError(f"has no tag {key!r}", str(self), "register it with the publish stage, which sets it")
        return self.tags[key]

    def number_tag(self, key: str) -> float:
        """The same as a number."""
        try:
            return float(self.tag(key))
        except ValueError as error:
            raise QartsrError(f"tag {key!r} is not a number", str(self), "publish it again") from error

    def sha256(self) -> str:
        """The hash of its model file. Raises QartsrError when its tag is none."""
        value = self.tag("sha256")
        if re.fullmatch(r"[0-9a-f]{64}", value) is None:
            raise QartsrError("its tag 'sha256' is not a SHA-256", str(self), "publish it again")
        return value


class Registry:
    """The model registry of one MLflow server."""

    def __init__(self, server: Mlflow) -> None:
        self._server = server

    def versions(self, name: str, condition: str = "") -> list[Version]:
        """All versions of ``name`` (with ``condition`` on tags), oldest first."""
        found, token = list[Version](), ""
        query = {"filter": f"name = '{name}'{condition}", "max_results": "200"}
        while True:
            page = {"page_token": token} if token else {}
            answer = self._server.get("model-versions/search", {**query, **page}, absent=True)
            found += [_version(each) for each in answer.get("model_versions", [])]
            token = answer.get("next_page_token", "")
            if not token:
                return sorted(found, key=lambda version: version.number)

    def names(self, prefix: str) -> list[str]:
        """Names of the registered models that begin so."""
        found, token = list[str](), ""
        while True:
            page = {"page_token": token} if token else {}
            query = {"filter": f"name LIKE '{prefix}%'", "max_results": "200", **page}
            answer = self._server.get("registered-models/search", query)
            found += [each["name"] for each in answer.get("registered_models", [])]
            token = answer.get("next_page_token", "")
            if not token:
                return sorted(found)

    def with_hash(self, name: str, sha256: str) -> list[Version]:
        """Versions whose tag ``sha256`` is this, oldest first."""
        return self.versions(name, f" and tags.sha256 = '{sha256}'")

    def create(self, name: str, source: str, tags: Mapping[str, str], description: str = "", run_id: str = "") -> None:
        """A new version, tags and all in one transaction of the server; the model itself is made if need be.

        ``description``: Markdown, of which 5000 characters are kept; ``run_id``: the run that published it.
        """
        self._server.post("registered-models/create", {"name": name}, present=True)
        pairs = [{"key": key, "value": value} for key, value in sorted(tags.items())]
        body = {"name": name, "source": source, "tags": pairs, "description": description[:_DESCRIPTION]}
        self._server.post("model-versions/create", body | ({"run_id": run_id} if run_id else {}))

    def delete(self, version: Version) -> None:
        """Delete a version, if it is there."""
        self._server.delete("model-versions/delete", {"name": version.name, "version": str(version.number)})

    def version(self, name: str, number: int) -> Version | None:
        """One version, or None."""
        answer = self._server.get("model-versions/get", {"name": name, "version": str(number)}, absent=True)
        return _version(answer["model_version"]) if answer else None

    def alias(self, name: str, alias: str) -> Version | None:
        """The version an alias points at, or None."""
        number = self.aliases(name).get(alias)
        return None if number is None else self.version(name, number)

    def aliases(self, name: str) -> dict[str, int]:
        """Alias -> version number; a search for versions leaves their aliases out."""
        answer = self._server.get("registered-models/get", {"name": name}, absent=True)
        listed = answer.get("registered_model", {}).get("aliases", [])
        return {each["alias"]: int(each["version"]) for each in listed}

    def set_alias(self, version: Version, alias: str) -> None:
        """Point an alias at a version."""
        body = {"name": version.name, "alias": alias, "version": str(version.number)}
        self._server.post("registered-models/alias", body)

    def drop_alias(self, name: str, alias: str) -> None:
        """Let an alias point nowhere."""
        self._server.delete("registered-models/alias", {"name": name, "alias": alias})

    def drop_tag(self, version: Version, key: str) -> None:
        """Take a tag away, if it is there."""
        body = {"name": version.name, "version": str(version.number), "key": key}
        self._server.delete("model-versions/delete-tag", body)

    def set_tags(self, version: Version, tags: Mapping[str, str]) -> None:
        """Add tags to a version."""
        for key, value in tags.items():
            body = {"name": version.name, "version": str(version.number), "key": key, "value": value}
            try:
                self._server.post("model-versions/set-tag", body)
            except SilentError:
                raise
            except QartsrError:  # two that set the same tag at once: the server's own database refuses one of them
                self._server.post("model-versions/set-tag", body)


def open_registry() -> Registry:
    """The registry that MLFLOW_REGISTRY_URI names, or else MLFLOW_TRACKING_URI."""
    return Registry(open_mlflow(variable=REGISTRY))


def _version(answer: Mapping[str, Any]) -> Version:
    return Version(
        name=answer["name"],
        number=int(answer["version"]),
        source=answer.get("source", ""),
        status=answer.get("status", ""),
        tags={each["key"]: each.get("value", "") for each in answer.get("tags", [])},
    )
