"""Where the bytes of a package are."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Qartsr


def test_json_accounts_for_every_byte(qartsr: Qartsr, package: Path) -> None:
    said = qartsr("inspect", package, "--json")
    values = json.loads(said.out)
    assert (said.status, said.err) == (0, "")
    assert values["bytes"] == sum(values["components"].values()) == package.stat().st_size
    assert (values["method"], values["bits"], values["schema_version"]) == ("test", "w4a4", 1)
    assert values["provenance"] == {"profile": "test", "data": {"sha256": "ab"}}
    assert 4 < values["bits_per_weight"] < 32


def test_tables_say_the_same(qartsr: Qartsr, package: Path) -> None:
    values, said = json.loads(qartsr("inspect", package, "--json").out), qartsr("inspect", package.parent)
    assert said.status == 0
    lines = [line.replace("│", " ").split() for line in said.out.splitlines()]
    assert ["bits", "w4a4"] in lines and ["provenance.data.sha256", "ab"] in lines
    assert ["bits", "per", "weight", str(values["bits_per_weight"])] in lines
    for name, size in [*values["components"].items(), ("total", values["bytes"])]:
        assert [*name.split(), f"{size:,}", f"{100 * size / values['bytes']:.1f}", "%"] in lines


def test_other_files_are_refused_in_one_sentence(qartsr: Qartsr, package: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("no package")
    damaged = bytearray(package.read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "damaged").write_bytes(damaged)
    for path, words in (("other", "is not a qartsr package"), ("damaged", "checksum"), ("nothing", "cannot be read")):
        said = qartsr("inspect", tmp_path / path)
        assert (said.status, said.out) == (1, "")
        assert len(said.err.splitlines()) == 1 and words in said.err
