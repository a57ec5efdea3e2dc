"""Metrics without their weights say so, never download on their own, and never become a number."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qartsr.config.schema import EvaluateConfig
from qartsr.errors import QartsrError
from qartsr.metrics import FETCHABLE, METRICS, Meter, availability, build, fetch
from qartsr.metrics.weights import NEEDED

_WATCHED = """
import sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "urllib.Request"):
        raise SystemExit("tried to open a connection")
sys.addaudithook(refuse)
"""


@pytest.fixture()
def empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub"


def test_the_configuration_offers_exactly_these_metrics() -> None:
    choices = EvaluateConfig.model_json_schema()["properties"]["metrics"]["items"]["enum"]
    assert tuple(choices) == METRICS
    assert set(METRICS) <= set(NEEDED)


def test_psnr_and_ssim_need_nothing(empty_caches: Path) -> None:
    assert {availability(name) for name in ("psnr", "psnr_rgb", "ssim")} == {(True, "")}


@pytest.mark.parametrize("name", FETCHABLE)
def test_missing_weights_are_named_with_the_command(name: str, empty_caches: Path) -> None:
    available, reason = availability(name)
    assert not available
    assert all(file in reason for file in NEEDED[name] if not file.startswith("timm/"))
    assert reason.endswith(f"fetch with `qartsr fetch-metric-weights {name}`")
    assert str(empty_caches) not in reason


def test_a_metric_without_weights_is_listed_and_not_measured(empty_caches: Path) -> None:
    meter = Meter(["musiq", "dists"])
    assert meter.names == () and set(meter.unavailable) == {"musiq", "dists"}
    with pytest.raises(ValueError, match="fetch-metric-weights musiq"):
        build("musiq")


def test_what_has_weights_is_no_metric_for_that() -> None:
    for make in (Meter, lambda names: build(names[0])):
        for name in ("lpips-vgg", "vmaf"):
            with pytest.raises(QartsrError, match=f"unknown metric '{name}'; choose from psnr, psnr_rgb, ssim"):
                make([name])


@pytest.mark.parametrize("library", ["pyiqa", "lpips", "torchvision"])
def test_a_core_install_is_told_what_to_install(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    for use in (lambda: Meter(["psnr"]), lambda: build("psnr"), lambda: fetch("lpips"), lambda: availability("ssim")):
        with pytest.raises(QartsrError) as refusal:
            use()
        assert str(refusal.value) == (
            f"metrics: measuring needs {library}, which this installation lacks; "
            "install the extra [train] (`pip install 'qartsr[train]'`)."
        )


def test_files_in_the_cache_are_found(empty_caches: Path) -> None:
    (empty_caches / "pyiqa").mkdir(parents=True)
    (empty_caches / "pyiqa" / "niqe_modelparameters.mat").touch()
    assert availability("niqe").available


def test_a_wrong_clip_file_counts_as_missing(empty_caches: Path) -> None:
    """pyiqa would replace it from the network."""
    (empty_caches / "clip").mkdir(parents=True)
    (empty_caches / "clip" / "RN50.pt").write_bytes(b"another file")
    assert not availability("clipiqa").available


@pytest.mark.long
def test_evaluating_opens_no_connection(tmp_path: Path) -> None:
    """All metrics wanted, empty caches, in a process that dies at the first look-up of a host."""
    code = _WATCHED + "from qartsr.metrics import METRICS, Meter; print(Meter(METRICS).names)"
    environment = {**os.environ, "TORCH_HOME": str(tmp_path), "HF_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "('psnr', 'psnr_rgb', 'ssim')", done.stderr


def test_unknown_names_are_refused() -> None:
    with pytest.raises(QartsrError, match="unknown metric 'fid'"):
        availability("fid")
    with pytest.raises(QartsrError, match="has no weights to fetch"):
        fetch("psnr")


def test_fetching_without_a_network_is_one_sentence(empty_caches: Path, no_network: None) -> None:
    with pytest.raises(QartsrError) as caught:
        fetch("lpips")
    assert "cannot be downloaded" in str(caught.value) and "\n" not in str(caught.value)
