"""Where the bytes of a package are."""

from __future__ import annotations

import json
import math
from pathlib import Path

from tests.cli.conftest import Qartsr
from tests.packing.tiny import tiny_model


def test_json_accounts_for_every_byte(qartsr: Qartsr, package: Path) -> None:
    said = qartsr("inspect", package, "--json")
    values = json.loads(said.out)
    assert (said.status, said.err) == (0, "")
    size = package.stat().st_size
    assert values["bytes"] == sum(values["components"].values()) == sum(values["kinds"].values()) == size
    for component, kinds in values["sizes"].items():
        assert sum(kinds.values()) == values["components"][component]
    for kind, total in values["kinds"].items():
        assert sum(kinds[kind] for kinds in values["sizes"].values()) == total
    folded = tiny_model().constant_shapes(3).values()
    assert values["kinds"]["folded constants"] == 2 * sum(math.prod(shape) for shape in folded)
    assert values["kinds"]["norms"] > 0 == values["kinds"]["context"] == values["kinds"]["layers kept in float"]
    assert (values["method"], values["bits"], values["schema_version"]) == ("test", "w4a4", 2)
    assert values["provenance"] == {"profile": "test", "data": {"sha256": "ab"}}
    assert 4 < values["bits_per_weight"] < 32


def test_tables_say_the_same(qartsr: Qartsr, package: Path) -> None:
    values, said = json.loads(qartsr("inspect", package, "--json").out), qartsr("inspect", package.parent)
    assert said.status == 0
    lines = [line.replace("│", " ").split() for line in said.out.splitlines()]
    assert ["bits", "w4a4"] in lines and ["provenance.data.sha256", "ab"] in lines
    assert ["bits", "per", "weight", str(values["bits_per_weight"])] in lines
    parts = ("VAE encoder", "UNet", "VAE decoder")
    for kind, size in values["kinds"].items():
        row = [f"{number:,}" for number in (*(values["sizes"][part][kind] for part in parts), size)]
        assert [*kind.split(), *row, f"{100 * size / values['bytes']:.1f}", "%"] in lines
    sums = [f"{number:,}" for number in (*(values["components"][part] for part in parts), values["bytes"])]
    assert ["total", *sums, "100.0", "%"] in lines


def test_fp16_bytes_are_those_of_the_unfolded_model(qartsr: Qartsr, package: Path) -> None:
    values = json.loads(qartsr("inspect", package, "--json").out)
    assert values["fp16_bytes"] == 2 * sum(weight.numel() for weight in tiny_model().parameters())
    assert values["times_smaller_than_fp16"] == round(values["fp16_bytes"] / values["bytes"], 4)
    assert values["folded_modules"] == len(tiny_model().constant_shapes(3))


def test_other_files_are_refused_in_one_sentence(qartsr: Qartsr, package: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("no package")
    damaged = bytearray(package.read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "damaged").write_bytes(damaged)
    for path, words in (("other", "is not a qartsr package"), ("damaged", "checksum"), ("nothing", "cannot be read")):
        said = qartsr("inspect", tmp_path / path)
        assert (said.status, said.out) == (1, "")
        assert len(said.err.splitlines()) == 1 and words in said.err
