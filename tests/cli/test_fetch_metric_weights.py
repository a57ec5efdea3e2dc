"""Downloads happen here or nowhere, and a missing network is one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from qartsr.metrics import FETCHABLE
from tests.cli.conftest import Qartsr


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None) -> Path:
    """Empty caches, and no way out."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub"


def test_what_is_here_is_not_fetched_again(qartsr: Qartsr, hub: Path) -> None:
    (hub / "checkpoints").mkdir(parents=True)
    (hub / "checkpoints" / "alexnet-owt-7be5be79.pth").touch()
    said = qartsr("fetch-metric-weights", "lpips")
    assert (said.status, said.out, said.err) == (0, "the weights of lpips are on this machine\n", "")


@pytest.mark.parametrize("name", ["psnr", "fid"])
def test_names_are_checked_before_the_first_download(name: str, qartsr: Qartsr) -> None:
    said = qartsr("fetch-metric-weights", "lpips", name)
    assert (said.status, said.out) == (1, "")
    assert said.err == (
        f"error: fetch-metric-weights: '{name}' has no weights to fetch; choose from {', '.join(FETCHABLE)}.\n"
    )


def test_without_a_network_it_says_so(qartsr: Qartsr) -> None:
    said = qartsr("fetch-metric-weights", "lpips-vgg")
    assert said.status == 1 and said.out == ""
    assert "Traceback" not in said.err
    assert said.err.splitlines()[-1].startswith(
        "error: fetch-metric-weights lpips-vgg: the weights cannot be downloaded"
    )


def test_at_least_one_name_is_needed(qartsr: Qartsr) -> None:
    assert qartsr("fetch-metric-weights").status == 2
