"""Shared fixtures: small models, real photographs, the parity data where it is present."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from qartsr.allocator import collect_rarely
from qartsr.export import skeleton
from qartsr.models import OneStepSR
from qartsr.models.sd_unet import sample_backbone
from qartsr.packing import add_graphs, load_package, write_package
from tests.locks import locked
from tests.packing.tiny import quantize, recipe, tiny_model

pytest_plugins = ("tests.interpreter", "tests.servers")

ROOT = Path(__file__).resolve().parent.parent
# Processes that tests start, too: workers side by side that each take every core mostly wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each of them compiles every file it imports, here and in copies
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DVC_NO_ANALYTICS", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
# As `make test` has it: the stages of DVC's graphs say `python`.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
torch.set_num_threads(1)
settings.register_profile("qartsr", deadline=None)  # how long an example takes says how busy the machine is
settings.load_profile("qartsr")
if threading.current_thread() is threading.main_thread():
    # A shell's background job ignores Ctrl-C, and every process a test starts would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The whole pipeline first: begun last, it would keep one worker at it when all others are done."""
    items.sort(key=lambda item: item.path.name != "test_whole.py")


def pytest_collection_finish() -> None:
    """What is loaded by now stays: looked through again and again by the collector, it was a fifth of the suite."""
    gc.collect()
    gc.freeze()
    collect_rarely()


def pytest_unconfigure() -> None:
    """At the end libraries look for what nobody has let go."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def run_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of this run, which its workers (pytest-xdist's) share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if hasattr(request.config, "workerinput") else base


@pytest.fixture(scope="session", autouse=True)
def _cache(run_folder: Path) -> None:
    """This run's own: written and compiled graphs. Of the user's all but ours is there."""
    folder = run_folder / "cache"
    folder.mkdir(exist_ok=True)
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    for each in users.iterdir() if users.is_dir() else ():
        if each.name != "qartsr":
            with suppress(FileExistsError):
                (folder / each.name).symlink_to(each)
    os.environ["XDG_CACHE_HOME"] = str(folder)


@pytest.fixture(scope="session")
def package(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A W4A4 package of the smallest model, with its graphs, as the stage makes them; for all to read."""
    folder = run_folder / "package"
    with locked(run_folder / "package.lock"):  # the graphs take seconds to write: one worker does
        if not folder.exists():
            path, model = tmp_path_factory.mktemp("package") / "model.safetensors", tiny_model()
            plan = quantize(model, "w4a4", recipe())
            write_package(path, model, plan, {"profile": "test", "data": {"sha256": "ab"}})
            add_graphs(path, skeleton(load_package(path)))
            path.chmod(0o444)
            path.parent.rename(folder)
    return folder / "model.safetensors"


@pytest.fixture()
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """No way out: every proxy is a port on which nothing listens."""
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    monkeypatch.setattr("urllib.request._opener", None)  # made once in a process, it keeps the proxies of that moment


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Whatever the test sets: a command's ``--threads`` is its process's, and here that is ours."""
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture()
def model() -> OneStepSR:
    """An untrained sample backbone at T = 1, in evaluation mode."""
    return sample_backbone(1, "wavelet", seed=0).eval().requires_grad_(False)


@pytest.fixture(scope="session")
def parity() -> Path:
    """Tensors made by the official OSEDiff code; skips where they are absent."""
    folder = Path(os.environ.get("QARTSR_FIXTURES", ROOT.parent / "shared" / "fixtures")) / "osediff_tiny"
    if not folder.is_dir():
        pytest.skip(f"the OSEDiff parity data is not at {folder}; set QARTSR_FIXTURES to its folder")
    return folder
