"""The page in a real browser: a visit, a fault, phone width and keyboard; nothing comes from elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from PIL import Image

from qartsr.models import save_model
from qartsr.packing import write_package
from tests.packing.tiny import quantize, recipe, tiny_model

pytestmark = [pytest.mark.browser, pytest.mark.slow]
PORT = 17860
SHOTS = os.environ.get("QARTSR_SHOTS")
"""A folder for pictures of the page."""
PROJECT, PHOTO = os.environ.get("QARTSR_WEB_PROJECT"), os.environ.get("QARTSR_WEB_PHOTO")
"""A project with real packages, and a photograph, for pictures worth looking at."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = Path(PROJECT) if PROJECT else tmp_path_factory.mktemp("house")
    if not PROJECT:
        save_model(tiny_model(), root / "build" / "retrained")
        for bits in ("w4a4", "w2a2"):
            model, file = tiny_model(), root / "build" / "packages" / bits / "model.safetensors"
            write_package(file, model, quantize(model, bits, recipe()), {"profile": "test"})
    bare = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW")}
    command = [sys.executable, "-m", "qartsr.cli", "web", "--engine", "simulated", "--port", str(PORT)]
    environment = bare | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, cwd=root, env=environment) as process:
        try:
            yield _ready(f"http://127.0.0.1:{PORT}", process)
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(60) in (0, 130)


def _ready(address: str, process: subprocess.Popen[bytes]) -> str:
    for _ in range(1500):
        assert process.poll() is None, "the page has ended"
        try:
            with urlopen(address) as answer:
                assert answer.status == 200
                return address
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the page does not come")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium is here; `make web-test` installs it")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if PHOTO:
        return Path(PHOTO)
    file = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.effect_mandelbrot((48, 32), (-2, -1, 1, 1), 60).convert("RGB").save(file)
    return file


def _shot(page: Any, name: str, whole: bool = True) -> None:
    if SHOTS:
        page.wait_for_timeout(1500)
        page.screenshot(path=f"{SHOTS}/{name}.png", full_page=whole)


def test_a_visit(address: str, browser: Any, photo: Path) -> None:
    page = browser.new_page(viewport={"width": 1200, "height": 1000})
    page.set_default_timeout(120_000)
    elsewhere, faults = list[str](), list[str]()
    page.on(
        "request",
        lambda request: None if request.url.startswith((address, "data:", "blob:")) else elsewhere.append(request.url),
    )
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(address)
    page.get_by_text("w4a4 (build/packages)").first.wait_for()
    page.locator("input[type=file]").first.set_input_files(photo)
    page.get_by_role("button", name="Enlarge", exact=True).click()
    page.get_by_text("PSNR to FP, dB").first.wait_for()
    page.get_by_text("w4a4 (build/packages) against floating point").last.wait_for()
    assert re.search(r"floating point\s", page.inner_text("body"))
    with Image.open(photo) as opened:
        width = 4 * opened.width
    both = "width => [...document.images].filter(image => image.naturalWidth == width).length >= 2"
    page.wait_for_function(both, arg=width)
    _shot(page, "web")
    page.get_by_role("tab", name="Leaderboard").click()
    page.get_by_text("There is no leaderboard: MLFLOW_TRACKING_URI").wait_for()
    page.get_by_role("tab", name="Many").click()
    page.locator("input[type=file]:not([webkitdirectory])").nth(1).wait_for(state="attached")
    _shot(page, "web-many")
    assert not elsewhere and not faults
    page.close()


def test_a_fault_is_a_sentence(address: str, browser: Any) -> None:
    page = browser.new_page()
    page.set_default_timeout(60_000)
    page.goto(address)
    page.get_by_text("w4a4 (build/packages)").first.wait_for()
    page.get_by_role("button", name="Enlarge", exact=True).click()
    page.get_by_text("the picture: there is none; drop one first").wait_for()
    page.close()


def test_phone_and_keyboard(address: str, browser: Any, photo: Path) -> None:
    page = browser.new_page(viewport={"width": 375, "height": 700})
    page.set_default_timeout(120_000)
    page.goto(address)
    page.get_by_text("w4a4 (build/packages)").first.wait_for()
    page.locator("input[type=file]").first.set_input_files(photo)
    for _ in range(60):  # to the button, and on it, by keyboard alone
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.innerText") == "Enlarge":
            break
    else:
        raise AssertionError("the button cannot be reached by keyboard")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.get_by_text("w4a4 (build/packages) against floating point").last.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    _shot(page, "web-phone")
    page.close()
