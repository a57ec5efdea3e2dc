"""A published version through MLflow's own doors: load_model in Python, and a server asked over HTTP."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from PIL import Image

from qartsr import OneStepSRPipeline
from qartsr.cli import main
from qartsr.errors import QartsrError
from qartsr.files import sha256_file, write_json
from qartsr.images import Picture
from qartsr.packing import write_package
from qartsr.release import Receipt, model_name, package_tags, promote, publish
from qartsr.remote import open_store
from qartsr.serving import ImageModel, _load_pyfunc
from tests.packing.tiny import quantize, recipe, tiny_model
from tests.release.conftest import gate

pytestmark = pytest.mark.services
START = 400  # seconds; some thirty on an idle machine


@pytest.fixture(scope="module")
def package(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a real package of the smallest model."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copy(package, folder)
    quality = {"one": {"psnr": 30.0, "psnr_rgb": 29.0, "psnr_rgb_to_fp": 40.0}}
    identity = {"bits": "w4a4", "method": "test", "sha256": sha256_file(folder / "model.safetensors")}
    write_json(folder / "summary.json", {**identity, "metrics": quality, "fp": quality})
    return folder


@pytest.fixture(scope="module")
def champion(package: Path, servers: dict[str, str]) -> Receipt:
    """It, published and promoted."""
    profile = f"test-{uuid.uuid4().hex[:12]}"
    name = model_name(profile, "w4a4")
    receipt = publish(package / "model.safetensors", name, package_tags(package, profile), "qartsr")
    promote(profile, "w4a4", gate("w4a4", 0.5, 0.5, 30.0))
    return receipt


@pytest.fixture(scope="module")
def address(champion: Receipt) -> str:
    return f"models:/{champion.model}@champion"


@pytest.fixture(scope="module")
def loaded(address: str) -> Any:
    return mlflow.pyfunc.load_model(address, model_config={"device": "cpu", "tile": 32, "overlap": 8})


def photo(width: int, height: int, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def sent(image: Image.Image, **options: Any) -> str:
    buffer = BytesIO()
    image.save(buffer, "PNG", **options)
    return base64.b64encode(buffer.getvalue()).decode()


def received(text: str) -> Image.Image:
    with Image.open(BytesIO(base64.b64decode(text, validate=True))) as image:
        assert image.format == "PNG"
        image.load()
        return image


def test_prediction_is_what_the_command_writes(loaded: Any, address: str, tmp_path: Path) -> None:
    photo(11, 7).save(tmp_path / "in.png")
    options = ["--model", address, "--device", "cpu", "--tile", "32", "--overlap", "8"]
    assert main(["upscale", str(tmp_path / "in.png"), str(tmp_path / "out.png"), *options]) == 0
    frame = pd.DataFrame(
        {
            "image": [
                f"data:image/png;base64,\n{sent(photo(11, 7))}\n",
                sent(photo(3, 2, "LA"), icc_profile=b"a profile"),
            ]
        },
        index=[7, 9],
    )
    result = loaded.predict(frame)
    assert list(result.columns) == ["image"] and list(result.index) == [7, 9]
    with Image.open(tmp_path / "out.png") as written:
        assert received(result["image"][7]).tobytes() == written.tobytes()
    grey = received(result["image"][9])
    assert (grey.mode, grey.size, grey.info["icc_profile"]) == ("LA", (12, 8), b"a profile")


def test_the_example_of_the_version_works(loaded: Any) -> None:
    assert received(loaded.predict(loaded.input_example)["image"][0]).size == (24, 16)


def test_threads_of_a_server_wait_for_each_other(loaded: Any) -> None:
    frames = [pd.DataFrame({"image": [sent(photo(9 + size, 9))]}) for size in range(4)]
    alone = [loaded.predict(frame)["image"][0] for frame in frames]
    with ThreadPoolExecutor(4) as pool:
        assert [result["image"][0] for result in pool.map(loaded.predict, frames)] == alone


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("no base64!", "row 0: is not base64; send the bytes of a PNG, JPEG, WebP, .* file in base64."),
        (base64.b64encode(b"no image").decode(), "row 0: cannot be read as PNG, JPEG, WebP"),
        ("ä", "row 0: is not base64"),
    ],
)
def test_what_is_no_image_is_one_sentence(loaded: Any, text: str, sentence: str) -> None:
    with pytest.raises(MlflowException, match=sentence):
        loaded.predict(pd.DataFrame({"image": [text]}))


def test_the_library_takes_the_address_too(address: str, package: Path, tmp_path: Path) -> None:
    pipe = OneStepSRPipeline.from_pretrained(address, device="cpu")
    pipe.save_pretrained(tmp_path / "saved")
    saved = (tmp_path / "saved" / "model.safetensors").read_bytes()
    assert saved == (package / "model.safetensors").read_bytes()


def test_bytes_that_are_not_the_registered_ones_are_refused(champion: Receipt, package: Path, tmp_path: Path) -> None:
    """An intact package, but another one."""
    model, other, name = tiny_model(seed=1), tmp_path / "model.safetensors", f"{champion.model}-other"
    write_package(other, model, quantize(model, "w4a4", recipe()), {})
    receipt = publish(package / "model.safetensors", name, {}, "qartsr")
    open_store().upload(other, "qartsr", receipt.uri.removeprefix("s3://qartsr/"))
    with pytest.raises(QartsrError, match=r"its bytes have SHA-256 .*…, registered is .*…; publish the package again"):
        mlflow.pyfunc.load_model(f"models:/{name}/1")
    client = MlflowClient()
    client.delete_model_version_tag(name, "1", "sha256")
    with pytest.raises(QartsrError, match=f"{name} version 1: has no 'sha256'"):
        mlflow.pyfunc.load_model(f"models:/{name}/1")


def test_a_folder_that_is_no_version_is_compared_with_its_own_word(address: str, tmp_path: Path) -> None:
    mlflow.artifacts.download_artifacts(address, dst_path=str(tmp_path))
    (tmp_path / "registered_model_meta").unlink()
    assert _load_pyfunc(str(tmp_path)).predict(pd.DataFrame({"image": [sent(photo(2, 2))]})).shape == (1, 1)
    with (tmp_path / "model.safetensors").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(QartsrError, match="its bytes have SHA-256"):
        _load_pyfunc(str(tmp_path))


@pytest.fixture()
def server(address: str, tmp_path: Path) -> Iterator[str]:
    """``mlflow models serve`` as a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        address,
        "--env-manager",
        "local",
        "-p",
        str(port),
    ]
    config = {"MLFLOW_PYFUNC_INFERENCE_CONFIG": json.dumps({"device": "cpu", "tile": 32, "overlap": 8})}
    environment = {**os.environ, **config}
    log = tmp_path / "serve.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out, cwd=tmp_path)
    try:
        _wait(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(log.read_text())


def _ask(url: str, rows: list[list[str]]) -> dict[str, Any]:
    body = json.dumps({"dataframe_split": {"columns": ["image"], "data": rows}}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        parsed: dict[str, Any] = json.load(answer)
        return parsed


@pytest.mark.slow
def test_over_http(server: str, loaded: Any) -> None:
    text = sent(photo(11, 7))
    (row,) = _ask(server, [[text]])["predictions"]
    assert row["image"] == loaded.predict(pd.DataFrame({"image": [text]}))["image"][0]
    with pytest.raises(urllib.error.HTTPError) as refusal:
        _ask(server, [["no base64!"]])
    with refusal.value as answer:
        assert answer.code == 400
        assert "row 0: is not base64; send the bytes" in json.load(answer)["message"]


class _Pipe:
    """In the place of a pipeline: a picture four times as wide and high, as soon as it may."""

    def __init__(self) -> None:
        self.may, self.began = threading.Event(), threading.Event()

    def __call__(self, image: Picture) -> Picture:
        self.began.set()
        assert self.may.wait(60)
        return Picture.of(image.resize((image.width * 4, image.height * 4)), {})


def test_a_request_has_a_limit_of_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = _Pipe()
    pipe.may.set()
    model = ImageModel(pipe)  # type: ignore[arg-type]
    monkeypatch.setenv("QARTSR_MAX_PIXELS", "100")
    assert len(model.predict(pd.DataFrame({"image": [sent(photo(10, 5))] * 2}))) == 2
    for images in ([photo(10, 11)], [photo(10, 5), photo(10, 6)]):
        with pytest.raises(MlflowException, match="pixels, more than") as refused:
            model.predict(pd.DataFrame({"image": [sent(image) for image in images]}))
        assert refused.value.get_http_status_code() == 400
    monkeypatch.delenv("QARTSR_MAX_PIXELS")
    with pytest.raises(MlflowException, match="4,194,304 allowed"):
        model.predict(pd.DataFrame({"image": [sent(Image.new("1", (2049, 2048)))]}))


def test_too_many_that_wait_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QARTSR_MAX_WAITING", "1")
    pipe = _Pipe()
    model, request = ImageModel(pipe), pd.DataFrame({"image": [sent(photo(8, 8))]})  # type: ignore[arg-type]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(model.predict, request)
        assert pipe.began.wait(30)
        second = pool.submit(model.predict, request)
        while model._inside < 2:
            time.sleep(0.01)
        with pytest.raises(MlflowException, match="2 requests wait already; try again later") as refused:
            model.predict(request)
        assert refused.value.get_http_status_code() == 429
        pipe.may.set()
        assert len(first.result()) == len(second.result()) == 1
    assert len(model.predict(request)) == 1, "there is room again"
