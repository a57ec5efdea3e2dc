"""OSEDiff's checkpoint, key by key: what is missing, unknown, unfitting or unsafe is named."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qartsr.errors import QartsrError
from qartsr.models.adapters import attach
from qartsr.models.sd_unet.osediff import read_lora
from qartsr.models.sd_unet.pretrained import load_unet
from tests.models.little import checkpoint

Content = dict[str, Any]
KEY = "mid_block.resnets.0.conv1.lora_{}.default_others.weight"


@pytest.fixture()
def content(lora: Path) -> Content:
    return dict(torch.load(lora, weights_only=True))


def saved(content: Any, folder: Path) -> Path:
    torch.save(content, folder / "changed.pkl")
    return folder / "changed.pkl"


def test_a_whole_checkpoint_is_read(base: Path, lora: Path) -> None:
    read, made = read_lora(lora), checkpoint(base)
    assert (read.unet.rank, read.vae.rank) == (6, 3)
    assert read.unet.state.keys() == made["state_dict_unet"].keys()
    assert read.vae.state.keys() == made["state_dict_vae"].keys()


def test_the_fixture_is_read(parity: Path) -> None:
    read = read_lora(parity / "osediff.pkl")
    assert (read.unet.rank, read.vae.rank) == (4, 4)


@pytest.mark.parametrize(
    "field", ["rank_unet", "rank_vae", "state_dict_vae", "unet_lora_others_modules", "vae_lora_encoder_modules"]
)
def test_a_missing_field_is_named(content: Content, tmp_path: Path, field: str) -> None:
    kept = {key: value for key, value in content.items() if key != field}
    with pytest.raises(QartsrError, match=f"lacks {field}"):
        read_lora(saved(kept, tmp_path))
    with pytest.raises(QartsrError, match=f"{field} is no "):
        read_lora(saved(content | {field: "text"}, tmp_path))


@pytest.mark.parametrize("key", [KEY.format("A"), KEY.format("B"), "conv_in.base_layer.weight"])
def test_a_missing_key_is_named(content: Content, tmp_path: Path, key: str) -> None:
    del content["state_dict_unet"][key]
    with pytest.raises(QartsrError, match=f"lacks the key '{key}'"):
        read_lora(saved(content, tmp_path))


def test_both_halves_of_a_listed_module_missing_are_noticed(content: Content, tmp_path: Path) -> None:
    for side in "AB":
        del content["state_dict_unet"][KEY.format(side)]
    with pytest.raises(QartsrError, match=KEY.format("A")):
        read_lora(saved(content, tmp_path))


def test_an_unknown_key_is_named(content: Content, tmp_path: Path) -> None:
    content["state_dict_vae"]["decoder.conv_in.lora_A.default_encoder.weight"] = torch.ones(1)
    with pytest.raises(QartsrError, match=r"unknown key 'decoder\.conv_in\.lora_A"):
        read_lora(saved(content, tmp_path))


@pytest.mark.parametrize(
    "value", [torch.tensor([float("nan")]), torch.ones(2, dtype=torch.int64), torch.ones(2, 2).to_sparse(), "text"]
)
def test_a_value_that_is_no_number_is_named(content: Content, tmp_path: Path, value: Any) -> None:
    content["state_dict_unet"][KEY.format("B")] = value
    with pytest.raises(QartsrError, match=f"key '{KEY.format('B')}' holds no finite numbers|sparse tensor"):
        read_lora(saved(content, tmp_path))


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda state: state.update({KEY.format("A"): torch.ones(6, 18, 1, 1)}), KEY.format("A")),
        (lambda state: state.update({KEY.format("B"): torch.ones(18, 5, 1, 1)}), KEY.format("B")),
        (lambda state: state.update({"conv_in.base_layer.bias": torch.ones(13)}), "conv_in.base_layer.bias"),
    ],
)
def test_a_shape_that_does_not_fit_is_named(
    base: Path, content: Content, tmp_path: Path, change: Callable[[Any], None], key: str
) -> None:
    change(content["state_dict_unet"])
    with pytest.raises(QartsrError, match=f"key '{key}' has shape"):
        attach(load_unet(base), read_lora(saved(content, tmp_path)).unet)


def test_a_wrong_rank_names_the_first_key(base: Path, content: Content, tmp_path: Path) -> None:
    with pytest.raises(QartsrError, match=r"lora_A.* at rank 8"):
        attach(load_unet(base), read_lora(saved(content | {"rank_unet": 8}, tmp_path)).unet)
    with pytest.raises(QartsrError, match="rank_unet is 0"):
        read_lora(saved(content | {"rank_unet": 0}, tmp_path))


def test_a_checkpoint_of_another_component_is_refused(base: Path, lora: Path) -> None:
    with pytest.raises(QartsrError, match="names no layer of the model"):
        attach(load_unet(base), read_lora(lora).vae)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(QartsrError, match="does not exist"):
        read_lora(tmp_path / "none.pkl")
    with pytest.raises(QartsrError, match="not a usable checkpoint"):
        read_lora(tmp_path)


@given(part=st.floats(0, 0.999))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_truncated_file_is_refused(lora: Path, tmp_path: Path, part: float) -> None:
    data = lora.read_bytes()
    (tmp_path / "cut.pkl").write_bytes(data[: int(len(data) * part)])
    with pytest.raises(QartsrError, match="not a usable checkpoint"):
        read_lora(tmp_path / "cut.pkl")


@pytest.mark.parametrize("content", [[1, 2], torch.ones(3), 5])
def test_another_file_is_refused(content: Any, tmp_path: Path) -> None:
    with pytest.raises(QartsrError, match="no dictionary"):
        read_lora(saved(content, tmp_path))


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    with pytest.raises(QartsrError, match="not a usable checkpoint"):
        read_lora(saved({"rank_unet": shutil.which}, tmp_path))


@pytest.mark.parametrize("odd", [{}, [], 3, None])
def test_a_module_that_is_no_name_is_refused(content: Content, tmp_path: Path, odd: Any) -> None:
    content["unet_lora_encoder_modules"].append(odd)
    with pytest.raises(QartsrError, match="unet_lora_encoder_modules holds what is no name"):
        read_lora(saved(content, tmp_path))


def test_whatever_byte_of_its_pickle_is_changed(content: Content, tmp_path: Path) -> None:
    """One sentence, or a checkpoint that is read; the bytes of tensors are not among those changed."""
    path = saved(content, tmp_path)
    whole = path.read_bytes()
    start = whole.index(b"data.pkl") + 64
    for place in range(start, start + 3000, 37):
        data = bytearray(whole)
        data[place] ^= 0x55
        path.write_bytes(data)
        with contextlib.suppress(QartsrError):
            read_lora(path)
