"""Where the base comes from, and one sentence for each way it cannot be had; no network is used."""

from __future__ import annotations

import shutil
from pathlib import Path

import huggingface_hub
import pytest

from qartsr.config.schema import OSEDiffBackboneConfig
from qartsr.errors import QartsrError
from qartsr.files import sha256_file
from qartsr.models.sd_unet.pretrained import MIRROR, PARTS, PUBLISHED, base_folder

UNET = "unet/diffusion_pytorch_model.safetensors"


def test_the_default_source_is_spelled_alike() -> None:
    assert OSEDiffBackboneConfig(lora="osediff.pkl").base == MIRROR


def test_a_folder_is_taken_as_it_is(base: Path) -> None:
    assert base_folder(base) == base == base_folder(str(base))


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_is_named(base: Path, tmp_path: Path, part: str) -> None:
    for other in PARTS:
        if other != part:
            (tmp_path / other).mkdir()
    with pytest.raises(QartsrError, match=f"has no folder '{part}'"):
        base_folder(tmp_path)


def test_recorded_hashes_are_compared(base: Path) -> None:
    assert base_folder(base, sha256={UNET: sha256_file(base / UNET)}) == base
    with pytest.raises(QartsrError, match="not the recorded 6dfae3e5f7d4"):
        base_folder(base, sha256=PUBLISHED)
    with pytest.raises(QartsrError, match="cannot be read"):
        base_folder(base, sha256={"unet/other.safetensors": "0" * 64})


@pytest.mark.parametrize("name", ["nowhere", "no/such/folder", "", "/tmp/no/such", "two words/x"])
def test_what_is_neither_folder_nor_hub_id_does_not_exist(name: str) -> None:
    with pytest.raises(QartsrError, match="does not exist"):
        base_folder(name)


def test_a_mirror_out_of_reach_is_one_sentence() -> None:
    with pytest.raises(QartsrError, match="is no folder here and cannot be had from the hub") as caught:
        base_folder("missing/model")  # conftest keeps the hub's client offline
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("or the id of a mirror on the hub.")


def test_what_is_in_the_cache_needs_no_network_and_is_compared(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache as the hub's client lays it out. A copy of another model under the mirror's name is refused."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / ("models--" + MIRROR.replace("/", "--"))
    snapshot = cached / "snapshots" / ("0" * 40)
    shutil.copytree(base, snapshot)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(snapshot.name)
    assert base_folder(MIRROR, sha256={}) == base_folder(MIRROR, snapshot.name, {}) == snapshot
    with pytest.raises(QartsrError, match="not the recorded"):
        base_folder(MIRROR)
