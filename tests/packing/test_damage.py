"""Whatever is wrong with a file: one sentence, and no tensor is read before everything has been checked."""

from __future__ import annotations

import functools
import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qartsr.artifact.header import SCHEMA_VERSION, read_head, sealed
from qartsr.errors import QartsrError
from qartsr.packing import inspect, load_package, write_package
from qartsr.packing import package as package_module
from qartsr.packing.structure import plan_of
from tests.packing.tiny import quantize, recipe, tiny_model

FAST = settings(max_examples=50)
FEW = settings(max_examples=6)
"""For what is noticed only when the model has been built."""


@functools.cache
def real() -> bytes:
    """A package, made once."""
    model = tiny_model()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p"
        write_package(path, model, quantize(model, "w3a3", recipe()), {"profile": "test"})
        return path.read_bytes()


@functools.cache
def parts() -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Header, table and tensors."""
    end = 8 + int.from_bytes(real()[:8], "little")
    table = json.loads(real()[8:end])
    return json.loads(table.pop("__metadata__")["qartsr"]), table, real()[end:]


def forged(change: Callable[[dict[str, Any], dict[str, Any]], None], tail: bytes | None = None) -> bytes:
    """A file with a valid checksum whose header and table were changed by its maker."""
    header, table, tensors = json.loads(json.dumps(parts()[0])), json.loads(json.dumps(parts()[1])), parts()[2]
    change(header, table)
    header["checksum"] = "0" * 64
    body = json.dumps({"checksum": header.pop("checksum"), **header}, separators=(",", ":"))
    text = json.dumps({"__metadata__": {"qartsr": body}, **table}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return sealed(len(text).to_bytes(8, "little") + text + (tensors if tail is None else tail))


def refused(data: bytes, *words: str, read: Callable[[Path], object] = load_package) -> None:
    """One sentence, and none of the tensors is touched."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(package_module, "safe_open", _untouchable)
        path = Path(folder) / "p"
        path.write_bytes(data)
        with pytest.raises(QartsrError) as caught:
            read(path)
    said = str(caught.value)
    assert "\n" not in said and said.startswith(str(path)) and all(word in said for word in words), said


def _untouchable(*_: object, **__: object) -> None:
    raise AssertionError("a tensor was about to be read")


def test_the_forger_can_also_be_honest() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p"
        path.write_bytes(forged(lambda header, table: None))
        assert load_package(path).context.shape == (1, 0, 6)


@given(bit=st.integers(0, 8 * 10**9), in_header=st.booleans())
@FAST
def test_one_flipped_bit_anywhere(bit: int, in_header: bool) -> None:
    data = bytearray(real())
    bit %= 8 * (8 + int.from_bytes(data[:8], "little") if in_header else len(data))
    data[bit // 8] ^= 1 << bit % 8
    refused(bytes(data))


@given(length=st.integers(0, 10**9), in_header=st.booleans())
@FAST
def test_truncated_at_any_length(length: int, in_header: bool) -> None:
    data = real()
    refused(data[: length % (8 + int.from_bytes(data[:8], "little") if in_header else len(data))])


@given(more=st.binary(min_size=1, max_size=20))
@FAST
def test_anything_behind_the_end(more: bytes) -> None:
    refused(real() + more, "tensors where")


@given(version=st.integers(SCHEMA_VERSION + 1, 10**30))
@FAST
def test_any_newer_version_asks_for_an_update(version: int) -> None:
    refused(forged(lambda header, table: header.update(schema_version=version)), f"has format {version}", "update")


ABSURD = st.one_of(st.integers(-(2**70), -1), st.integers(2**17, 2**70))


@given(data=st.data(), size=ABSURD)
@FEW
def test_absurd_shapes_in_the_table(data: st.DataObject, size: int) -> None:
    name = data.draw(st.sampled_from(sorted(parts()[1])))
    place = data.draw(st.integers(0, 3))

    def change(header: dict[str, Any], table: dict[str, Any]) -> None:
        shape = table[name]["shape"]
        shape[place % len(shape)] = size

    refused(forged(change), name)


@given(data=st.data(), offset=st.integers(-(2**70), 2**70))
@FAST
def test_absurd_places_in_the_table(data: st.DataObject, offset: int) -> None:
    name = data.draw(st.sampled_from(sorted(name for name, entry in parts()[1].items() if 0 not in entry["shape"])))
    end = data.draw(st.integers(0, 1))
    if offset == parts()[1][name]["data_offsets"][end]:
        return
    refused(forged(lambda header, table: table[name]["data_offsets"].__setitem__(end, offset)))


@given(data=st.data(), size=ABSURD)
@FEW
def test_absurd_shapes_in_the_header(data: st.DataObject, size: int) -> None:
    layer = data.draw(st.sampled_from([i for i, entry in enumerate(parts()[0]["layers"]) if entry["stored"]]))
    constant = data.draw(st.sampled_from(sorted(parts()[0]["constants"])))
    place = data.draw(st.integers(0, 3))

    def of_a_layer(header: dict[str, Any], table: dict[str, Any]) -> None:
        shape = header["layers"][layer]["stored"]["shape"]
        shape[place % len(shape)] = size

    def of_a_constant(header: dict[str, Any], table: dict[str, Any]) -> None:
        shape = header["constants"][constant]
        shape[place % len(shape)] = size

    refused(forged(of_a_layer), "has shape")
    refused(forged(of_a_constant))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(data=st.data(), value=JSON)
@FAST
def test_anything_in_the_place_of_a_header_value(data: st.DataObject, value: Any) -> None:
    """It is refused in one sentence, or it makes no difference to what the header means; nothing else is raised."""
    keys = sorted({*parts()[0]} - {"checksum", "provenance", "architecture"})
    key = data.draw(st.sampled_from(keys))
    inner = key == "layers" and data.draw(st.booleans())

    def change(header: dict[str, Any], table: dict[str, Any]) -> None:
        if inner:
            header["layers"][0][data.draw(st.sampled_from(sorted(header["layers"][0])))] = value
        else:
            header[key] = value

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p"
        path.write_bytes(forged(change))
        try:
            plan_of(read_head(path).header)
        except QartsrError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("key", ["\n", "\r\n", "\x1b[2J", "\u2028"])
def test_a_forged_key_stays_on_one_line(key: str, tmp_path: Path) -> None:
    path = tmp_path / "p"
    path.write_bytes(forged(lambda header, table: header.update(constants={key: None})))
    with pytest.raises(QartsrError, match="unusable header") as refusal:
        read_head(path)
    assert len(str(refusal.value).splitlines()) == 1 and str(refusal.value).isprintable()


def test_forged_headers_are_named() -> None:
    def first(**values: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
        return lambda header, table: header["layers"][0].update(values)

    def twice(header: dict[str, Any], table: dict[str, Any]) -> None:
        header["layers"].append(header["layers"][0])

    refused(forged(first(weight_bits=99)), "unusable header", "weight_bits")
    refused(forged(first(input_bits=1)), "unusable header", "input_bits")
    refused(forged(first(recipe=7)), "no recipe")
    refused(forged(first(float=True)), "neither stored nor float nor folded")
    refused(forged(twice), "listed twice")
    refused(forged(lambda header, table: header["constants"].popitem()), "neither stored nor float nor folded")
    refused(forged(lambda header, table: header["constants"].update({"unet.more": [1]})), "constant 'unet.more'")
    refused(forged(lambda header, table: table.popitem()), "tensors where")
    refused(forged(lambda header, table: header.pop("constants")), "unusable header (constants")
    deep: list[Any] = []
    for _ in range(300):
        deep = [deep]
    refused(forged(lambda header, table: header["architecture"].update(more=deep)), "absurd nesting")


def test_inspect_refuses_the_same() -> None:
    refused(b"\x89PNG", "is not a qartsr package", read=inspect)
    refused(real()[:-1], "tensors where", read=inspect)
    refused(real()[:-1] + bytes([real()[-1] ^ 1]), "checksum", read=inspect)
    refused(forged(lambda header, table: header["constants"].clear()), "neither stored", read=inspect)
    refused(forged(lambda header, table: table["context"].update(shape=[1, 2**40, 6])), "context", read=inspect)


def test_a_table_that_overlaps_is_refused() -> None:
    def change(header: dict[str, Any], table: dict[str, Any]) -> None:
        first, second, *_ = (entry for entry in table.values() if 0 not in entry["shape"])
        second["data_offsets"] = first["data_offsets"]

    refused(forged(change), "table of tensors is unusable")


def _with_value(name: str, value: float, place: int = 0) -> bytes:
    """The real package with one of its numbers changed, and sealed again."""
    entry = parts()[1][name]
    start, end = entry["data_offsets"]
    tensors = bytearray(parts()[2])
    kind = {"F16": "<f2", "F32": "<f4"}[entry["dtype"]]
    numbers = np.frombuffer(bytes(tensors[start:end]), kind).copy()
    numbers[place] = value
    tensors[start:end] = numbers.tobytes()
    return forged(lambda header, table: None, bytes(tensors))


def _named(ending: str) -> str:
    return next(name for name in sorted(parts()[1]) if name.endswith(ending))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("ending", ["weight.grid", "input.grid", "bias.grid", "transform.phi", "skip.left"])
def test_numbers_that_are_not_finite(ending: str, value: float, tmp_path: Path) -> None:
    name = _named(ending)
    (tmp_path / "p").write_bytes(_with_value(name, value))
    with pytest.raises(QartsrError, match=rf"tensor '{name}' holds a value that is not finite"):
        load_package(tmp_path / "p")


@pytest.mark.parametrize("value", [0.0, -0.0, -1.0])
@pytest.mark.parametrize("ending", ["weight.grid", "input.grid", "bias.grid", "transform.phi"])
def test_scales_that_are_none(ending: str, value: float, tmp_path: Path) -> None:
    name = _named(ending)
    (tmp_path / "p").write_bytes(_with_value(name, value))
    with pytest.raises(QartsrError, match=rf"tensor '{name}' holds a scale that is not above 0"):
        load_package(tmp_path / "p")


def test_a_long_name_is_not_quoted_whole() -> None:
    long = "x" * 10_000

    def change(header: dict[str, Any], table: dict[str, Any]) -> None:
        table[long] = table.pop(sorted(table)[0])

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p"
        path.write_bytes(forged(change))
        with pytest.raises(QartsrError) as caught:
            load_package(path)
    assert len(str(caught.value)) < 1000
