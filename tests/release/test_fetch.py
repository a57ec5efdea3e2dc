"""From the address of a model to a file, verified and kept."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from qartsr.errors import QartsrError
from qartsr.files import sha256_file
from qartsr.release import Receipt, fetch, promote
from qartsr.remote import open_store
from tests.relay import closed_port
from tests.release.conftest import BITS, GATE, Ship

pytestmark = pytest.mark.services


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_by_alias_and_by_number(ship: Ship, profile: str, name: str, tmp_path: Path) -> None:
    first, second = ship(), ship()
    promote(profile, BITS, GATE, version=1)
    for uri, receipt in {f"models:/{name}@champion": first, f"models:/{name}/2": second}.items():
        file = fetch(uri, tmp_path / "cache")
        assert sha256_file(file) == receipt.sha256
        assert file == tmp_path / "cache" / receipt.sha256 / "model.safetensors"


def test_a_kept_file_is_taken_without_asking_the_store(
    shipped: Receipt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = fetch(f"models:/{shipped.model}/1", tmp_path / "cache")
    before = file.stat().st_mtime_ns
    with closed_port() as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
        assert fetch(f"models:/{shipped.model}/1", tmp_path / "cache") == file
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)  # nor the registry, where a version's number says it all
        assert fetch(f"models:/{shipped.model}/1", tmp_path / "cache") == file
        with pytest.raises(QartsrError, match="does not answer"):
            fetch(f"models:/{shipped.model}/2", tmp_path / "cache")
    assert file.stat().st_mtime_ns == before


@pytest.mark.parametrize("damage", [b"damaged", b""])
def test_a_damaged_file_is_fetched_again(shipped: Receipt, tmp_path: Path, damage: bytes) -> None:
    fetch(f"models:/{shipped.model}/1", tmp_path / "cache").write_bytes(damage)
    assert sha256_file(fetch(f"models:/{shipped.model}/1", tmp_path / "cache")) == shipped.sha256


def test_other_bytes_than_registered_are_refused(ship: Ship, name: str, tmp_path: Path) -> None:
    receipt = ship()
    (tmp_path / "other").write_bytes(b"other bytes")
    open_store().upload(tmp_path / "other", "qartsr", receipt.uri.removeprefix("s3://qartsr/"))
    with pytest.raises(QartsrError, match=rf"its bytes have SHA-256 .*…, registered for {name} version 1 is .*…"):
        fetch(f"models:/{name}/1", tmp_path / "cache")
    assert _files(tmp_path / "cache") == []


def test_the_usual_cache(shipped: Receipt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri, place = f"models:/{shipped.model}/1", Path("qartsr", shipped.sha256, "model.safetensors")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert fetch(uri) == tmp_path / "xdg" / place
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert fetch(uri) == tmp_path / "home" / ".cache" / place


def test_many_at_a_time(shipped: Receipt, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        (file,) = set(pool.map(lambda _: fetch(f"models:/{shipped.model}/1", tmp_path / "cache"), range(4)))
    assert sha256_file(file) == shipped.sha256
    assert _files(tmp_path / "cache" / shipped.sha256) == [file]


@pytest.mark.parametrize(
    ("end", "sentence"),
    [
        ("@nobody", "no version is 'nobody'; promote one .`qartsr promote w4a4`., or name a version"),
        ("/7", "there is no version 7; see the model's page in MLflow"),
        ("-more/1", "there is no model '{name}-more' in the registry; check the name, or publish it first"),
        ("-more@champion", "there is no model '{name}-more' in the registry"),
        ("", "is not the address of a model; write models:/NAME@ALIAS or models:/NAME/VERSION"),
        ("/0", "is not the address of a model"),
        ("/latest", "is not the address of a model"),
        ("@champion/model.safetensors", "is not the address of a model"),
    ],
)
def test_what_is_not_there(shipped: Receipt, tmp_path: Path, end: str, sentence: str) -> None:
    name = shipped.model
    with pytest.raises(QartsrError, match=f"models:/{name}{end}: " + sentence.format(name=name)):
        fetch(f"models:/{name}{end}", tmp_path / "cache")


def test_a_deleted_version(ship: Ship, profile: str, name: str, client: MlflowClient, tmp_path: Path) -> None:
    ship()
    ship()
    promote(profile, BITS, GATE)
    client.delete_model_version(name, "2")
    with pytest.raises(QartsrError, match="no version is 'champion'"):
        fetch(f"models:/{name}@champion", tmp_path / "cache")


def test_a_lost_object(ship: Ship, name: str, tmp_path: Path) -> None:
    receipt = ship()
    open_store()._client.delete_object(Bucket="qartsr", Key=receipt.uri.removeprefix("s3://qartsr/"))
    with pytest.raises(QartsrError, match="there is no such object; publish the model again"):
        fetch(f"models:/{name}/1", tmp_path / "cache")
    assert _files(tmp_path / "cache") == []


@pytest.mark.parametrize("sha256", [None, "../../etc", "F" * 64])
def test_a_version_without_a_hash(client: MlflowClient, name: str, tmp_path: Path, sha256: str | None) -> None:
    client.create_registered_model(name)
    client.create_model_version(name, "s3://qartsr/anything", tags={"sha256": sha256} if sha256 else {})
    with pytest.raises(QartsrError, match=r"version 1: (has no tag 'sha256'|its tag 'sha256' is not a SHA-256)"):
        fetch(f"models:/{name}/1", tmp_path / "cache")


def test_a_version_somewhere_else(client: MlflowClient, name: str, tmp_path: Path) -> None:
    client.create_registered_model(name)
    client.create_model_version(name, "gs://bucket/model", tags={"sha256": "f" * 64})
    with pytest.raises(QartsrError, match="gs://bucket/model: is not an S3 address"):
        fetch(f"models:/{name}/1", tmp_path / "cache")


def test_a_cache_that_cannot_be_written(shipped: Receipt, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(QartsrError, match=r"cannot be (written|made)"):
        fetch(f"models:/{shipped.model}/1", tmp_path / "cache")


def test_nobody_answers(servers: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closed_port() as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        with pytest.raises(QartsrError, match="MLflow does not answer"):
            fetch("models:/any@champion", tmp_path / "cache")
