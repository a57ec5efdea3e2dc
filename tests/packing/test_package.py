"""A package runs as the model it was made from, and anything wrong with the file is said in one sentence."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from qartsr.artifact.header import MAGIC, metadata, read_head, sealed
from qartsr.errors import QartsrError
from qartsr.models import is_folded
from qartsr.packing import inspect, load_package, read_header, write_package
from qartsr.packing.structure import plan_of
from tests.packing.tiny import network_input, quantize, quantized, recipe, tiny_model

NONE = {"kind": "none"}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "w2a2": ("w2a2", {}, {}),
    "w3a5": ("w3a5", {}, {"edge_layers": ("unet.conv_*", "vae.*.conv_out")}),
    "w4a4 kept float": ("w4a4", {}, {"float_layers": ("vae.decoder.conv_out", "unet.time_embedding.*")}),
    "w8a8": ("w8a8", {"transform": {"kind": "channel_affine"}}, {}),
    "w7a6 bare": ("w7a6", {"transform": NONE, "skip": NONE, "adapter": NONE, "bias": {"bits": 0}}, {}),
    "w4 only": ("w4a8", {"input": NONE}, {}),
    "groups, blocks, dynamic": (
        "w4a4",
        {
            "weight": {"kind": "lbq", "granularity": "group", "group": 2},
            "input": {"kind": "dynamic"},
            "skip": {"kind": "hsvd", "rank": 4},
            "bias": {"bits": 8, "learnable": True},
        },
        {"bits_policy": {"kind": "vasmp"}},
    ),
    "split": ("w4a4", {"rounding": {"kind": "learned"}}, {"split": True}),
    "all float": ("w4a8", {}, {"float_layers": ("*",)}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_package_runs_as_its_model(tmp_path: Path, case: str) -> None:
    bits, changes, settings_ = CASES[case]
    model, lq = tiny_model(), network_input()
    plan = quantize(model, bits, recipe(**changes), **settings_)
    write_package(tmp_path / "p", model, plan, {"profile": "test"})
    loaded = load_package(tmp_path / "p")
    with torch.no_grad():
        assert torch.equal(loaded(lq), model(lq))
        assert torch.equal(loaded.restore(lq), model.restore(lq))
    assert (loaded.timestep, loaded.align, loaded.facts.multiple) == (model.timestep, model.align, model.facts.multiple)
    assert not loaded.training
    assert not any(p.is_meta for p in (*loaded.parameters(), *loaded.buffers()))
    assert plan_of(read_head(tmp_path / "p").header) == plan
    inventory = inspect(tmp_path / "p")
    assert inventory.total == (tmp_path / "p").stat().st_size


def test_a_model_that_was_not_folded_runs_too(tmp_path: Path) -> None:
    model, lq = tiny_model(), network_input()
    plan = quantized(model, "w4a4", recipe())
    write_package(tmp_path / "p", model, plan, {})
    loaded = load_package(tmp_path / "p")
    header = read_head(tmp_path / "p").header
    assert header.constants == {} and plan_of(header) == plan and loaded.context.shape == (1, 3, 6)
    with torch.no_grad():
        assert torch.equal(loaded(lq), model(lq))


def test_folding_drops_the_layers_and_keeps_any_batch_size(tmp_path: Path) -> None:
    model, lq = tiny_model(), torch.cat([network_input(1), network_input(2)])
    plan = quantize(model, "w4a4", recipe())
    write_package(tmp_path / "p", model, plan, {})
    head, loaded = read_head(tmp_path / "p"), load_package(tmp_path / "p")
    assert head.header.constants == model.constant_shapes(3) == loaded.constant_shapes(3)
    assert head.header.architecture["context"] == [1, 0, 6]
    stored = {name for name in head.table if is_folded(name, head.header.constants)}
    assert stored == {f"{name}.value" for name in head.header.constants}
    assert {head.table[name].dtype for name in stored} == {"F16"}
    assert plan_of(head.header) == plan
    with torch.no_grad():
        assert torch.equal(loaded(lq), model(lq))


def test_low_rank_factors_take_two_bytes_each(tmp_path: Path) -> None:
    model = tiny_model()
    plan = quantize(model, "w4a4", recipe())
    write_package(tmp_path / "p", model, plan, {})
    table = read_head(tmp_path / "p").table
    assert {e.dtype for n, e in table.items() if ".skip." in n} == {"F16"}


@functools.cache
def package() -> bytes:
    """A real package, made once."""
    model = tiny_model("adain", seed=3)
    plan = quantize(model, "w2a4", recipe())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p"
        write_package(path, model, plan, {"profile": "test", "commit": "0" * 64})
        first = path.read_bytes()
        write_package(path, model, plan, {"commit": "0" * 64, "profile": "test"})
        assert path.read_bytes() == first
    return first


def test_any_safetensors_reader_can_open_it(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(package())
    with safe_open(tmp_path / "p", framework="np") as handle:
        values = json.loads(handle.metadata()["qartsr"])
        assert handle.get_tensor("unet.conv_in.weight.codes").dtype == "uint8"
    assert values["bits"] == "w2a4"
    assert read_header(tmp_path / "p") == values


def refused(data: bytes, match: str = r"\w") -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.safetensors"
        path.write_bytes(data)
        with pytest.raises(QartsrError, match=match) as caught:
            load_package(path)
    assert "\n" not in str(caught.value)


def forged(**changes: Any) -> bytes:
    """A package with a valid checksum and a header of one's own making."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p"
        path.write_bytes(package())
        tensors = load_file(path)
        header = read_head(path).header.model_copy(update={k: v for k, v in changes.items() if k != "tensors"})
    for name, value in changes.get("tensors", {}).items():
        tensors = {**tensors, name: value} if value is not None else {k: v for k, v in tensors.items() if k != name}
    return sealed(save(tensors, metadata(header)))


def with_vae(**changes: Any) -> dict[str, Any]:
    start = 8 + int.from_bytes(package()[:8], "little")
    values = json.loads(json.loads(package()[8:start])["__metadata__"]["qartsr"])["architecture"]
    return {**values, "vae": {**values["vae"], **changes}}


def renamed() -> tuple[Any, ...]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p"
        path.write_bytes(package())
        first, *rest = read_head(path).header.layers
    return first.model_copy(update={"name": "vae.nowhere"}), *rest


def test_other_files_are_told_apart() -> None:
    refused(b"", "is not a qartsr package")
    refused(b"\x89PNG\r\n" * 100, "is not a qartsr package")
    refused(save({"a": torch.zeros(3)}), "is not a qartsr package")


def test_a_newer_format_asks_for_an_update() -> None:
    data = package().replace(b'\\"schema_version\\":2', b'\\"schema_version\\":3')
    refused(data, "update qartsr")
    refused(package().replace(b'\\"schema_version\\":2', b'\\"schema_version\\":0'), "unknown format 0")


def test_format_one_is_still_read(tmp_path: Path) -> None:
    """As it was: without the keys that came with 2."""
    (tmp_path / "new").write_bytes(package())
    header = json.loads(metadata(read_head(tmp_path / "new").header)["qartsr"])
    checksum, header["schema_version"] = header.pop("checksum"), 1
    for layer in header["layers"]:
        for key in ("input_token", "rotation", "skip_rotated"):
            (layer["stored"] or {}).pop(key, None)
    body = json.dumps(header, sort_keys=True, separators=(",", ":"))
    text = f'{{"checksum":"{checksum}",{body[1:]}'
    (tmp_path / "old").write_bytes(sealed(save(load_file(tmp_path / "new"), {"qartsr": text})))
    old, new = load_package(tmp_path / "old").state_dict(), load_package(tmp_path / "new").state_dict()
    assert old.keys() == new.keys() and all(torch.equal(value, new[name]) for name, value in old.items())


def test_forged_packages_are_refused_before_anything_is_allocated() -> None:
    codes = "unet.conv_in.weight.codes"
    refused(forged(tensors={codes: None}), f"lacks tensor '{codes}'")
    refused(forged(tensors={"more": torch.zeros(2)}), "unknown tensor 'more'")
    refused(forged(tensors={codes: torch.zeros(3, dtype=torch.uint8)}), "not")
    refused(forged(tensors={"context": torch.zeros(1, 3, 6, dtype=torch.int32)}), "I32")
    refused(forged(architecture=with_vae(block_out_channels=[10**12] * 2)), "absurd block_out_channels")
    refused(forged(architecture=with_vae(layers_per_block=60000)), "absurd layers_per_block")
    refused(forged(architecture=with_vae(block_out_channels=[65536] * 2)), "has shape")
    refused(forged(architecture=with_vae(norm_num_groups=0)), "unusable model")
    refused(forged(architecture={}), "unusable model")
    refused(forged(layers=()), "lacks tensor")
    refused(forged(layers=renamed()), "is not in its model")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(QartsrError, match="nothing"):
        load_package(tmp_path / "nothing")
    with pytest.raises(QartsrError, match="cannot be read"):
        load_package(tmp_path)


def test_values_that_are_not_finite_are_not_packed(tmp_path: Path) -> None:
    model = tiny_model()
    plan = quantize(model, "w4a4", recipe())
    model.unet.conv_norm_out.weight[0] = torch.nan
    with pytest.raises(QartsrError, match="not finite"):
        write_package(tmp_path / "p", model, plan, {})
    assert not (tmp_path / "p").exists()


def test_the_magic_stands_at_the_start() -> None:
    assert package()[8 : 8 + len(MAGIC)] == MAGIC
