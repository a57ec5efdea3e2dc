"""Publishing: one version for one content, never a version without its bytes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier

import pytest
from mlflow.tracking import MlflowClient

from qartsr.errors import QartsrError
from qartsr.files import sha256_file
from qartsr.release import Receipt, model_name, package_tags, publish
from qartsr.release.flavour import write_flavour
from qartsr.release.registry import open_registry
from qartsr.remote import open_store
from tests.relay import Relay, closed_port
from tests.release.conftest import BITS, aliases, make_package

pytestmark = pytest.mark.services

TAGS = {"bits": "w4a4", "psnr": "30.0"}


@pytest.fixture()
def file(tmp_path: Path, servers: dict[str, str]) -> Path:
    return make_package(tmp_path / "package") / "model.safetensors"


def _versions(client: MlflowClient, name: str) -> list[int]:
    return sorted(int(version.version) for version in client.search_model_versions(f"name = '{name}'"))


def test_what_is_published(file: Path, name: str, client: MlflowClient, tmp_path: Path) -> None:
    sha256 = sha256_file(file)
    receipt = publish(file, name, TAGS, "qartsr")
    assert receipt == Receipt(f"s3://qartsr/models/{name}/{sha256}/model.safetensors", sha256, 5000, name, 1)
    store, folder = open_store(), f"models/{name}/{sha256}"
    assert store.sha256("qartsr", f"{folder}/model.safetensors") == sha256
    assert store.sha256("qartsr", f"{folder}/README.md") == sha256_file(file.with_name("README.md"))
    for flavour in write_flavour(tmp_path, sha256):
        assert store.sha256("qartsr", f"{folder}/{flavour.name}") == sha256_file(flavour)
    version = client.get_model_version(name, "1")
    assert version.source == f"s3://qartsr/{folder}" and version.status == "READY"
    assert version.tags == {**TAGS, "sha256": sha256, "bytes": "5000"}


def test_the_same_again_changes_nothing(file: Path, name: str, client: MlflowClient) -> None:
    first = publish(file, name, TAGS, "qartsr")
    before = client.get_model_version(name, "1")
    assert publish(file, name, TAGS, "qartsr") == first
    assert _versions(client, name) == [1]
    assert client.get_model_version(name, "1").last_updated_timestamp == before.last_updated_timestamp


def test_other_bytes_are_another_version(file: Path, name: str, client: MlflowClient) -> None:
    first = publish(file, name, TAGS, "qartsr")
    file.write_bytes(b"other")
    second = publish(file, name, TAGS, "qartsr")
    assert (first.version, second.version) == (1, 2) and first.uri != second.uri
    assert open_store().sha256("qartsr", first.uri.removeprefix("s3://qartsr/")) == first.sha256


def test_measured_anew_the_same_bytes_get_the_new_numbers(file: Path, name: str, client: MlflowClient) -> None:
    first = publish(file, name, TAGS, "qartsr")
    file.with_name("README.md").write_text("another card")
    assert publish(file, name, {**TAGS, "psnr": "29.0"}, "qartsr") == first
    assert client.get_model_version(name, "1").tags["psnr"] == "29.0"
    card = first.uri.removeprefix("s3://qartsr/").replace("model.safetensors", "README.md")
    assert open_store().sha256("qartsr", card) == sha256_file(file.with_name("README.md"))


def test_a_lost_object_is_sent_again(file: Path, name: str, client: MlflowClient) -> None:
    first = publish(file, name, TAGS, "qartsr")
    key = first.uri.removeprefix("s3://qartsr/")
    store = open_store()
    store._client.delete_object(Bucket="qartsr", Key=key)
    assert store.sha256("qartsr", key) == ""
    assert publish(file, name, TAGS, "qartsr") == first
    assert store.sha256("qartsr", key) == first.sha256


def test_an_older_version_gets_the_flavour_when_published_again(file: Path, name: str, client: MlflowClient) -> None:
    first = publish(file, name, TAGS, "qartsr")
    store, key = open_store(), first.uri.removeprefix("s3://qartsr/").replace("model.safetensors", "MLmodel")
    store._client.delete_object(Bucket="qartsr", Key=key)
    assert publish(file, name, TAGS, "qartsr") == first and _versions(client, name) == [1]
    assert store.sha256("qartsr", key)


def test_another_bucket_is_another_version(file: Path, name: str, client: MlflowClient) -> None:
    """The old one may be gone with its bucket: publishing again must mend what says "publish it again"."""
    store = open_store()
    store.make_bucket("qartsr-other")
    first, second = publish(file, name, TAGS, "qartsr"), publish(file, name, TAGS, "qartsr-other")
    assert (first.version, second.version) == (1, 2)
    assert str(client.get_model_version(name, "2").source).startswith("s3://qartsr-other/")
    assert publish(file, name, TAGS, "qartsr") == first


def test_eight_at_a_time_make_one_version(file: Path, name: str, client: MlflowClient) -> None:
    together = Barrier(8)

    def one(_: int) -> Receipt:
        together.wait()
        return publish(file, name, TAGS, "qartsr")

    with ThreadPoolExecutor(8) as pool:
        receipts = set(pool.map(one, range(8)))
    (receipt,) = receipts
    assert _versions(client, name) == [receipt.version]
    assert client.get_model_version(name, str(receipt.version)).tags["sha256"] == receipt.sha256


def test_a_duplicate_that_carries_an_alias_stays(file: Path, name: str, client: MlflowClient) -> None:
    """Left by a crash between creating and tidying up; deleting it would delete the alias without a word."""
    first = publish(file, name, TAGS, "qartsr")
    source = first.uri.removesuffix("/model.safetensors")
    for _ in range(2):
        open_registry().create(name, source, {**TAGS, "sha256": first.sha256})
    client.set_registered_model_alias(name, "champion", "2")
    assert publish(file, name, TAGS, "qartsr") == first
    assert _versions(client, name) == [1, 2]
    assert aliases(client, name) == {"champion": 2}


@contextmanager
def _no_version(client: MlflowClient, name: str, sentence: str) -> Iterator[None]:
    with pytest.raises(QartsrError, match=sentence):
        yield
    assert _versions(client, name) == []


def test_a_store_that_gives_back_other_bytes(
    servers: dict[str, str], file: Path, name: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_bytes(b"the genuine bytes " * 100)
    with Relay(servers["AWS_ENDPOINT_URL_S3"], swap=(b"genuine", b"damaged")) as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", store.address)
        with _no_version(client, name, "the store gives back other bytes than it got"):
            publish(file, name, TAGS, "qartsr")
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", servers["AWS_ENDPOINT_URL_S3"])
    assert publish(file, name, TAGS, "qartsr").version == 1, "mended, the same call works"


def test_without_the_store_nothing_is_registered(
    servers: dict[str, str], file: Path, name: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closed_port() as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
        with _no_version(client, name, "the S3 store does not answer"):
            publish(file, name, TAGS, "qartsr")


def test_without_the_registry_nothing_is_sent(
    servers: dict[str, str], file: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closed_port() as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        with pytest.raises(QartsrError, match="MLflow does not answer"):
            publish(file, name, TAGS, "qartsr")
    assert open_store().sha256("qartsr", f"models/{name}/{sha256_file(file)}/model.safetensors") == ""


def test_a_bucket_that_is_not_there(file: Path, name: str, client: MlflowClient) -> None:
    with _no_version(client, name, "there is no bucket 'qartsr-none'; create it, or name another in params.yaml"):
        publish(file, name, TAGS, "qartsr-none")


def test_no_such_package(servers: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(QartsrError, match="cannot be read"):
        publish(tmp_path / "none", f"qartsr-{uuid.uuid4()}", TAGS, "qartsr")


def test_version_and_run_know_each_other(client: MlflowClient, profile: str, tmp_path: Path) -> None:
    """The version shows its card and links to the run that published it, whose page then lists the version."""
    package = make_package(tmp_path / "package")
    (package / "README.md").write_text("---\nlicense: apache-2.0\n---\n\n# A card\n\n| a | b |\n")
    experiment = client.create_experiment(f"qartsr-{profile}")
    run = client.create_run(experiment).info.run_id
    name = model_name(profile, BITS)
    receipt = publish(package / "model.safetensors", name, package_tags(package, profile), "qartsr", run)
    version = client.get_model_version(name, str(receipt.version))
    assert (version.run_id, version.description) == (run, "# A card\n\n| a | b |")
    assert [found.name for found in client.search_model_versions(f"run_id = '{run}'")] == [name]
